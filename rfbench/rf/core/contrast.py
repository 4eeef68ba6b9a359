"""A map's grid, made visible: path counts over their local mean, and what scale shows it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SHARE = 1e-3  # of a map's largest value; pixels below this are cropped, as in figures
EVEN = 1e-3  # up to this CV a map does not grid: it is to look even


def window(origin: Sequence[float], width: float) -> tuple[slice, slice]:
    """Rows and columns that lie at least in part in a square around a position (y, x)."""
    low = [max(0, math.floor(at - width / 2 + 0.5)) for at in origin]
    high = [max(0, math.ceil(at + width / 2 + 0.5)) for at in origin]
    return slice(low[0], high[0]), slice(low[1], high[1])


def over_mean(
    counts: np.ndarray, strides: Sequence[float], origin: Sequence[float], width: float
) -> np.ndarray:
    """Counts, the largest 1, over their local mean in a square around `origin`; NaN where none.

    The mean is over a box of one effective stride, which evens the grid out. A box also flattens
    the map's own slopes, by more than a weak grid weighs: so what it left over is averaged again,
    twice, and added ("twicing", Tukey 1977).
    """
    boxes = [max(1, round(s)) for s in strides]
    inner, outer = window(origin, width), window(origin, width + 4 * max(boxes))
    rest = counts = counts[outer]
    for _ in range(3):
        rest = rest - _box(_box(rest, boxes[0], 0), boxes[1], 1)
    mean = counts - rest
    ratio = np.divide(counts, mean, np.full_like(counts, np.nan), where=mean > SHARE / 10)
    y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return ratio[y, x]


def _box(array: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Centred mean over `size` positions: an even number takes half of one at either end.

    Beyond its ends the array goes on mirrored. scipy.ndimage has the same, and is slow to import.
    """
    weights = np.ones(size + 1 - size % 2)
    weights[[0, -1]] = 1 - 0.5 * (size % 2 == 0)
    ends = [(size // 2, size // 2) if i == axis else (0, 0) for i in range(array.ndim)]
    extended = np.pad(array, ends, "symmetric")
    return sliding_window_view(extended, len(weights), axis) @ (weights / size)


def contrast(figures: Sequence[Mapping[str, Any]]) -> float:
    """The scale that shows the grids of maps with these figures, all of them: 2 CV of the worst.

    1 - contrast is to be black, 1 + contrast white.
    """
    # of a map that the border cuts, only the CV at the shortest period means something
    grids = [list((f["gridding_by_period"] or {}).values()) or [0.0] for f in figures]
    cv = max(g[0 if f["cut"] else -1] for g, f in zip(grids, figures, strict=True))
    # a scale fit to the data would blow up the steps that an even pooling leaves on a slope
    return min(1.0, 2 * cv) if cv > EVEN else 0.1


def offset(figures: Mapping[str, Any]) -> tuple[float, ...]:
    """Of a map's centroid, by its figures: from the unit's position, or the middle of its field."""
    known = figures.get("unit_shift", figures["shift"])
    if known is not None and None not in known:
        return tuple(known)
    both = zip(figures["centroid"], figures["center"], strict=True)
    own = [centroid - middle for centroid, middle in both]
    each = zip(known or [None] * len(own), own, strict=True)
    return tuple(o if s is None else s for s, o in each)
