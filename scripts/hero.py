"""The README's first figure: where ResNet-50's central unit looks, as it is and changed.

    python scripts/hero.py docs/figures/hero.png

Drawn for a page 700 px wide; `rfbench visualize-rf` draws the figure of the same maps for a paper.
"""

from pathlib import Path

import click
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from rfbench import rf
from rfbench.files import aside
from rfbench.plotting import palette
from rfbench.plotting.page import Page

COLUMNS = {  # variant: what it is
    "baseline": "as it is",
    "1x1+3x3": "the paper's change",
    "1x1+3x3+7x7+maxpool": "the stem too",
}
AROUND, NEAR = 140, 20  # px to each side of the unit's place; STRIP: above and below it
STRIP = NEAR // 4
DPI = 140  # enough for 700 px on a fine screen
# in; with these a pixel of the input is a whole number of dots, or the figure would show a grid of
# its own: a page is laid out in whole dots of 1/200, of which ten are seven of these
SIDE, GAP, TOP, FOOT = 2.0, 0.1, 0.55, 0.3
LOW = SIDE * STRIP / NEAR  # the strip's height
SEEN = {"path_effects": [withStroke(linewidth=4, foreground="black")], "markeredgewidth": 2}
WIDTH = len(COLUMNS) * (SIDE + GAP) + GAP


@click.command()
@click.argument("output", type=Path)
def main(output: Path) -> None:
    """Draw the figure into the PNG file OUTPUT."""
    foot = TOP + SIDE + GAP + LOW + GAP
    page = Page(WIDTH, foot + FOOT)
    for number, (variant, what) in enumerate(COLUMNS.items()):
        counts, figures = rf.path_counts(rf.record("resnet50", size=608, variant=variant))
        x = GAP + number * (SIDE + GAP)
        shift, gridding = figures["shift"], figures["gridding"]
        page.lines(x, 0.08, [what], 11, fontweight="bold")
        told = f"shift {round(shift[0], 1) or 0:g} px, gridding {gridding:.2f}".replace("-", "−")
        page.lines(x, 0.3, [told], 9.5)
        centre = (np.array(counts.shape) - 1) / 2
        wide = page.axes(x, TOP, SIDE, SIDE)
        draw(wide, np.sqrt(counts / counts.max()), centre, (AROUND, AROUND), cmap=palette.MAPS)
        wide.plot(*shift[::-1], **palette.CENTROID | {"markersize": 10} | SEEN)
        wide.plot(0, 0, **palette.UNIT | {"markersize": 8} | SEEN)
        strip = page.axes(x, TOP + SIDE + GAP, SIDE, LOW)
        draw(strip, counts, centre, (STRIP, NEAR), cmap=palette.GREYS)
    words = (
        "+ where the unit stands    ◯ where its field is centred    "
        f"above: {2 * AROUND} px wide, below: {2 * NEAR} px"
    )
    page.lines(GAP, foot + 0.02, [words], 9)
    with aside(output) as temporary:
        page.figure.savefig(temporary, format="png", dpi=DPI)


def draw(
    axes: Axes, values: np.ndarray, centre: np.ndarray, around: tuple[int, int], cmap: str
) -> None:
    """The part of a map within `around` (y, x) px of the unit's place, without ticks."""
    bottom, right = (n - c - 0.5 for n, c in zip(values.shape, centre, strict=True))
    extent = (-centre[1] - 0.5, right, bottom, -centre[0] - 0.5)
    axes.imshow(values, cmap=cmap, extent=extent, interpolation="nearest")
    down, across = around
    axes.set(xlim=(-across, across), ylim=(down, -down), xticks=[], yticks=[])


if __name__ == "__main__":
    main()
