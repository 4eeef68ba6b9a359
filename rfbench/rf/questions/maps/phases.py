"""Maps whose units take turns: the map of each phase, and how evenly outputs are reached."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import GREYS
from rfbench.rf.core.period import Period
from rfbench.spatial_graph.size import Size

MOST = 4  # maps of a variant; of more units, the first and the last along each axis
TILE = 12  # output positions a side of the checkerboard, or one period where that is more
SIDE, LEFT, GAP, RIGHT = 1.7, 0.5, 0.14, 0.62
EVEN = 1e-6
NOTE = (
    "Paths from all pixels to each position of the output, above or below their mean, in one or "
    "more periods. A checkerboard comes from kernels that the stride does not divide (Odena et "
    "al., 2016). CV: the coefficient of variation over the phases."
)


def chosen_units(period: Period) -> list[Size]:
    """The units of one period whose maps are drawn, at most MOST."""
    ends = [sorted({0, n - 1}) for n in period.totals.shape]
    every = product(*(range(n) for n in period.totals.shape))
    units = list(every) if period.totals.size <= MOST else list(product(*ends))
    return [tuple(f + i for f, i in zip(period.first, at, strict=True)) for at in units]


def is_uneven(period: Period) -> bool:
    """Whether outputs of some phases are reached by more paths than others."""
    return float(np.ptp(period.totals)) > EVEN * float(period.totals.max())


def checkerboard_figure(
    periods: Sequence[tuple[str, Period, float]], title: str, caption: str
) -> Figure:
    """The number of paths to each position, relative to the mean, for (name, period, CV) each."""
    boards = [_board(period) for _, period, _ in periods]
    most = max(float(np.abs(board).max()) for board in boards)
    norm = Normalize(-100 * most, 100 * most)
    beside = LEFT + (len(boards) - 1) * GAP + RIGHT
    side = look.side(SIDE, beside, len(boards))
    width = look.page_width(max(beside + len(boards) * side, 3.4))
    head, foot = wrap(title, 0.9 * width, LARGE), wrap(f"{NOTE}\n{caption}", width - 0.16, SMALL)
    titles = [wrap(name, 0.9 * side, TEXT + 1) for name, *_ in periods]
    above = 0.1 + len(head) * line(LARGE) + max(map(len, titles)) * line(TEXT + 1) + 0.04
    page = Page(width, above + side + 0.55 + len(foot) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    page.lines(0.08, above + side + 0.55, foot, SMALL)
    for i, ((_, _, cv), board) in enumerate(zip(periods, boards, strict=True)):
        x = LEFT + i * (side + GAP)
        page.lines(x, 0.1 + len(head) * line(LARGE), titles[i], TEXT + 1, weight="bold")
        axes = page.axes(x, above, side, side)
        axes.imshow(100 * board, cmap=GREYS, norm=norm, interpolation="nearest")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelleft=i == 0)
        axes.set_xlabel("output position", fontsize=TEXT, labelpad=1)
        if i == 0:
            axes.set_ylabel("output position", fontsize=TEXT, labelpad=1)
        page.lines(x, above + side + 0.34, [f"CV {cv:.4f}"], TEXT)
    bar = page.axes(LEFT + len(boards) * (side + GAP) - GAP + 0.07, above, 0.07, side)
    page.figure.colorbar(ScalarMappable(norm, GREYS), cax=bar)
    bar.set_ylabel("paths above mean, %", fontsize=TEXT)
    return page.figure


def _board(period: Period) -> np.ndarray:
    """Periods side by side, relative to the mean: 0.5 is half as many more."""
    share = period.totals / period.totals.mean() - 1
    turns = [-(-TILE // n) for n in share.shape]
    height, width = (max(TILE, n) for n in share.shape)
    return np.tile(share, turns)[:height, :width]
