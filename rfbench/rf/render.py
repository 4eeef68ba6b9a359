"""Pictures of receptive fields for papers: maps side by side, and where the shift arises.

Matplotlib's objects only, never pyplot: no state is shared, and the same data give the same bytes.
Lengths are inches unless a name says otherwise; the text width of a two-column paper is 7.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import convolve1d

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.paths import PathMap

Scale = Literal["sqrt", "linear"]

DPI = 200  # of the PNG; panels are whole numbers of its dots, so that no pixel is wider than another
SIDES = {1: 2.1, 2: 2.1, 3: 1.8, 4: 1.4}  # of a panel, by columns; all have many divisors in dots
LEFT, RIGHT, GAP, EDGE = 0.42, 0.56, 0.1, 0.08
TEXT, SMALL = 6.5, 6.0  # points
SHARE = 1e-3  # of the largest count: what is less is not worth a place in the picture
CELLS = 20  # up to so many pixels a side, counts are printed in their cells
# Okabe & Ito's colours, told apart by all common kinds of colour blindness
BLACK, ORANGE, BLUE = "#000000", "#E69F00", "#56B4E9"
COLOURS = [BLACK, "#D55E00", "#0072B2", "#009E73", "#CC79A7", ORANGE, BLUE, "#999999"]
MARKS = ["o", "s", "^", "D", "v", "P", "X", "*"]
HALO = [withStroke(linewidth=2.2, foreground=BLACK)]


@dataclass(frozen=True)
class Panel:
    """One column of a figure: the map of one unit.

    found: on an input that cuts nothing off. metrics: `metrics.measure` of it. own: the same at the
    user's own input size, of which only the figures are shown, after the label `own_at` (by
    default the source's size, such as 'at 224 px').
    """

    title: str
    found: PathMap
    metrics: dict[str, Any]
    own: tuple[PathMap, dict[str, Any]] | None = None
    own_at: str = ""

    @property
    def place(self) -> tuple[float, float]:
        """(y, x) of the unit in a grid centred on the source: the origin of the panel's axes."""
        (cy, cx), (dy, dx) = self.metrics["centroid"], self.metrics["shift"]
        return cy - dy, cx - dx

    @property
    def counts(self) -> np.ndarray:
        """(H, W) counts as float64; the number of paths is this times 2^exponent."""
        return self.found.counts.astype(float)


@dataclass(frozen=True)
class _Sheet:
    """What all panels of a figure share. Half-widths are source pixels around a panel's origin."""

    side: float  # of a panel, inches
    half: float
    zoom: float | None  # None: no second row
    contrast: float  # of the second row: 1 - contrast is black, 1 + contrast white
    norm: Normalize


def maps_figure(
    panels: Sequence[Panel], title: str, caption: str, scale: Scale = "sqrt"
) -> Figure:
    """Path counts, four panels a row, and below each its middle over the local mean, in grey.

    caption: convention and engine, and whatever else the reader must know. Raises UsageError
    without panels.
    """
    if not panels:
        raise UsageError("a figure of maps needs at least one panel")
    sheet = _sheet(panels, scale)
    columns = min(4, len(panels))
    blocks = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    width = LEFT + columns * (sheet.side + GAP) - GAP + RIGHT
    foot = [*_wrap(_note(panels, sheet, scale), width - 0.2, SMALL)]
    foot += [line for part in caption.splitlines() for line in _wrap(part, width - 0.2, SMALL)]
    head = _wrap(title, width - 0.2, 9)
    words = [_words(block, sheet.side) for block in blocks]
    map_rows = 0.52 + sheet.side + (sheet.zoom is not None) * (sheet.side + 0.22)
    heights = [map_rows + _height(w[2]) for w in words]
    page = _Page(width, _height(head, 9) + sum(heights) + 0.5 + _height(foot, SMALL))
    y = 0.06 + page.lines(head, 0.1, 0.06, 9, weight="bold") + 0.04
    for k, (block, said, height) in enumerate(zip(blocks, words, heights, strict=True)):
        _block(page, block, said, y, sheet, bars=k == 0)
        y += height
    y += page.legend(_legend(sheet), y)
    page.lines(foot, 0.1, y, SMALL)
    return page.figure
