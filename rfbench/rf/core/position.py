"""Where a map of path counts is: its centroid against the grids in which its unit stands."""

from collections.abc import Callable

import numpy as np

from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.path_map import PathMap
from rfbench.spatial_graph.size import Size

Pair = tuple[float | None, ...]  # of every axis, (y, x) of an image; None: it has no stride
Nominal = Callable[[np.ndarray, int, float, int], np.ndarray]


def shift(counts: PathMap, geometry: Geometry) -> Pair:
    """Centroid minus the unit's position in a grid centred on the source, (y, x) in source pixels.

    That position is (u - (n - 1) / 2) S + (H - 1) / 2; 0 for a network without the paper's fault.
    Where units take turns, S is their mean distance, and the shift that of one period on the mean.
    None along an axis without a stride. Raises NotUniform where no axis has one.
    """
    return _means(_offsets(counts, geometry, _centred))


def shift_range(counts: PathMap, geometry: Geometry) -> list[Pair] | None:
    """The least and the largest shift of units that take turns, along (y, x); None without."""
    return _range(counts, _offsets(counts, geometry, _centred))


def unit_shift(counts: PathMap, geometry: Geometry) -> Pair:
    """The shift of the map's own unit."""
    geometry.check_some()
    return _means(_against(counts.unit, _of_one(counts), counts, geometry, _centred))


def registration(counts: PathMap, geometry: Geometry) -> Pair | None:
    """Centroid minus (u + 0.5) S - 0.5, where a detector's half-pixel grid puts the unit.

    Where units take turns, on the mean; None if these do not cover the source's area.
    """
    if not _registers(counts, geometry):
        return None
    return _means(_offsets(counts, geometry, _half_pixel))


def registration_range(counts: PathMap, geometry: Geometry) -> list[Pair] | None:
    """The least and the largest registration of units that take turns, along (y, x)."""
    if not _registers(counts, geometry):
        return None
    return _range(counts, _offsets(counts, geometry, _half_pixel))


def _registers(counts: PathMap, geometry: Geometry) -> bool:
    geometry.check_some()
    sides = zip(geometry.grid, counts.units, geometry.source, strict=True)
    return max(geometry.phases) == 1 or all(s is None or s * n == side for s, n, side in sides)


def _centred(u: np.ndarray, n: int, s: float, h: int) -> np.ndarray:
    return (u - (n - 1) / 2) * s + (h - 1) / 2


def _half_pixel(u: np.ndarray, n: int, s: float, h: int) -> np.ndarray:
    return (u + 0.5) * s - 0.5


def _offsets(counts: PathMap, geometry: Geometry, nominal: Nominal) -> list[np.ndarray | None]:
    """Centroids minus nominal positions along y and x, of the units (p_y, p_x) of a period."""
    geometry.check_some()
    if counts.period is None:
        return _against(counts.unit, _of_one(counts), counts, geometry, nominal)
    return _against(counts.period.first, counts.period.centroids, counts, geometry, nominal)


def _of_one(counts: PathMap) -> np.ndarray:
    axes = len(counts.unit)
    return np.reshape(counts.centroid, (axes, *[1] * axes))


def _against(
    first: Size, middles: np.ndarray, counts: PathMap, geometry: Geometry, nominal: Nominal
) -> list[np.ndarray | None]:
    """Centroids (axes, p_y, p_x) of the units from `first` on, minus their nominal positions."""
    out: list[np.ndarray | None] = []
    for a, stride in enumerate(geometry.grid):
        units = first[a] + np.indices(middles.shape[1:])[a]
        if stride is None:
            out.append(None)
            continue
        place = nominal(units, counts.units[a], float(stride), geometry.source[a])
        out.append(middles[a] - place)
    return out


def _means(offsets: list[np.ndarray | None]) -> Pair:
    return tuple(None if a is None else float(a.mean()) for a in offsets)


def _range(counts: PathMap, offsets: list[np.ndarray | None]) -> list[Pair] | None:
    """(least, largest) along every axis."""
    if counts.period is None:
        return None
    return [(None, None) if a is None else (float(a.min()), float(a.max())) for a in offsets]
