"""Tiles over a volume: its crops in three sections, and what they differ by without a halo."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.rf.core.subjects import short
from rfbench.rf.questions.tiles.scheme import bar, draw_edges, draw_scheme, keys, logarithm
from rfbench.rf.questions.tiles.table import caption, side_by_side, title

SIDE, LEFT, GAP, RIGHT = 1.7, 0.5, 0.5, 0.75  # inches: of a panel, around them
PLANES = [(1, 2), (0, 2), (0, 1)]  # the axes of each panel, down and to the right
NAMES = ("depth", "y", "x")


def tiles_figure(record: dict[str, Any], without: np.ndarray | None) -> Figure:
    """Sections through a crop in the middle; below, differences in sections through one."""
    beside = LEFT + 2 * GAP + RIGHT
    side = look.side(SIDE, beside, 3)
    width = beside + 3 * side
    rows = 1 if without is None else 2
    name = f"{short(record['model'])} / {record['variant']} to {record['to']}"
    head, foot = wrap(name, width - 0.16, LARGE), wrap(caption(record), width - 0.16, SMALL)
    top, block = 0.28 + len(head) * line(LARGE), 0.2 + side + 0.45
    sheet = Page(width, top + rows * block + len(foot) * line(SMALL) + 0.1)
    sheet.lines(0.08, 0.06, head, LARGE, weight="bold")
    sheet.legend(keys(), 0.1 + len(head) * line(LARGE), 2)
    for row in range(rows):
        y = top + row * block
        words = title(record) if row == 0 else side_by_side(record)
        sheet.lines(LEFT, y, [words], TEXT)
        for i, plane in enumerate(PLANES):
            axes = sheet.axes(LEFT + i * (side + GAP), y + 0.2, side, side)
            if row == 0 or without is None:
                draw_scheme(axes, record, plane)
            else:
                drawn = _differences(axes, record, without, plane)
                if plane == PLANES[-1]:
                    bar(sheet, axes, drawn)
            axes.set_ylabel(f"{NAMES[plane[0]]}, voxels", fontsize=SMALL, labelpad=0)
            axes.set_xlabel(f"{NAMES[plane[1]]}, voxels", fontsize=SMALL, labelpad=1)
    sheet.lines(0.08, top + rows * block, foot, SMALL)
    return sheet.figure


def _differences(
    axes: Axes, record: dict[str, Any], apart: np.ndarray, plane: tuple[int, int]
) -> Any:
    """Those of the units of a plane through the middle of a crop."""
    third = ({0, 1, 2} - {*plane}).pop()
    size, crop = record["shown"]["size_without_halo"], record["crop"][third]
    middle = (size[third] // crop // 2 + 0.5) * crop  # in px
    unit = min(int(middle * apart.shape[third] / size[third]), apart.shape[third] - 1)
    extent = (0, size[plane[1]], size[plane[0]], 0)
    drawn = logarithm(axes, apart.take(unit, third), extent)
    draw_edges(axes, record, plane)
    return drawn
