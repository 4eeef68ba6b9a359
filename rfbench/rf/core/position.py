"""Where a map of path counts is: its centre of mass against the grids in which its unit stands."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.path_counts import PathMap

Pair = tuple[float, ...]  # of every axis, (y, x) of an image; also (least, largest)
Nominal = Callable[[np.ndarray, int, float, int], np.ndarray]


def centroid(counts: PathMap) -> Pair:
    """Centre of mass (y, x) of the counts, in source pixels."""
    values = counts.counts.astype(float)
    axes = range(values.ndim)
    along = (values.sum(tuple(a for a in axes if a != k)) for k in axes)
    return tuple(float(v @ np.arange(len(v)) / v.sum()) for v in along)


def shift(counts: PathMap, geometry: Geometry) -> Pair:
    """Centroid minus the unit's position in a grid centred on the source, (y, x) in source pixels.

    That position is (u - (n - 1) / 2) S + (H - 1) / 2; 0 for a network without the paper's fault.
    Where units take turns, S is their mean distance, and the shift that of one period on the mean.
    """
    return tuple(float(a.mean()) for a in _offsets(counts, geometry, _centred))


def shift_range(counts: PathMap, geometry: Geometry) -> list[Pair] | None:
    """The least and the largest shift of units that take turns, along (y, x); None without."""
    return _range(counts, _offsets(counts, geometry, _centred))


def unit_shift(counts: PathMap, geometry: Geometry) -> Pair:
    """The shift of the map's own unit."""
    return shift(replace(counts, period=None), geometry)


def registration(counts: PathMap, geometry: Geometry) -> Pair | None:
    """Centroid minus (u + 0.5) S - 0.5, where a detector's half-pixel grid puts the unit.

    Where units take turns, on the mean; None if these do not cover the source's area.
    """
    if not _registers(counts, geometry):
        return None
    return tuple(float(a.mean()) for a in _offsets(counts, geometry, _half_pixel))


def registration_range(counts: PathMap, geometry: Geometry) -> list[Pair] | None:
    """The least and the largest registration of units that take turns, along (y, x)."""
    if not _registers(counts, geometry):
        return None
    return _range(counts, _offsets(counts, geometry, _half_pixel))


def _registers(counts: PathMap, geometry: Geometry) -> bool:
    sides = zip(geometry.fields, counts.units, geometry.source, strict=True)
    return max(geometry.phases) == 1 or all(f.stride * n == side for f, n, side in sides)


def _centred(u: np.ndarray, n: int, s: float, h: int) -> np.ndarray:
    return (u - (n - 1) / 2) * s + (h - 1) / 2


def _half_pixel(u: np.ndarray, n: int, s: float, h: int) -> np.ndarray:
    return (u + 0.5) * s - 0.5


def _offsets(counts: PathMap, geometry: Geometry, nominal: Nominal) -> list[np.ndarray]:
    """Centroids minus nominal positions along y and x, of the units (p_y, p_x) of a period."""
    axes = len(counts.unit)
    first, middles = counts.unit, np.reshape(centroid(counts), (axes, *[1] * axes))
    if counts.period is not None:
        first, middles = counts.period.first, counts.period.centroids
    out = []
    for a, field in enumerate(geometry.fields):
        units = first[a] + np.indices(middles.shape[1:])[a]
        place = nominal(units, counts.units[a], float(field.stride), geometry.source[a])
        out.append(middles[a] - place)
    return out


def _range(counts: PathMap, offsets: list[np.ndarray]) -> list[Pair] | None:
    return None if counts.period is None else [(float(a.min()), float(a.max())) for a in offsets]
