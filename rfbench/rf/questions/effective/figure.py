"""Effective fields below path counts, one column a network or variant. Lengths are inches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Rectangle

from rfbench.errors import UsageError
from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, key_columns, line, wrap
from rfbench.plotting.palette import CENTROID, EMPTY, GREEN, MAPS, SHARE, SKY, UNIT
from rfbench.rf.questions.effective import other_axes
from rfbench.rf.questions.effective.panel import Panel, words

LEFT, GAP = 0.62, 0.12
BAR, RIGHT = 0.08, 0.5  # of the colour bar: width, and room for it with its words
SIDES = {1: 2.4, 2: 1.8}  # of a panel, by columns; of more columns 1.6
SQUARE, OVAL = SKY, GREEN
BRIGHTNESS = PowerNorm(0.5, 0, 1)  # the square root shows a field's skirts


def of_axes(panels: Sequence[Panel], title: str, caption: str) -> Figure:
    """The figure for the number of axes that the fields have."""
    axes = {panel.field.ndim for panel in panels}
    if len(axes) > 1:
        raise UsageError("networks of sequences, images and volumes need a figure each")
    draw = {1: other_axes.lines, 3: other_axes.sections}.get(next(iter(axes), 2), figure)
    return draw(panels, title, caption)


def figure(panels: Sequence[Panel], title: str, caption: str) -> Figure:
    """Path counts above, effective fields below, figures underneath; up to four columns a block.

    Of a single column on a wide screen, both side by side.
    """
    if not panels:
        raise UsageError("a figure of effective fields needs at least one panel")
    paths = any(p.counts is not None for p in panels)
    flat = paths and len(panels) == 1 and look.current().enlarged > 1
    columns = 2 if flat else look.columns(len(panels), LEFT + RIGHT, GAP)
    beside = LEFT + columns * GAP + RIGHT
    side = look.side(SIDES.get(columns, 1.6), beside, columns)
    window = _window(panels)
    wide, tall = (side * length / max(window.lengths) for length in window.lengths)
    width = beside + columns * side
    head, foot = wrap(title, 0.9 * (width - 0.16), LARGE), wrap(caption, width - 0.16, SMALL)
    texts = [words(p.metrics, side) for p in panels]
    rows = max(len(lines) for lines in texts)
    maps = 2 if paths and not flat else 1
    block = 0.16 + maps * (tall + 0.08) + 0.24 + rows * line(TEXT) + 0.1
    blocks = -(-len(panels) // columns)
    top = 0.1 + len(head) * line(LARGE)
    keys = _handles(panels, window)
    across = key_columns([str(key.get_label()) for key in keys], width)
    down = -(-len(keys) // across)
    below = top + blocks * block + 0.08 + down * 0.15
    page = Page(width, below + len(foot) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    for i, panel in enumerate(panels):
        x, y = LEFT + (i % columns) * (side + GAP), top + (i // columns) * block
        step = (side + GAP, 0.0) if flat else (0.0, tall + 0.08)
        cell = _Cell(x, y, wide, tall, i % columns == 0, step)
        _column(page, cell, window, panel, paths, texts[i])
    _bar(page, LEFT + columns * (side + GAP), top + 0.16, tall)
    page.legend(keys, below - 0.04 - down * 0.15, across)
    page.lines(0.08, below, foot, SMALL)
    return page.figure


@dataclass(frozen=True)
class _Cell:
    """Where a column stands, and the size of its maps.

    first: whether of its block. step: (x, y) from its path counts to its effective field.
    """

    x: float
    y: float
    width: float
    height: float
    first: bool
    step: tuple[float, float]


@dataclass(frozen=True)
class _Window:
    """What all panels show, in px from the unit's position."""

    top: float
    bottom: float
    left: float
    right: float

    @property
    def lengths(self) -> tuple[float, float]:
        """(width, height)."""
        return self.right - self.left, self.bottom - self.top


def _window(panels: Sequence[Panel]) -> _Window:
    """The part that holds every field, and every theoretical one, with a margin."""
    y, x = ([_ends(panel, axis) for panel in panels] for axis in (0, 1))
    rows, columns = ((min(e[0] for e in ends), max(e[1] for e in ends)) for ends in (y, x))
    return _Window(*rows, *columns)


def _ends(panel: Panel, axis: int) -> tuple[float, float]:
    """Where a panel's field begins and ends along an axis, within the input."""
    seen = panel.field > SHARE
    if panel.counts is not None:
        seen |= panel.counts > 0  # all that paths reach
    hits = np.flatnonzero(seen.any(1 - axis))
    margin = max(1.0, 0.05 * (hits[-1] - hits[0]))
    low, high = max(hits[0] - margin, 0) - 0.5, min(hits[-1] + margin, seen.shape[axis] - 1) + 0.5
    origin = panel.origin[axis]
    return min(low - origin, -0.5), max(high - origin, 0.5)  # the unit may lie outside


def _column(
    page: Page, cell: _Cell, window: _Window, panel: Panel, paths: bool, text: list[str]
) -> None:
    x, y, wide, tall = cell.x, cell.y, cell.width, cell.height
    across, down = cell.step
    page.lines(x, y, [panel.title.replace("\n", " ")], TEXT + 0.5, weight="bold")
    if paths and across:
        page.lines(x + across, y, ["effective field"], TEXT + 0.5, weight="bold")
    y += 0.16
    if paths:
        axes = page.axes(x, y, wide, tall)
        if panel.counts is None:
            axes.set_facecolor(EMPTY)
            axes.text(0.5, 0.5, "no path counts", ha="center", transform=axes.transAxes, size=TEXT)
            axes.set_xticks([], [])
            axes.set_yticks([], [])
        else:
            _draw(axes, panel, panel.counts, window)
            axes.tick_params(labelbottom=bool(across))
        _label(axes, "path counts" if cell.first else "")
        if across:
            axes.set_xlabel("offset, px", fontsize=TEXT, labelpad=1)
        x, y = x + across, y + down
    axes = page.axes(x, y, wide, tall)
    _draw(axes, panel, panel.field, window)
    _outlines(axes, panel)
    _label(axes, "effective field" if cell.first and not (paths and across) else "")
    axes.set_xlabel("offset, px", fontsize=TEXT, labelpad=1)
    page.lines(x, y + tall + 0.32, text, TEXT)


def _bar(page: Page, x: float, y: float, height: float) -> None:
    """The colour bar of all panels."""
    axes = page.axes(x, y, BAR, height)
    bar = page.figure.colorbar(ScalarMappable(BRIGHTNESS, MAPS), cax=axes)
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "0.01", "0.1", "0.25", "0.5", "1"])
    bar.set_label("share of the largest value", size=TEXT, labelpad=2)
    bar.outline.set_linewidth(0.5)
    axes.tick_params(labelsize=SMALL, length=2, width=0.5, pad=1.5)


def _label(axes: Axes, text: str) -> None:
    """The row's name at its first column; the others share its ticks."""
    axes.set_ylabel(text and f"{text}\noffset, px", fontsize=TEXT, labelpad=1)
    axes.tick_params(labelleft=bool(text))


def _draw(axes: Axes, panel: Panel, values: np.ndarray, window: _Window) -> None:
    """The window of a map, with the unit's position at 0, 0."""
    axes.set_facecolor(EMPTY)
    (y, x), (h, w) = panel.origin, values.shape
    extent = (-0.5 - x, w - 0.5 - x, h - 0.5 - y, -0.5 - y)
    # picking the nearest pixel for each dot would show a grid of its own
    style: dict[str, Any] = {"norm": BRIGHTNESS, "interpolation": "antialiased"}
    axes.imshow(values, cmap=MAPS, extent=extent, aspect="auto", **style)
    axes.plot([0], [0], **UNIT)
    axes.set(xlim=(window.left, window.right), ylim=(window.bottom, window.top))
    axes.set_autoscale_on(False)
    axes.locator_params(nbins=4, integer=True)


def _outlines(axes: Axes, panel: Panel) -> None:
    """Centroid, Luo's size as a square around it, two sigma of the Gaussian."""
    y, x = panel.metrics["shift"]
    axes.plot([x], [y], **CENTROID)
    size, bell = panel.metrics["size"], panel.metrics["gaussian"]
    corner = (x - size / 2, y - size / 2)
    axes.add_patch(Rectangle(corner, size, size, fill=False, color=SQUARE, linewidth=0.8))
    if bell:
        (gy, gx), (sy, sx) = bell["center"], bell["sigma"]
        at = gx - panel.origin[1], gy - panel.origin[0]
        axes.add_patch(Ellipse(at, 4 * sx, 4 * sy, fill=False, color=OVAL, linewidth=0.9))


def _handles(panels: Sequence[Panel], window: _Window) -> list[Line2D | Rectangle]:
    """What the legend explains: what some panel shows."""
    bell = Line2D([], [], color=OVAL, linewidth=0.9, label="Gaussian, 2 sigma")
    outside = Rectangle((0, 0), 1, 1, facecolor=EMPTY, label="outside the image")
    return [
        Line2D([], [], label="unit's position", **UNIT),
        Line2D([], [], label="centroid", **CENTROID),
        Line2D([], [], color=SQUARE, linewidth=0.8, label="size (Luo et al.)"),
        *([bell] if any(panel.metrics["gaussian"] for panel in panels) else []),
        *([outside] if any(_leaves(panel, window) for panel in panels) else []),
    ]


def _leaves(panel: Panel, window: _Window) -> bool:
    """Whether the window shows what lies outside of a panel's image."""
    (y, x), (h, w) = panel.origin, panel.field.shape
    beyond = (-0.5 - y - window.top, window.bottom - (h - 0.5 - y))
    return max(*beyond, -0.5 - x - window.left, window.right - (w - 0.5 - x)) > 1e-6
