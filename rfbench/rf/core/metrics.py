"""Numbers for the shape of a receptive field: where it is and whether it grids.

To add one, write a function of a PathMap and the geometry and name it in `measure`; it then appears
in every record, caption and table.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.path_counts import PathMap, target_map
from rfbench.rf.core.theory import Disagreement, Field, theory
from rfbench.spatial_graph.graph import Size, SpatialGraph

Pair = tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """Where units of a target stand over a source: all that metrics need besides the counts.

    field: theoretical field of unit 0 along (y, x); None where windows are not uniform. periods:
    effective strides > 1 on the way, ascending, along (y, x). source: size of the source map.
    """

    field: tuple[Field | None, Field | None]
    periods: tuple[list[int], list[int]]
    source: Size
    disagreements: list[Disagreement]

    @property
    def uniform(self) -> tuple[Field, Field]:
        """The fields along (y, x). Raises RfbenchError where there is none."""
        y, x = self.field
        if y is None or x is None:
            raise RfbenchError(
                "this map has no effective stride: it is resized or not uniform. "
                "Choose an earlier layer with --to, or another --size."
            )
        return y, x


def geometry(graph: SpatialGraph, to: str | None, source: str | None) -> Geometry:
    """Theory for a layer, from the input or from another layer."""
    target = target_map(graph, to)
    origin = graph.layer(source) if source is not None else None
    fields = theory(graph, origin)
    behind = graph.ancestors(set(graph.share(target)))
    y, x = (f if isinstance(f, Field) else None for f in fields.of(graph, target))
    field = (y, x)
    periods: tuple[list[int], list[int]] = ([], [])
    for axis in (0, 1):
        last = field[axis]
        steps = {
            f.stride
            for i in behind
            if (both := fields.fields[i]) and isinstance(f := both[axis], Field)
        }
        if last is not None:
            periods[axis].extend(sorted(s for s in steps if 1 < s <= last.stride))
    size = graph.map_size(origin) if origin is not None else graph.size
    return Geometry(field, periods, size, fields.behind(graph, target))


def uncut_size(graph: SpatialGraph, place: Geometry, units: Size) -> Size:
    """An input size at which the central unit's field is whole, with room for an uneven one.

    It is larger than the graph's by multiples of the stride: what is left over at the border when
    windows do not fit (VALID padding: 299 pixels of Inception) stays as it is.
    """
    size = []
    for axis in (0, 1):
        field = place.uniform[axis]
        scale = graph.size[axis] / place.source[axis]
        spare = abs(field.center((units[axis] - 1) // 2) - (place.source[axis] - 1) / 2)
        need = (field.size + 2 * spare + 2 * field.stride) * scale
        step = round(field.stride * scale)
        size.append(graph.size[axis] + max(0, -(-(round(need) - graph.size[axis]) // step)) * step)
    return size[0], size[1]


def is_cut(place: Geometry, unit: tuple[int, int]) -> bool:
    """Whether the border of the source cuts the field of a unit."""
    return any(
        f.first + u * f.stride < 0 or f.last + u * f.stride > n - 1
        for f, u, n in zip(place.uniform, unit, place.source, strict=True)
    )


def centroid(found: PathMap) -> Pair:
    """Centre of mass (y, x) of the counts, in source pixels."""
    counts = found.counts.astype(float)
    rows, columns = counts.sum(1), counts.sum(0)
    return tuple(float(v @ np.arange(len(v)) / v.sum()) for v in (rows, columns))  # type: ignore


def shift(found: PathMap, place: Geometry) -> Pair:
    """Centroid minus the unit's place in a grid centred on the source, (y, x) in source pixels.

    That place is (u - (n - 1) / 2) S + (H - 1) / 2; 0 for a network without the paper's fault.
    """
    return _from(found, place, lambda u, n, s, h: (u - (n - 1) / 2) * s + (h - 1) / 2)


def registration(found: PathMap, place: Geometry) -> Pair:
    """Centroid minus (u + 0.5) S - 0.5, where a detector's half-pixel grid puts the unit."""
    return _from(found, place, lambda u, n, s, h: (u + 0.5) * s - 0.5)


def _from(found: PathMap, place: Geometry, nominal: Any) -> Pair:
    middle = centroid(found)
    wanted = [
        nominal(found.unit[a], found.units[a], place.uniform[a].stride, place.source[a])
        for a in (0, 1)
    ]
    return middle[0] - wanted[0], middle[1] - wanted[1]


def gridding(found: PathMap, place: Geometry) -> dict[str, float]:
    """Coefficient of variation of the counts' sums over pixel phases, for every period.

    A period is the effective stride after one of the network's reductions; the last is S, the one
    that is called the gridding. 0 for an even map.
    """
    pairs = _pairs(*place.periods)
    return {f"{y}" if y == x else f"{y}x{x}": _phase_cv(found, y, x) for y, x in pairs}


def _pairs(y: list[int], x: list[int]) -> list[tuple[int, int]]:
    longest = max(len(y), len(x), 1)
    y, x = ([*p, *(p[-1:] or [1]) * (longest - len(p))] for p in (y, x))
    return list(zip(y, x, strict=True))


def _phase_cv(found: PathMap, y: int, x: int) -> float:
    counts = found.counts.astype(float)
    height, width = (-(-n // s) * s for n, s in zip(counts.shape, (y, x), strict=True))
    padded = np.zeros((height, width))
    padded[: counts.shape[0], : counts.shape[1]] = counts
    padded /= padded.max()  # counts may be so large that their squares overflow
    sums = padded.reshape(height // y, y, width // x, x).sum((0, 2))
    return float(sums.std() / sums.mean())


def support(found: PathMap) -> dict[str, int]:
    """The bounding box of the pixels that any path reaches, both ends included."""
    rows, columns = (
        np.nonzero((found.counts != 0).any(1))[0],
        np.nonzero((found.counts != 0).any(0))[0],
    )
    return {
        "top": int(rows[0]),
        "bottom": int(rows[-1]),
        "left": int(columns[0]),
        "right": int(columns[-1]),
    }


def misaligned(place: Geometry) -> list[str]:
    """The layer of every addition and concatenation whose branches disagree, along either axis."""
    return [*{d.nodes: d.layer for d in place.disagreements}.values()]


def measure(found: PathMap, place: Geometry) -> dict[str, Any]:
    """All figures of a map, ready for JSON: distances in pixels of the source, pairs as (y, x)."""
    if not found.counts.any():
        raise UsageError(f"no path from the source reaches unit {found.unit[0]},{found.unit[1]}")
    fields = place.uniform
    grid = gridding(found, place)
    return {
        "shift": shift(found, place),
        "registration": registration(found, place),
        "gridding": list(grid.values())[-1] if grid else 0.0,
        "gridding_by_period": grid,
        "centroid": centroid(found),
        "size": [f.size for f in fields],
        "stride": [f.stride for f in fields],
        "padding": [f.padding for f in fields],
        "center": [f.center(u) for f, u in zip(fields, found.unit, strict=True)],
        "support": support(found),
        "cut": is_cut(place, found.unit),
        "misaligned": len(misaligned(place)),
        "misaligned_layers": sorted(set(misaligned(place))),
        "bypass": found.bypass,
        "unit": found.unit,
        "units": found.units,
        "source_size": place.source,
        "convention": asdict(found.convention),
    }
