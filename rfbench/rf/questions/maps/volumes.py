"""Receptive fields of volumes: sections through the unit's position, and projections."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rfbench.errors import UsageError
from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import CENTROID, EMPTY, MAPS, SHARE, UNIT
from rfbench.rf.core.metrics import caption as words_of
from rfbench.rf.questions.maps.figure import Panel, Scale

SIDE, LEFT, GAP, RIGHT = 1.7, 0.5, 0.42, 0.62
PLANES = [(1, 2, "y, x"), (0, 2, "depth, x"), (0, 1, "depth, y")]  # rows, columns of each
NAMES = ("depth", "y", "x")
NOTE = (
    "Above: {root}the number of paths from each voxel to one unit, in three sections through the "
    "unit's position; below: summed along the third axis. Each 1 where most. Offsets: voxels from "
    "the unit's position in a grid centred on the source. Shift: centroid minus that position. "
    "Gridding: coefficient of variation of the counts' sums over the phases of a period, the "
    "largest of all periods; 0 is even."
)


def volumes_figure(
    panels: Sequence[Panel], title: str, caption: str, scale: Scale = "sqrt"
) -> Figure:
    """Sections and projections of the counts of one unit of each panel, a block of six a panel.

    Raises UsageError without panels.
    """
    if not panels:
        raise UsageError("a figure of maps needs at least one panel")
    norm = PowerNorm(0.5, 0, 1) if scale == "sqrt" else Normalize(0, 1)
    beside = LEFT + 2 * GAP + RIGHT
    side = look.side(SIDE, beside, 3)
    width = beside + 3 * side
    note = NOTE.format(root="square root of " if scale == "sqrt" else "")
    head, foot = wrap(title, 0.9 * width, LARGE), wrap(f"{note}\n{caption}", width - 0.16, SMALL)
    words = [wrap(_words(panel), width - LEFT - 0.1, TEXT) for panel in panels]
    block = 0.34 + 2 * (side + 0.42)
    heights = [block + len(some) * line(TEXT) + 0.08 for some in words]
    top = 0.1 + len(head) * line(LARGE)
    page = Page(width, top + sum(heights) + 0.18 + len(foot) * line(SMALL) + 0.1)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    keys = [("unit's position", UNIT), ("centroid", CENTROID)]
    page.legend([Line2D([], [], label=k, **v) for k, v in keys], top + sum(heights), 2)
    page.lines(0.08, top + sum(heights) + 0.18, foot, SMALL)
    reach = max(map(_reach, panels))
    for panel, some, height in zip(panels, words, heights, strict=True):
        page.lines(LEFT, top, [panel.title.replace("\n", " ")], TEXT + 1, weight="bold")
        for i in range(3):
            for row, values in enumerate((_section(panel, i), _projection(panel, i))):
                x, y = LEFT + i * (side + GAP), top + 0.32 + row * (side + 0.42)
                _draw(page.axes(x, y, side, side), panel, i, values, reach, norm)
                page.lines(
                    x, y - 0.13, [f"{'section' if row == 0 else 'sum'} {PLANES[i][2]}"], SMALL
                )
        _bar(page.axes(width - RIGHT + 0.08, top + 0.32, 0.07, side), norm)
        page.lines(LEFT, top + block - 0.02, some, TEXT)
        top += height
    return page.figure


def _words(panel: Panel) -> str:
    text = words_of(panel.metrics)
    if panel.own:
        text += f"\n{panel.own_at}: {words_of(panel.own[1], brief=True)}"
    return text


def _reach(panel: Panel) -> float:
    """Half the width of a cube around the unit's position that holds the counts that matter."""
    hits = np.nonzero(panel.counts > SHARE)
    ends = zip(panel.origin, hits, strict=True)
    return 1.03 * max(max(at - h.min(), h.max() - at) + 0.5 for at, h in ends)


def _third(i: int) -> int:
    """The axis that a plane leaves out."""
    return ({0, 1, 2} - set(PLANES[i][:2])).pop()


def _section(panel: Panel, i: int) -> np.ndarray:
    """The plane through the unit's position; between two planes, their mean."""
    axis = _third(i)
    n, at = panel.counts.shape[axis], panel.origin[axis]
    near = {min(max(round(v), 0), n - 1) for v in (math.floor(at + 1e-6), math.ceil(at - 1e-6))}
    return panel.counts.take(sorted(near), axis).mean(axis)


def _projection(panel: Panel, i: int) -> np.ndarray:
    return panel.counts.sum(_third(i))


def _draw(
    axes: Axes, panel: Panel, i: int, values: np.ndarray, reach: float, norm: Normalize
) -> None:
    rows, columns, _ = PLANES[i]
    y, x = panel.origin[rows], panel.origin[columns]
    top, left = -0.5 - y, -0.5 - x
    extent = (left, left + values.shape[1], top + values.shape[0], top)
    most = values.max() or 1
    axes.imshow(
        values / most, extent=extent, aspect="auto", cmap=MAPS, norm=norm, interpolation="nearest"
    )
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), facecolor=EMPTY)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10], integer=True).tick_values(-0.9 * reach, 0.9 * reach)
    inside = [tick for tick in ticks if abs(tick) <= reach]
    axes.set(xticks=inside, yticks=inside)
    axes.set_ylabel(f"{NAMES[rows]}, voxels", fontsize=SMALL, labelpad=0)
    axes.set_xlabel(f"{NAMES[columns]}, voxels", fontsize=SMALL, labelpad=1)
    axes.plot([panel.offset[columns]], [panel.offset[rows]], **CENTROID)
    axes.plot([0], [0], **UNIT)


def _bar(axes: Axes, norm: Normalize) -> None:
    ticks = {0: "0", 0.1: "0.1", 0.25: "0.25", 0.5: "0.5", 1: "1"}
    bar = axes.figure.colorbar(ScalarMappable(norm, MAPS), cax=axes)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    axes.set_ylabel("paths / most paths", fontsize=TEXT)
