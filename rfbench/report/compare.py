"""The whole of `rfbench compare`: folders in, a report out, and the report as text."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from rfbench.errors import counted, one_line
from rfbench.report import formats, networks, runs
from rfbench.report.build import Wanted, build
from rfbench.report.model import Report

DEFAULT = Path("results")
logger = logging.getLogger(__name__)


def compare(results: Sequence[Path], wanted: Wanted, draw: networks.Draw | None = None) -> Report:
    """Compare the runs below the folders `results` ((): results/); logs what cannot be used.

    draw: draws the images of receptive fields; None: no images. Raises as `runs.find` and
    `build`.
    """
    folders = list(results) or [DEFAULT]
    # the paper's tables need no runs
    empty = not results and wanted.reference and not DEFAULT.exists()
    loaded = runs.Results() if empty else runs.find(folders)
    _warn(loaded.problems)
    if loaded.maps:
        logger.info("skipped %s of receptive fields", counted(loaded.maps, "record"))
    report = build(loaded, wanted, functools.partial(networks.look, draw=draw), folders)
    _warn(report.problems[len(loaded.problems) :])
    return report


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        logger.warning("%s", one_line(problem, 1000))


def render(report: Report, form: str) -> str:
    """The report as table, markdown, csv, json or html."""
    if form == "html":
        from rfbench.report import html  # imports Matplotlib

        return html.page(report)
    return formats.FORMATS[form](report)
