"""Where units stand over their source, by theory: what metrics need besides the path counts."""

from dataclasses import dataclass
from math import lcm

from rfbench.errors import RfbenchError
from rfbench.rf.core.field import Along, Field, Phased, Region, Whole, region
from rfbench.rf.core.theory import Disagreement, Theory
from rfbench.spatial_graph.axis import Window, names
from rfbench.spatial_graph.graph import Size, SpatialGraph
from rfbench.spatial_graph.layout import Value


class NotUniform(RfbenchError):
    """Units of a map have no stride in common: it is resized, or its windows are not uniform."""


@dataclass(frozen=True)
class Geometry:
    """Where units of a target stand over a source: all that metrics need besides the counts.

    Of every axis: field: theoretical field of units that are alike or take turns; None where they
    have nothing in common. periods: effective strides > 1 that all paths pass, and distances of
    dilated kernels' taps, ascending. source: size of the source map. step: source positions by
    which an input may grow so that all layers stay as they are.
    """

    field: tuple[Along | None, ...]
    periods: tuple[list[int], ...]
    source: Size
    disagreements: list[Disagreement]
    step: Size = (1, 1)

    @property
    def fields(self) -> tuple[Field | Phased, ...]:
        """The field of every axis. Raises NotUniform where there is none."""
        strided = tuple(f for f in self.field if isinstance(f, Field | Phased))
        if len(strided) == len(self.field):
            return strided
        if any(f is None for f in self.field):
            raise NotUniform(
                "this map has no effective stride: it is resized irregularly or not uniform. "
                "Choose an earlier layer with --to, or another --size."
            )
        mixed = zip(names(len(self.field)), self.field, strict=True)
        along = " and ".join(name for name, f in mixed if isinstance(f, Whole))
        raise NotUniform(
            f"this map has no effective stride along {along}: learned mixing lets every unit see "
            "all positions there. Choose an earlier layer with --to."
        )

    @property
    def uniform(self) -> tuple[Field, ...]:
        """The same where all units are alike. Raises NotUniform elsewhere."""
        alike = tuple(f for f in self.fields if isinstance(f, Field))
        if len(alike) == len(self.field):
            return alike
        raise NotUniform("units of this map take turns: it is resized. Choose an earlier layer.")

    @property
    def phases(self) -> Size:
        """How many units take turns along every axis; 1: all are alike, or nothing is known."""
        return tuple(len(f.phases) if f is not None else 1 for f in self.field)

    def box(self, unit: Size) -> tuple[Region, ...]:
        """The field of a unit within the source: first and last position along every axis."""
        return tuple(
            (max(0, first), min(n - 1, last))
            for (first, last), n in zip(self._regions(unit), self.source, strict=True)
        )

    def is_cut(self, unit: Size) -> bool:
        """Whether the border of the source cuts the field of a unit."""
        return any(
            first < 0 or last > n - 1
            for (first, last), n in zip(self._regions(unit), self.source, strict=True)
        )

    def _regions(self, unit: Size) -> list[Region]:
        return [region(f, u) for f, u in zip(self.fields, unit, strict=True)]


def geometry(graph: SpatialGraph, value: Value, theory: Theory, source: Size) -> Geometry:
    """The geometry of a tensor over a source map of this size."""
    ends = set(graph.share(value))
    behind = graph.ancestors(ends)
    fields = theory.of(graph, value)
    periods: list[list[int]] = []
    steps = []
    for axis, last in enumerate(fields):
        by_node = {
            i: f.stride
            for i in behind
            if (both := theory.fields[i]) and isinstance(f := both[axis], Field)
        }
        strides = set(by_node.values())
        steps.append(lcm((last.step if last else 1) or 1, *strides))
        periods.append([])
        if isinstance(last, Field | Phased):
            shared = {
                s
                for s in strides - {1}
                if s <= last.stride
                or _all_pass(graph, ends, {i for i in by_node if not by_node[i] % s})
            }
            periods[axis].extend(sorted(shared | _dilations(graph, behind, theory, axis)))
    return Geometry(fields, tuple(periods), source, theory.behind(graph, value), tuple(steps))


def _all_pass(graph: SpatialGraph, ends: set[int], gates: set[int]) -> bool:
    """Whether every way from the source to a tensor leads through one of some nodes."""
    open_, seen = [i for i in ends if i not in gates], set()
    while open_:
        i = open_.pop()
        if i not in seen:
            seen.add(i)
            if not graph.nodes[i].sources:
                return False
            open_ += [s for s in graph.nodes[i].sources if s not in gates]
    return True


def _dilations(graph: SpatialGraph, behind: set[int], theory: Theory, axis: int) -> set[int]:
    """The distances > 1 between the taps of dilated kernels, in source positions."""
    out = set()
    for node in (graph.nodes[i] for i in behind):
        window = node.axes[axis]
        if isinstance(window, Window) and window.kernel > 1 and window.dilation > 1:
            fields = (both[axis] for s in node.sources if (both := theory.fields[s]) is not None)
            out |= {f.stride * window.dilation for f in fields if isinstance(f, Field)}
    return out


def uncut_size(size: Size, geometry: Geometry, units: Size) -> Size:
    """An input size at which the central unit's field is whole, with room for an uneven one.

    So are those of the units that take turns with it. It is larger than `size`, the graph's own, by
    multiples of the strides: what is left over at the border when windows do not fit (VALID
    padding: 299 pixels of Inception) stays as it is.
    """
    larger = []
    for axis, field in enumerate(geometry.fields):
        scale = size[axis] / geometry.source[axis]
        spare = abs(field.center((units[axis] - 1) // 2) - (geometry.source[axis] - 1) / 2)
        need = (field.size + 2 * spare + 2 * field.step) * scale
        step = round((geometry.step[axis] if isinstance(field, Phased) else field.step) * scale)
        larger.append(size[axis] + max(0, -(-(round(need) - size[axis]) // step)) * step)
    return tuple(larger)
