"""The whole of `rfbench compare`: folders in, a report out, and the report as text."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from rfbench.errors import counted, one_line
from rfbench.report import formats, latex, networks, runs
from rfbench.report.build import Wanted, build
from rfbench.report.model import Report

DEFAULT = Path("results")
logger = logging.getLogger(__name__)


def compare(
    results: Sequence[Path],
    wanted: Wanted,
    draw: bool = False,
    own: bool = False,
) -> Report:
    """Compare the runs below the folders `results` ((): results/); logs what cannot be used.

    draw: gather the maps of receptive fields. own: import networks that the records name, to
    measure and draw them. Raises as `runs.find` and `build`.
    """
    folders = list(results) or [DEFAULT]
    # the paper's tables need no runs
    empty = not results and wanted.reference and not DEFAULT.exists()
    loaded = runs.Results() if empty else runs.find(folders)
    _warn(loaded.problems)
    if loaded.maps:
        logger.info("skipped %s of receptive fields", counted(loaded.maps, "record"))
    report = build(loaded, wanted, functools.partial(networks.look, own=own), folders)
    _warn(report.problems[len(loaded.problems) :])
    if draw:
        from rfbench.report import fields  # imports Pillow

        for group in report.groups:
            fields.gather(group, own)
    return report


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        logger.warning("%s", one_line(problem, 1000))


def render(report: Report, form: str, folder: Path = Path()) -> str:
    """The report as table, markdown, latex, csv, json or html. folder: where it will be."""
    if form == "html":
        from rfbench.report import html  # imports Matplotlib and jinja2

        return html.page(report, folder)
    return {"latex": latex.latex, **formats.FORMATS}[form](report)
