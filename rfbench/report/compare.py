"""The whole of `rfbench compare`: folders in, a report out, and the report as text."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from rfbench.errors import RfbenchError, counted, one_line
from rfbench.report import formats, latex, networks, runs, sort
from rfbench.report.build import Wanted, build
from rfbench.report.model import Group, Report

DEFAULT = Path("results")
logger = logging.getLogger(__name__)


def compare(
    results: Sequence[Path],
    wanted: Wanted,
    draw: networks.Draw | None = None,
    own: bool = False,
) -> Report:
    """Compare the runs below the folders `results` ((): results/); logs what cannot be used.

    draw: draws the images of receptive fields; None: no images. own: import networks that the
    records name, to measure and draw them. Raises as `runs.find` and `build`.
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
    if draw and not wanted.rows:
        once = functools.cache(draw)  # groups share networks
        for group in report.groups:
            _draw(group, once, own)
    return report


def _draw(group: Group, draw: networks.Draw, own: bool) -> None:
    """Add the image of a group's receptive fields, if its network may be built."""
    rows = [row for block in group.blocks for row in block.rows if row.network.figures]
    names = sorted({row.variant for row in rows}, key=sort.paper_order)
    if names and networks.may_look(group.name, own):
        try:
            group.image = draw(group.name, tuple(names))
        except RfbenchError as error:
            logger.warning("%s: not drawn: %s", group.name, one_line(error, 1000))


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        logger.warning("%s", one_line(problem, 1000))


def render(report: Report, form: str, folder: Path = Path()) -> str:
    """The report as table, markdown, latex, csv, json or html. folder: where it will be."""
    if form == "html":
        from rfbench.report import html  # imports Matplotlib and jinja2

        return html.page(report, folder)
    return {"latex": latex.latex, **formats.FORMATS}[form](report)
