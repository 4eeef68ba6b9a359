"""Receptive fields side by side, fit for print. Lengths are inches unless a name says otherwise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from rfbench.errors import UsageError
from rfbench.plotting import look
from rfbench.plotting.page import DPI, LARGE, SMALL, TEXT, Page, key_columns, line, text_width, wrap
from rfbench.plotting.palette import CENTROID, EMPTY, FINE, GREYS, MAPS, MARK, SHARE, UNIT
from rfbench.rf.core import contrast
from rfbench.rf.core.metrics import caption as words_of
from rfbench.rf.core.path_map import PathMap

Scale = Literal["sqrt", "linear"]
Style = dict[str, Any]
Texts = tuple[list[list[str]], list[list[str]]]  # titles and figures of some panels, in lines

SIDES = {1: 2.1, 2: 2.1, 3: 1.8, 4: 1.4}  # of a panel, by columns: all have many divisors in dots
LEFT, RIGHT, GAP = 0.46, 0.62, 0.1
BOLD = 0.9  # bold letters are wider than those that `wrap` measures
CELLS = 20  # up to so many pixels a side, the counts are printed in their cells


@dataclass(frozen=True)
class Panel:
    """One column of a figure: the map of one unit.

    path_map: on an input that cuts nothing off. metrics: `metrics.measure` of it. own: the same at
    the user's own input size, of which only the figures are shown; `own_at`: 'at 224 px'.
    """

    title: str
    path_map: PathMap
    metrics: dict[str, Any]
    own: tuple[PathMap, dict[str, Any]] | None = None
    own_at: str = ""

    @property
    def origin(self) -> tuple[float, ...]:
        """(y, x) of the unit in a grid centred on the source: the origin of the panel's axes.

        Along an axis without a stride there is no such grid: the middle of what the unit reads.
        """
        return tuple(c - d for c, d in zip(self.metrics["centroid"], self.offset, strict=True))

    @property
    def offset(self) -> tuple[float, ...]:
        """(y, x) of the centroid: the shift of this unit alone, where units take turns."""
        return contrast.offset(self.metrics)

    @property
    def strides(self) -> list[float]:
        """Source positions a unit along every axis; 1 where there is no stride."""
        known = self.metrics["stride"] or [None] * len(self.metrics["centroid"])
        return [1 if s is None else s for s in known]

    @property
    def counts(self) -> np.ndarray:
        """(H, W), or of other axes, float64, the largest 1."""
        counts = self.path_map.counts.astype(float)
        return counts / counts.max()


@dataclass(frozen=True)
class _Shared:
    """What all panels of a figure have in common; widths are source pixels."""

    side: float  # of a panel, inches
    width: float  # of the maps, around the panels' origins
    crisp: bool  # whether a source pixel is a whole number of dots
    zoom: int | None  # width of the second row; None: there is none
    contrast: float  # of the second row: 1 - contrast is black, 1 + contrast white; 2 CV
    norm: Normalize


def maps_figure(panels: Sequence[Panel], title: str, caption: str, scale: Scale = "sqrt") -> Figure:
    """The maps of up to four units a row; below each its middle over the local mean, in grey.

    caption: convention and engine, and what else a reader must know. Small maps have their counts
    printed and no second row. Raises UsageError without panels.
    """
    if not panels:
        raise UsageError("a figure of maps needs at least one panel")
    columns = look.columns(len(panels), LEFT + RIGHT, GAP)  # five are three and two
    width, side = _widths(columns)
    shared = _shared(panels, side, scale)
    head = wrap(title, BOLD * (width - 0.16), LARGE)
    foot = wrap(f"{_note(shared)}\n{caption}", width - 0.16, SMALL)
    blocks = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    texts = [_texts(block, shared.side) for block in blocks]
    tall = shared.side + 0.42 + (shared.side + 0.2 if shared.zoom else 0)
    heights = [tall + len(t[0]) * line(TEXT + 1) + len(w[0]) * line(TEXT) for t, w in texts]
    keys = _handles(panels, shared)
    across = key_columns([key.get_label() for key in keys], width)
    down = -(-len(keys) // across)
    top = 0.1 + len(head) * line(LARGE)
    below = top + sum(heights) + 0.08 + down * 0.13
    page = Page(width, below + len(foot) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    page.legend(keys, top + sum(heights), across)
    page.lines(0.08, below, foot, SMALL)
    for i, block in enumerate(blocks):
        _block(page, top, block, texts[i], shared, bars=i == 0)
        top += heights[i]
    return page.figure


def _widths(columns: int) -> tuple[float, float]:
    """Of the page and of a panel, which is a whole number of tenths: they have many divisors."""
    beside = LEFT + RIGHT + (columns - 1) * GAP
    side = look.side(SIDES[columns], beside, columns)
    side = math.floor(10 * side + 1e-6) / 10
    return look.page_width(beside + columns * side), side


def _shared(panels: Sequence[Panel], side: float, scale: Scale) -> _Shared:
    whole = [n for n in range(1, round(side * DPI) // 2 + 1) if round(side * DPI) % n == 0]
    need = 2 * max(_reach(panel) for panel in panels)
    width = next((n for n in whole if need <= n <= 1.1 * need + 1), None)
    shift = max(abs(s) for panel in panels for s in panel.offset)
    # few enough pixels to be told apart in print, enough for the way from place to centroid
    wanted = 2 * max(14, shift + 5)
    zoom = min((n for n in whole if n % 2 == 0), key=lambda n: abs(n - wanted))
    strides = [s for panel in panels for s in panel.strides]
    show = max(strides) > 1 and max(zoom, CELLS) < need
    grey = contrast.contrast([panel.metrics for panel in panels])
    norm = PowerNorm(0.5, 0, 1) if scale == "sqrt" else Normalize(0, 1)
    return _Shared(side, width or need, width is not None, zoom if show else None, grey, norm)


def _reach(panel: Panel) -> float:
    """Half the width of a window around the unit's position that holds the counts that matter."""
    small = max(panel.counts.shape) <= CELLS  # then the whole source is shown
    hits = np.nonzero((panel.counts > SHARE) | small)
    ends = [max(at - h.min(), h.max() - at) + 0.5 for at, h in zip(panel.origin, hits, strict=True)]
    return max(ends) * (1 if small else 1.03)


def _window(panel: Panel, width: float) -> tuple[slice, slice]:
    """Rows and columns that lie at least in part in a square around the unit's position."""
    return contrast.window(panel.origin, width)


def over_mean(panel: Panel, width: float) -> np.ndarray:
    """Counts over their local mean, in a square around the unit's position; NaN where none."""
    return contrast.over_mean(panel.counts, panel.strides, panel.origin, width)


def _block(
    page: Page, top: float, panels: Sequence[Panel], texts: Texts, shared: _Shared, bars: bool
) -> None:
    """A row of panels: titles, maps, middles, figures; the colour bars at the end of the first."""
    side, (titles, words) = shared.side, texts
    above = top + 0.03 + len(titles[0]) * line(TEXT + 1)
    rows = [above, above + side + 0.2][: 2 if shared.zoom else 1]
    for i, (panel, lines) in enumerate(zip(panels, words, strict=True)):
        x = LEFT + i * (side + GAP)
        page.lines(x, top, titles[i], TEXT + 1, weight="bold")
        for y, draw in zip(rows, (_draw_map, _draw_middle), strict=False):
            axes = page.axes(x, y, side, side)
            draw(axes, panel, shared)
            axes.tick_params(labelleft=i == 0)
            if i == 0:
                axes.set_ylabel("offset, px", fontsize=TEXT)
                axes.yaxis.set_label_coords(-0.31 / side, 0.5)
        axes.set_xlabel("offset, px", fontsize=TEXT, labelpad=1)
        page.lines(x, rows[-1] + side + 0.31, lines, TEXT)
    for y, row in zip(rows, (1, 2) if bars else (), strict=False):
        _bar(page.axes(LEFT + len(panels) * (side + GAP) - 0.03, y, 0.07, side), row, shared)


def _bar(axes: Axes, row: int, shared: _Shared) -> None:
    """The colour bar of a row."""
    c = 100 * shared.contrast
    norm, colours, label = shared.norm, MAPS, "paths / most paths"
    ticks = {0: "0", 0.1: "0.1", 0.25: "0.25", 0.5: "0.5", 1: "1"}
    if row == 2:
        norm, colours, label = Normalize(-c, c), GREYS, "paths above local mean, %"
        most = f"{c:.0f}" if c >= 10 else f"{c:.2g}"
        ticks = {-c: f"−{most}", 0: "0", c: f"+{most}"}
    bar = axes.figure.colorbar(ScalarMappable(norm, colours), cax=axes)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    axes.set_ylabel(label, fontsize=TEXT)
    axes.yaxis.set_label_coords(6.1, 0.5)


def _show(axes: Axes, panel: Panel, values: np.ndarray, width: float, **style: Any) -> None:
    """An image in px from the unit's position, y downwards, in a square window around it."""
    (y, x), (rows, columns) = panel.origin, _window(panel, width)
    left, top = columns.start - 0.5 - x, rows.start - 0.5 - y
    extent = (left, left + values.shape[1], top + values.shape[0], top)
    axes.imshow(values, extent=extent, aspect="auto", **style)
    axes.set(xlim=(-width / 2, width / 2), ylim=(width / 2, -width / 2), facecolor=EMPTY)
    end = 0.44 * width  # a label farther out would meet the next panel's
    wanted = MaxNLocator(4, steps=[1, 2, 5, 10], integer=True).tick_values(-end, end)
    ticks = [tick for tick in wanted if abs(tick) <= end]
    axes.set(xticks=ticks, yticks=ticks)


def _draw_map(axes: Axes, panel: Panel, shared: _Shared) -> None:
    # where pixels and dots do not fit, picking the nearest pixel would show a grid of its own
    how = "nearest" if shared.crisp else "antialiased"
    counts = panel.counts[_window(panel, shared.width)]
    _show(axes, panel, counts, shared.width, cmap=MAPS, norm=shared.norm, interpolation=how)
    if shared.zoom:
        box = (-shared.zoom / 2, -shared.zoom / 2), shared.zoom, shared.zoom
        axes.add_patch(Rectangle(*box, fill=False, edgecolor="white", linewidth=0.6))
    printed = not shared.zoom and shared.width <= CELLS and _print_counts(axes, panel, shared)
    _mark(axes, panel, arrow=not shared.zoom, small=printed)


def _draw_middle(axes: Axes, panel: Panel, shared: _Shared) -> None:
    width = shared.zoom or shared.width
    greys: Style = {"cmap": GREYS, "vmin": 1 - shared.contrast, "vmax": 1 + shared.contrast}
    _show(axes, panel, over_mean(panel, width), width, interpolation="nearest", **greys)
    _mark(axes, panel, arrow=True)


def _mark(axes: Axes, panel: Panel, arrow: bool, small: bool = False) -> None:
    """The unit's position and the centroid; an arrow from one to the other where they are apart."""
    dy, dx = panel.offset
    if arrow and math.hypot(dy, dx) > 0.12 * abs(np.diff(axes.get_xlim())[0]):
        style: Style = {"arrowstyle": "-|>", "color": CENTROID["color"], "linewidth": 1.1}
        style |= {"path_effects": MARK["path_effects"], "mutation_scale": 6}
        axes.annotate("", (dx, dy), (0, 0), arrowprops=style | {"shrinkA": 3, "shrinkB": 3})
    finer = FINE if small else {}
    axes.plot([dx], [dy], label="centroid", **CENTROID | finer)
    axes.plot([0], [0], label="place", **UNIT | finer)


def _print_counts(axes: Axes, panel: Panel, shared: _Shared) -> bool:
    """Whole counts in their cells, where they can be read there; whether they could."""
    counts = np.ldexp(panel.path_map.counts.astype(float), panel.path_map.exponent)
    cell = shared.side / shared.width
    size = min(TEXT, 0.62 * 72 * cell)
    if (counts % 1).any() or text_width(f"{counts.max():.0f}", size) > cell:
        return False
    for y, x in np.argwhere(counts):  # the darkest colour says 0
        at = x - panel.origin[1], y - panel.origin[0]
        bright = shared.norm(counts[y, x] / counts.max()) > 0.6
        style: Style = {"color": "black" if bright else "white", "fontsize": size, "clip_on": True}
        axes.text(*at, f"{counts[y, x]:.0f}", ha="center", va="center_baseline", **style)
    return True


def _texts(panels: Sequence[Panel], side: float) -> Texts:
    titles = _level([wrap(panel.title, BOLD * side, TEXT + 1) for panel in panels])
    words = _level([wrap(words_of(panel.metrics), side, TEXT) for panel in panels])
    for panel, lines in zip(panels, words, strict=True):
        if panel.own:
            lines += wrap(f"{panel.own_at}: {words_of(panel.own[1], brief=True)}", side, TEXT)
    return titles, _level(words)


def _level(texts: list[list[str]]) -> list[list[str]]:
    """Texts with empty lines added, so that all have as many."""
    most = max(map(len, texts))
    return [[*lines, *[""] * (most - len(lines))] for lines in texts]


def _note(shared: _Shared) -> str:
    """How to read the figure: it must stand on its own in a paper."""
    root = "square root of " if isinstance(shared.norm, PowerNorm) else ""
    out = f"Maps: {root}the number of paths from each source pixel to one unit, 1 where most."
    if shared.zoom:
        out += " Below: their middle, paths over the mean within S × S px (S: effective stride)."
    return out + (
        " Offsets: source pixels from the unit's position in a grid centred on the source. Shift:"
        " centroid minus that position. Gridding: coefficient of variation of the counts' sums over"
        " the pixel phases of a period, the largest of all periods; 0 is even."
    )


def _handles(panels: Sequence[Panel], shared: _Shared) -> list[Any]:
    """What the legend explains: what some panel shows."""
    place = Line2D([], [], label="unit's position", **UNIT)
    centroid = Line2D([], [], label="centroid of the map", **CENTROID)
    part = Rectangle((0, 0), 1, 1, fill=False, linewidth=0.6, label="part shown below")
    outside = Rectangle((0, 0), 1, 1, facecolor=EMPTY, label="outside the source")
    return [
        *[place, centroid, part][: 3 if shared.zoom else 2],
        *([outside] if any(_leaves(panel, shared.width) for panel in panels) else []),
    ]


def _leaves(panel: Panel, width: float) -> bool:
    """Whether a square around the unit's position shows what lies outside of the source."""
    ends = zip(panel.origin, panel.counts.shape, strict=True)
    return any(width / 2 > min(at + 0.5, n - 0.5 - at) + 0.005 * width for at, n in ends)
