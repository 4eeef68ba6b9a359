"""Tiles over an image, each with its halo, and what they differ by without one."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfbench import files
from rfbench.plotting import look, page
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.rf.core.subjects import short
from rfbench.rf.questions.tiles import lines, volumes
from rfbench.rf.questions.tiles.scheme import bar, draw_edges, draw_scheme, keys, logarithm
from rfbench.rf.questions.tiles.table import caption, side_by_side, title
from rfbench.runs import records

SIDE, LEFT, GAP = 2.5, 0.5, 0.75  # inches: of a panel, before and between them
OTHERS = {1: lines.tiles_figure, 3: volumes.tiles_figure}  # by the number of axes


Found = tuple[dict[str, Any], np.ndarray | None]  # a record, and the differences without a halo


def write(found: list[Found], folder: Path) -> list[str]:
    """A figure (PNG, PDF) a record and, last, result.json; returns the names of the files."""
    records.open_folder(folder)
    names: list[str] = []
    for record, without in found:
        stem = files.default_folder(record["model"], record["variant"]).name
        end = f"-{record['to']}" if len(found) > 1 else ""
        drawn = page.save(tiles_figure(record, without), folder / f"{stem}{end}")
        names += [path.name for path in drawn]
    records.write_record(folder, "rf-tiles", {"tiles": [r for r, _ in found], "files": names})
    return [*names, records.RECORD]


def tiles_figure(record: dict[str, Any], without: np.ndarray | None) -> Figure:
    """The image with its crops; beside it the differences without a halo, if crops fit so.

    Of a sequence: its crops one below the other, and below them the differences; of a volume three
    sections.
    """
    if (drawn := OTHERS.get(len(record["crop"]))) is not None:
        return drawn(record, without)
    panels = 1 if without is None else 2
    beside = LEFT + (panels - 1) * GAP + 0.25 + 0.45 * (panels - 1)
    side = look.side(SIDE, beside, panels)
    width = beside + panels * side
    name = f"{short(record['model'])} / {record['variant']} to {record['to']}"
    head = wrap(name, width - 0.16, LARGE)
    foot = wrap(caption(record), width - 0.16, SMALL)
    words = [title(record), *([] if without is None else [side_by_side(record)])]
    titles = [wrap(text, side, TEXT) for text in words]
    top = 0.22 + len(head) * line(LARGE) + 0.09 + max(map(len, titles)) * line(TEXT)
    height = side * min(1.5, record["shown"]["size"][0] / record["shown"]["size"][1])
    below = top + height + 0.42
    sheet = Page(width, below + len(foot) * line(SMALL) + 0.06)
    sheet.lines(0.08, 0.06, head, LARGE, weight="bold")
    first = sheet.axes(LEFT, top, side, height)
    first.set_title("\n".join(titles[0]), fontsize=TEXT, pad=3)
    draw_scheme(first, record)
    first.set_xlabel("px of the image", fontsize=TEXT, labelpad=1)
    first.set_ylabel("px of the image", fontsize=TEXT, labelpad=1)
    sheet.legend(keys(), 0.1 + len(head) * line(LARGE), 2)
    if without is not None:
        second = sheet.axes(LEFT + side + GAP, top, side, height)
        second.set_title("\n".join(titles[1]), fontsize=TEXT, pad=3)
        rows, columns = record["shown"]["size_without_halo"]
        bar(sheet, second, logarithm(second, without, (0, columns, rows, 0)))
        draw_edges(second, record)
        second.set_xlabel("px of the image", fontsize=TEXT, labelpad=1)
    sheet.lines(0.08, below, foot, SMALL)
    return sheet.figure
