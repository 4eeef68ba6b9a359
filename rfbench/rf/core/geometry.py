"""Where units stand over their source, by theory: what metrics need besides the path counts."""

from dataclasses import dataclass

from rfbench.errors import RfbenchError
from rfbench.rf.core.field import Field
from rfbench.rf.core.theory import Disagreement, Theory
from rfbench.spatial_graph.graph import Size, SpatialGraph
from rfbench.spatial_graph.layout import Value


class NotUniform(RfbenchError):
    """Units of a map have no stride in common: it is resized, or its windows are not uniform."""


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
        """The fields along (y, x). Raises NotUniform where there is none."""
        y, x = self.field
        if y is None or x is None:
            raise NotUniform(
                "this map has no effective stride: it is resized or not uniform. "
                "Choose an earlier layer with --to, or another --size."
            )
        return y, x

    def is_cut(self, unit: tuple[int, int]) -> bool:
        """Whether the border of the source cuts the field of a unit."""
        return any(
            f.first + u * f.stride < 0 or f.last + u * f.stride > n - 1
            for f, u, n in zip(self.uniform, unit, self.source, strict=True)
        )


def geometry(graph: SpatialGraph, value: Value, theory: Theory, source: Size) -> Geometry:
    """The geometry of a tensor over a source map of this size."""
    behind = graph.ancestors(set(graph.share(value)))
    y, x = (f if isinstance(f, Field) else None for f in theory.of(graph, value))
    periods: tuple[list[int], list[int]] = ([], [])
    for axis, last in enumerate((y, x)):
        strides = {
            f.stride
            for i in behind
            if (both := theory.fields[i]) and isinstance(f := both[axis], Field)
        }
        if last is not None:
            periods[axis].extend(sorted(s for s in strides if 1 < s <= last.stride))
    return Geometry((y, x), periods, source, theory.behind(graph, value))


def uncut_size(size: Size, geometry: Geometry, units: Size) -> Size:
    """An input size at which the central unit's field is whole, with room for an uneven one.

    It is larger than `size`, the graph's own, by multiples of the stride: what is left over at the
    border when windows do not fit (VALID padding: 299 pixels of Inception) stays as it is.
    """
    larger = []
    for axis in (0, 1):
        field = geometry.uniform[axis]
        scale = size[axis] / geometry.source[axis]
        spare = abs(field.center((units[axis] - 1) // 2) - (geometry.source[axis] - 1) / 2)
        need = (field.size + 2 * spare + 2 * field.stride) * scale
        step = round(field.stride * scale)
        larger.append(size[axis] + max(0, -(-(round(need) - size[axis]) // step)) * step)
    return larger[0], larger[1]
