"""Where units stand over their source, by theory: what metrics need besides the path counts."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from math import lcm

from rfbench.errors import RfbenchError
from rfbench.rf.core.field import Along, Field, Phased, Region, Whole, region
from rfbench.rf.core.theory import Disagreement, Theory
from rfbench.rf.core.unalike import covering_step, is_adaptive, where_lost, without_context
from rfbench.rf.core.unit_field import unit_field
from rfbench.spatial_graph.axis import Window, names
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.size import Size


class NotUniform(RfbenchError):
    """Units of a map have no stride in common: it is resized, or its windows are not uniform."""


@dataclass(frozen=True)
class Geometry:
    """Where units of a target stand over a source: all that metrics need besides the counts.

    Of every axis: field: theoretical field of units that are alike or take turns; None where they
    have nothing in common. periods: effective strides > 1 that all paths pass, and distances of
    dilated kernels' taps, ascending; none along an axis without a stride. source: size of the
    source map. step: source positions by which an input may grow so that all layers stay as they
    are. alone: the field of one unit, for axes where units have nothing in common; covering: of
    these the distance of the units' places on a grid that covers the source, None where nothing
    tells. units: size of the target's map. grows: whether fields grow with the source, behind
    adaptive pooling. lost: where units cease to have a stride in common, in words.
    """

    field: tuple[Along | None, ...]
    periods: tuple[list[int], ...]
    source: Size
    disagreements: list[Disagreement]
    step: Size = (1, 1)
    alone: Callable[[Size], tuple[Region, ...]] | None = None
    covering: tuple[int | Fraction | None, ...] = ()
    units: Size = ()
    grows: tuple[bool, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def strided(self) -> tuple[Field | Phased | None, ...]:
        """The field of every axis that has a stride; None for the others."""
        return tuple(f if isinstance(f, Field | Phased) else None for f in self.field)

    @property
    def strides(self) -> tuple[int | Fraction | None, ...]:
        """The effective stride along every axis; None where there is none."""
        return tuple(None if f is None else f.stride for f in self.strided)

    @cached_property
    def stretched(self) -> tuple[bool, ...]:
        """Along which axes units have no stride in common, but places on a grid that covers all.

        As in the map of a decoder that aligns corners, with its units in their order.
        """
        known = self.covering or (None,) * len(self.field)
        return tuple(step is not None and self._in_order(k) for k, step in enumerate(known))

    def _in_order(self, axis: int) -> bool:
        """Whether units look at one place after the other, where a map is neither rolled nor
        flipped: the first, the middle and the last one."""
        middle, n = self.middle, self.units[axis]
        try:
            seen = [
                self.regions((*middle[:axis], u, *middle[axis + 1 :]))[axis]
                for u in (0, middle[axis], n - 1)
            ]
        except RfbenchError:  # one of them reads nothing
            return False
        return seen == sorted(seen)

    @property
    def middle(self) -> Size:
        """The central unit, (n - 1) // 2."""
        return tuple((n - 1) // 2 for n in self.units)

    @property
    def grid(self) -> tuple[int | Fraction | None, ...]:
        """The distance of the units' places along every axis; None where they have none."""
        own = self.covering or (None,) * len(self.field)
        each = zip(self.stretched, own, self.strides, strict=True)
        return tuple(step if stretched else stride for stretched, step, stride in each)

    def check_some(self) -> None:
        """Raise NotUniform where units have no places along any axis."""
        if not any(self.grid):
            self.check_all()

    def check_all(self) -> None:
        """Raise NotUniform, which says why, where an axis has no stride."""
        _ = self.fields

    @property
    def fields(self) -> tuple[Field | Phased, ...]:
        """The field of every axis. Raises NotUniform where there is none."""
        strided = tuple(f for f in self.field if isinstance(f, Field | Phased))
        if len(strided) == len(self.field):
            return strided
        each = [*zip(names(len(self.field)), self.field, strict=True)]
        whole = [name for name, f in each if isinstance(f, Whole)]
        lost = [name for name, f in each if f is None]
        steps = dict.fromkeys(step for step in self.lost if step)
        behind = f" behind {' and '.join(steps)}" if steps else ""
        if lost and all(self.grid):
            raise NotUniform(
                f"units of this map have no stride in common along {' and '.join(lost)}{behind}. "
                "Their places are those of a grid that covers the source."
            )
        if lost:
            along = f" along {' and '.join(lost)}" if len(lost) < len(each) else ""
            raise NotUniform(
                f"this map has no effective stride{along}: units have none in common{behind}. "
                "Choose an earlier layer with --to, or another --size."
            )
        raise NotUniform(
            f"this map has no effective stride along {' and '.join(whole)}: learned mixing lets "
            "every unit see all positions there. Choose an earlier layer with --to."
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
            for (first, last), n in zip(self.regions(unit), self.source, strict=True)
        )

    def is_cut(self, unit: Size) -> bool:
        """Whether the border of the source cuts a unit's field, or that of one it takes turns with.

        Along an axis with a grid: only there does a larger input help.
        """
        return any(step and self._cuts(unit, axis) for axis, step in enumerate(self.grid))

    def is_always_cut(self, unit: Size) -> bool:
        """Whether the border cuts a unit's field that grows with the source."""
        return any(grows and self._cuts(unit, axis) for axis, grows in enumerate(self.grows))

    def is_cut_anywhere(self, unit: Size) -> bool:
        """The same along any axis."""
        return any(self._cuts(unit, axis) for axis in range(len(unit)))

    def _cuts(self, unit: Size, axis: int) -> bool:
        """Whether the border cuts a field along an axis, of the units that a figure is told of."""
        units = range(self.units[axis])[self.turns(unit)[axis]]
        return any(self._cut(unit, axis, u) for u in (unit[axis], *units))

    def _cut(self, unit: Size, axis: int, u: int) -> bool:
        first, last = self.regions((*unit[:axis], u, *unit[axis + 1 :]))[axis]
        return first < 0 or last > self.source[axis] - 1

    def turns(self, unit: Size) -> tuple[slice, ...]:
        """The units around a unit of which figures are told together, along every axis.

        Those of one period; of a stretched map all whose fields are whole.
        """
        return tuple(
            self._whole(unit, axis) if stretched else slice(first := _first(u, p, n), first + p)
            for axis, (stretched, u, p, n) in enumerate(
                zip(self.stretched, unit, self.phases, self.units, strict=True)
            )
        )

    def _whole(self, unit: Size, axis: int) -> slice:
        """The units along an axis whose fields no border cuts, around one; itself where it is."""

        def is_cut(u: int) -> bool:
            try:
                return self._cut(unit, axis, u)
            except RfbenchError:  # it reads nothing
                return True

        at, n = unit[axis], self.units[axis]
        if is_cut(at):
            return slice(at, at + 1)
        first = bisect_left(range(at), True, key=lambda u: not is_cut(u))
        return slice(first, at + bisect_left(range(at, n), True, key=is_cut))

    def regions(self, unit: Size) -> tuple[Region, ...]:
        """The field of a unit along every axis, beyond the border where windows are padded."""
        if None not in self.field:
            known = (f for f in self.field if f is not None)
            return tuple(region(f, u) for f, u in zip(known, unit, strict=True))
        if self.alone is None:
            self.fields  # noqa: B018  says why
            raise AssertionError("an axis has no field")
        each = zip(self.field, unit, self.alone(unit), strict=True)
        return tuple(own if f is None else region(f, u) for f, u, own in each)


def geometry(graph: SpatialGraph, value: Value, theory: Theory, source: Size) -> Geometry:
    """The geometry of a tensor over a source map of this size."""
    ends = set(graph.share(value))
    fields = theory.of(graph, value)
    alone = partial(unit_field, graph, value, theory)
    apart, units = theory.behind(graph, value), graph.map_size(value)
    none: tuple[list[int], ...] = tuple([] for _ in fields)
    local = without_context(graph, ends)
    covering = tuple(
        covering_step(graph, local, theory, axis, units[axis], source[axis])
        if own is None
        else None
        for axis, own in enumerate(fields)
    )
    lost = tuple(
        where_lost(graph, local, theory, axis) if own is None else ""
        for axis, own in enumerate(fields)
    )
    place = Geometry(
        fields, none, source, apart, (1,) * len(fields), alone, covering, units,
        tuple(is_adaptive(graph, local, axis) for axis in range(len(fields))), lost,
    )  # fmt: skip
    periods: list[list[int]] = []
    steps = []
    for axis, (last, own) in enumerate(zip(fields, place.grid, strict=True)):
        by_node = {
            i: f.stride
            for i in local
            if (both := theory.fields[i]) and isinstance(f := both[axis], Field)
        }
        strides = set(by_node.values())
        steps.append(lcm((last.step if last else 1) or 1, *strides))
        periods.append([])
        if own is not None:
            shared = {
                s
                for s in strides - {1}
                if s <= own or _all_pass(graph, ends, {i for i in by_node if not by_node[i] % s})
            }
            periods[axis].extend(sorted(shared | _dilations(graph, local, theory, axis)))
    return replace(place, periods=tuple(periods), step=tuple(steps))


def _first(unit: int, phases: int, units: int) -> int:
    """The first unit of a period around a unit, or of all where there are fewer."""
    return min(max(0, unit - phases // 2), max(0, units - phases))


def _all_pass(graph: SpatialGraph, ends: set[int], gates: set[int]) -> bool:
    """Whether every way from the source to a tensor leads through one of some nodes."""
    open_, seen = [i for i in ends if i not in gates], set()
    while open_:
        i = open_.pop()
        if i not in seen and graph.nodes[i].kind != "context":
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

    So are those of the units that take turns with it; along axes without a stride it stays as it
    is. It is larger than `size`, the graph's own, by multiples of the strides: what is left over at
    the border when windows do not fit (VALID padding: 299 pixels of Inception) stays as it is. Of a
    map that is resized irregularly, by no more than its field is wide.
    """
    larger = []
    for axis, field in enumerate(geometry.strided):
        if field is None and not geometry.stretched[axis]:
            larger.append(size[axis])
            continue
        scale = size[axis] / geometry.source[axis]
        step: float = geometry.step[axis]
        room = float(geometry.grid[axis] or step)
        if field is None:
            first, last = geometry.regions(geometry.middle)[axis]
            extent, center = last - first + 1, (first + last) / 2
        else:
            extent, center = field.size, float(field.center((units[axis] - 1) // 2))
            step = step if isinstance(field, Phased) else field.step
            room = field.step
        spare = abs(center - (geometry.source[axis] - 1) / 2)
        need = (extent + 2 * spare + 2 * room) * scale
        if field is None and step > extent + 2 * spare:
            step = room  # irregular resizing leaves remainders at any size
        step = max(1, round(step * scale))
        larger.append(size[axis] + max(0, -(-(round(need) - size[axis]) // step)) * step)
    return tuple(larger)
