"""What figures of tiles share: crops over an image or a section, and differences without a halo."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from rfbench.plotting.page import SMALL, Page, text_width
from rfbench.plotting.palette import BLACK, BLUE, SKY, VERMILION

TILES = 24  # along an axis, that are drawn
Box = tuple[float, float, float, float]  # left, right, bottom, top
Plane = tuple[int, int]  # the axes that run down and to the right


def keys() -> list[Patch]:
    """Of the legend."""
    tile = Patch(color=BLUE, label="tile: taken from the crop")
    return [tile, Patch(color=SKY, label="its crop")]


def draw_scheme(axes: Axes, record: dict[str, Any], plane: Plane = (0, 1)) -> None:
    """The grid of tiles, and one crop in its middle with what is taken from it.

    Of many tiles those around the crop are drawn.
    """
    every = next(c["used"] for c in record["crops"] if c["crop"] == record["crop"])
    spans = []
    for k, draw in zip(plane, (axes.axhline, axes.axvline), strict=True):
        side, crop, used = record["shown"]["size"][k], record["crop"][k], every[k]
        lost = record["lost"][k][0] * record["stride"][k]
        start, count = used * ((side - crop) // 2 // used), -(-(side - crop) // used)
        first, last = 0, side
        if count > TILES:
            around = TILES // 2 * used
            first, last = max(0, start - around), min(side, start + crop + around)
        for at in (lost + i * used for i in range(1, count + 1)):
            if first < at < last:
                draw(at, color=BLACK, linewidth=0.3, alpha=0.6)
        spans.append((first, last, start, crop, start + lost, used))
    (top, bottom, y, h, own_y, own_h), (left, right, x, w, own_x, own_w) = spans
    axes.add_patch(Rectangle((x, y), w, h, color=SKY, alpha=0.6, lw=0))
    axes.add_patch(Rectangle((own_x, own_y), own_w, own_h, color=BLUE, lw=0))
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="auto")


def logarithm(axes: Axes, apart: np.ndarray, extent: Box) -> AxesImage:
    """Differences by unit, by their powers of ten."""
    return axes.imshow(
        np.log10(np.maximum(apart, 1e-16)), cmap="viridis", vmin=-16, vmax=0, aspect="auto",
        extent=extent, interpolation="nearest",
    )  # fmt: skip


def draw_edges(axes: Axes, record: dict[str, Any], plane: Plane = (0, 1)) -> None:
    """Where crops side by side meet."""
    size, crop = record["shown"]["size_without_halo"], record["crop"]
    for k, draw in zip(plane, (axes.axhline, axes.axvline), strict=True):
        for at in range(crop[k], size[k], crop[k]):
            draw(at, color=VERMILION, linewidth=0.6)


def bar(sheet: Page, axes: Axes, drawn: AxesImage) -> None:
    """The scale of differences, beside their panel."""
    box = axes.get_position()
    beside = sheet.figure.add_axes(
        (box.x1 + 0.08 / sheet.width, box.y0, 0.07 / sheet.width, box.height)
    )
    made = sheet.figure.colorbar(drawn, cax=beside)
    made.ax.tick_params(labelsize=SMALL, length=2, width=0.5)
    whole = "log10 of the difference / largest value"
    fits = text_width(whole, SMALL) <= 1.1 * box.height * sheet.height
    made.set_label(whole if fits else "log10 difference", fontsize=SMALL)
