"""Effective fields below path counts, one column a network or variant. Lengths are inches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Rectangle

from rfbench.errors import UsageError
from rfbench.rf.draw.maps import CENTROID, EMPTY, MAPS, PLACE
from rfbench.rf.draw.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.rf.gradients import Gradients
from rfbench.rf.paths import PathMap

SIDE, LEFT, GAP = 1.6, 0.5, 0.12
SQUARE, OVAL = "#56B4E9", "#009E73"


@dataclass(frozen=True)
class Panel:
    """A column: path counts (None where there are none) and field, both with a maximum of 1."""

    title: str
    counts: np.ndarray | None
    field: np.ndarray
    metrics: dict[str, Any]


def panel(title: str, found: Gradients, counts: PathMap | None, metrics: dict[str, Any]) -> Panel:
    """A column of the figure."""
    paths = None if counts is None else counts.counts.astype(float)
    paths = None if paths is None else paths / paths.max()
    return Panel(title, paths, found.magnitude / found.magnitude.max(), metrics)


def figure(panels: Sequence[Panel], title: str, caption: str) -> Figure:
    """Path counts above, effective fields below, figures underneath; up to four columns a block."""
    if not panels:
        raise UsageError("a figure of effective fields needs at least one panel")
    columns = min(4, len(panels))
    width = max(3.4, LEFT + columns * (SIDE + GAP) + 0.08)
    head, foot = wrap(title, 0.9 * (width - 0.16), LARGE), wrap(caption, width - 0.16, SMALL)
    paths = any(p.counts is not None for p in panels)
    words = [_words(p.metrics) for p in panels]
    rows = max(len(lines) for lines in words)
    block = 0.16 + (2 if paths else 1) * (SIDE + 0.08) + 0.12 + rows * line(TEXT) + 0.1
    blocks = -(-len(panels) // columns)
    top = 0.1 + len(head) * line(LARGE)
    keys = _handles()
    down = 1 if columns > 2 else 2
    below = top + blocks * block + 0.08 + down * 0.15
    page = Page(width, below + len(foot) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    for i, found in enumerate(panels):
        x, y = LEFT + (i % columns) * (SIDE + GAP), top + (i // columns) * block
        _column(page, x, y, found, paths, words[i], first=i % columns == 0)
    page.legend(keys, below - 0.04 - down * 0.15, len(keys) // down)
    page.lines(0.08, below, foot, SMALL)
    return page.figure


def _column(
    page: Page, x: float, y: float, found: Panel, paths: bool, words: list[str], first: bool
) -> None:
    page.lines(x, y, [found.title.replace("\n", " ")], TEXT + 0.5, weight="bold")
    y += 0.16
    if paths:
        axes = page.axes(x, y, SIDE, SIDE)
        if found.counts is None:
            axes.set_facecolor(EMPTY)
            axes.text(0.5, 0.5, "no path counts", ha="center", transform=axes.transAxes, size=TEXT)
            axes.set_xticks([], [])
            axes.set_yticks([], [])
        else:
            _draw(axes, found.counts, found.metrics)
            axes.tick_params(labelbottom=False)
        _label(axes, "path counts" if first else "")
        y += SIDE + 0.08
    axes = page.axes(x, y, SIDE, SIDE)
    _draw(axes, found.field, found.metrics)
    _outlines(axes, found.metrics)
    _label(axes, "effective field" if first else "")
    page.lines(x, y + SIDE + 0.2, words, TEXT)


def _label(axes: Axes, text: str) -> None:
    """The row's name at its first column; the others share its ticks."""
    axes.set_ylabel(text, fontsize=TEXT)
    axes.tick_params(labelleft=bool(text))


def _draw(axes: Axes, values: np.ndarray, metrics: dict[str, Any]) -> None:
    """A map with the unit's place."""
    shown = np.ma.masked_equal(values, 0)
    axes.set_facecolor(EMPTY)
    axes.imshow(shown, cmap=MAPS, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    (cy, cx), (dy, dx) = metrics["centroid"], metrics["shift"]
    axes.plot([cx - dx], [cy - dy], **PLACE)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    axes.set_autoscale_on(False)
    axes.locator_params(nbins=4)


def _outlines(axes: Axes, metrics: dict[str, Any]) -> None:
    """Centre of mass, Luo's size as a square around it, two sigma of the Gaussian."""
    y, x = metrics["centroid"]
    axes.plot([x], [y], **CENTROID)
    size, bell = metrics["size"], metrics["gaussian"]
    corner = (x - size / 2, y - size / 2)
    axes.add_patch(Rectangle(corner, size, size, fill=False, color=SQUARE, linewidth=0.8))
    if bell:
        (gy, gx), (sy, sx) = bell["center"], bell["sigma"]
        oval = Ellipse((gx, gy), 4 * sx, 4 * sy, fill=False, color=OVAL, linewidth=0.9)
        axes.add_patch(oval)


def _words(metrics: dict[str, Any]) -> list[str]:
    """The figures below a column."""
    dy, dx = metrics["shift"]
    lines = [f"size {metrics['size']:.1f} px"]
    if metrics["ratio"] is not None:
        y, x = metrics["theoretical"]
        whole = f"{y}" if y == x else f"{y}x{x}"
        lines[0] += f", {metrics['ratio']:.0%} of r = {whole}"
    lines.append(f"shift (y, x) {dy:+.1f}, {dx:+.1f} px".replace("-", "\u2212"))
    if bell := metrics["gaussian"]:
        sy, sx = bell["sigma"]
        lines.append(f"sigma {sy:.1f}, {sx:.1f} px, R\u00b2 {bell['r2']:.2f}")
    parts = [f"{name} in {area['share']:.1%}" for name, area in metrics["areas"].items()]
    return [*lines, *wrap(", ".join(parts), SIDE, TEXT)]


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], label="place of the unit", **PLACE),
        Line2D([], [], label="centre of mass", **CENTROID),
        Line2D([], [], color=SQUARE, linewidth=0.8, label="size (Luo et al.)"),
        Line2D([], [], color=OVAL, linewidth=0.9, label="Gaussian, 2 sigma"),
    ]
