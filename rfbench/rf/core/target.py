"""What a question is about: a layer of a graph, seen from a source; what follows is made once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from rfbench.errors import NoPath, RfbenchError, UsageError
from rfbench.rf.core import geometry as geometries
from rfbench.rf.core import path_counts as counting
from rfbench.rf.core import theory as arithmetic
from rfbench.rf.core.field import region
from rfbench.rf.core.forward import AllUnits, all_units
from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.interior import Interior, interior
from rfbench.rf.core.path_map import DEFAULT, Convention, PathMap
from rfbench.rf.core.period import Period
from rfbench.rf.core.theory import Disagreement, Fields, Theory
from rfbench.rf.core.unalike import without_context
from rfbench.spatial_graph.axis import Index, names
from rfbench.spatial_graph.graph import ALL_INPUTS, SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach, Witness
from rfbench.spatial_graph.size import Size, by

Unit = Size  # (y, x): a position of a map
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Target:
    """A layer of a graph, seen from a source.

    layer: a module path of the graph; None: the last map. source: the layer whose output is looked
    at; None: the input. A graph is not changed once it has a target.
    """

    graph: SpatialGraph
    layer: str | None = None
    source: str | None = None
    _counts: dict[tuple, PathMap] = field(default_factory=dict, init=False, repr=False)
    _every: dict[Convention, AllUnits] = field(default_factory=dict, init=False, repr=False)
    _inner: dict[Convention, Interior | None] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """The layer's name; '' for the output of a network without a last map of a layer."""
        return self.layer or self.graph.target

    @cached_property
    def value(self) -> Value:
        """The tensor. Raises UsageError for an unknown layer, RfbenchError without positions."""
        if self.layer is not None:
            return self.graph.layer(self.layer)
        self.graph.check_end()
        if self.graph.target:
            return self.graph.layer(self.graph.target)
        if isinstance(self.graph.output, Value):
            return self.graph.output
        raise not_local(self.graph.status())

    @cached_property
    def origin(self) -> Value | None:
        """The tensor of the source; None: the only input."""
        if self.source is None and self.graph.inputs:
            some = ", ".join(self.graph.inputs)
            raise UsageError(
                f"the network has several inputs: choose one with --from ({some}); "
                "in Python: source="
            )
        if self.source is None:
            return None
        return self.graph.followed.get(self.source) or self.graph.layer(self.source)

    @cached_property
    def units(self) -> Size:
        """Size of the target's map, along every axis."""
        return self.graph.map_size(self.value)

    @property
    def center(self) -> Unit:
        """The central unit, (n - 1) // 2."""
        return tuple((n - 1) // 2 for n in self.units)

    @cached_property
    def source_size(self) -> Size:
        """Size of the source's map, along every axis."""
        if self.source == ALL_INPUTS:
            return self.graph.common_size()
        return self.graph.size if self.origin is None else self.graph.map_size(self.origin)

    @cached_property
    def witness(self) -> Witness:
        """How far the target looks, and the first step that made it so."""
        return self.graph.witness(self.value)

    @cached_property
    def ancestors(self) -> frozenset[int]:
        """The nodes that it depends on, its own included."""
        return self.graph.ancestors(set(self.graph.share(self.value)))

    @cached_property
    def direct(self) -> frozenset[int]:
        """The nodes that it depends on by other ways than a global context."""
        return frozenset(without_context(self.graph, set(self.graph.share(self.value))))

    @cached_property
    def theory(self) -> Theory:
        """The theoretical fields of every node of the graph, from the source."""
        return arithmetic.theory(self.graph, self.origin)

    @cached_property
    def fields(self) -> Fields:
        """Its theoretical field along every axis; None where units have none in common."""
        return self.theory.of(self.graph, self.value)

    @cached_property
    def disagreements(self) -> list[Disagreement]:
        """Where branches on the way disagree in stride or centre."""
        return self.theory.behind(self.graph, self.value)

    @cached_property
    def geometry(self) -> Geometry:
        """Where its units stand over the source."""
        return geometries.geometry(self.graph, self.value, self.theory, self.source_size)

    @cached_property
    def is_causal(self) -> bool:
        """Whether units of a sequence read what came before only, so that their shift is meant.

        Unit 0 then reads nothing behind position 0, and every unit more than one stride back: a
        mere stride, which reads the first of every few positions, is a shift that nobody means.
        """
        if len(self.units) != 1:
            return False
        (field,) = self.geometry.field
        if field is None or not field.stride:
            return False
        return region(field, 0)[1] <= 0 and field.size > field.stride

    @property
    def ends_agree(self) -> bool:
        """Whether all branches that disagree do so in how far back they read, and in nothing else.

        Then those of a causal network are meant.
        """
        return all(
            len({(field.stride, region(field, 0)[1]) for field in d.fields}) == 1
            for d in self.disagreements
        )

    @property
    def is_cut(self) -> bool:
        """Whether the border cuts the central unit's field, along an axis with a stride."""
        return self.geometry.is_cut(self.center)

    @property
    def is_always_cut(self) -> bool:
        """Whether it grows with the source, so that none is whole."""
        return self.geometry.is_always_cut(self.center)

    def unit(self, unit: Unit | None) -> Unit:
        """A unit of the map, the central one for None. Raises UsageError outside of the map."""
        if unit is None:
            return self.center
        where = f"layer '{self.name}'" if self.name else "the output"
        check_position("unit", unit, self.units, f"{where}: its map")
        return tuple(unit)

    def counts(
        self, unit: Unit | None = None, convention: Convention = DEFAULT, exact: bool = False
    ) -> PathMap:
        """Path counts from the source to one unit, the central one when None; made once each.

        A unit stands for all channels of its position: the mean of their counts for
        channels=single, the sum for channels=real. exact: in integers and fractions.

        Raises UsageError for an unknown layer or a unit outside the map, RfbenchError where paths
        mean nothing: attention and other global or windowed mixing.
        """
        if self.witness.reach > Reach.CONTEXT:
            raise not_local(self.witness)
        self._check_sizes()
        if self.witness.reach == Reach.CONTEXT:
            self.check_path()
        key = (self.unit(unit), convention, exact)
        if key not in self._counts:
            counts = counting.count_tensor(
                self.graph, self.value, key[0], self.origin, convention, exact
            )
            if counts is None or not counts.counts.any():
                self.check_path()
                raise self._nothing_read(key[0])
            self._counts[key] = replace(counts, period=self.period(key[0], convention))
        return self._counts[key]

    def _check_sizes(self) -> None:
        """Raise UsageError for inputs of different sizes taken as one: no map holds both."""
        sizes = {self.graph.map_size(v) for v in self.graph.inputs.values()}
        if self.source == ALL_INPUTS and len(sizes) > 1:
            raise UsageError(
                f"paths from inputs of different sizes ({', '.join(map(by, sorted(sizes)))}) are "
                f"counted from each: choose one with --from ({', '.join(self.graph.inputs)})"
            )

    def check_path(self) -> None:
        """Raise NoPath where no path leads from the source, or none past a global context."""
        if any(self.theory.fields[i] is not None for i in self.graph.share(self.value)):
            return
        source, name = self.source or "the input", self.name or "the output"
        if self.ancestors.isdisjoint(self.theory.start):
            raise NoPath(f"no path leads from '{source}' to '{name}'")
        raise NoPath(
            f"all paths from '{source}' to '{name}' lead through a global context: {self.witness}. "
            "Choose an earlier layer with --to; --list-layers shows them."
        )

    def _nothing_read(self, unit: Unit) -> NoPath:
        """Why there is nothing to count for this unit, while there may be for others."""
        source, name = self.source or "the input", self.name or "the output"
        return NoPath(
            f"unit {','.join(map(str, unit))} of '{name}' reads nothing of {source}: it is always "
            "zero. Choose another with --unit, or another layer with --to."
        )

    def period(self, unit: Unit | None = None, convention: Convention = DEFAULT) -> Period | None:
        """The units around a unit that take turns; None where all units look alike.

        Of a stretched map all whose fields are whole.
        """
        where = self.geometry.turns(self.unit(unit)) if self.is_resized else ()
        if all(part.stop - part.start == 1 for part in where):
            return None
        period = self._units(self.unit(unit), convention).period(where)
        lost = any(self.geometry.stretched) and bool(np.isnan(period.centroids).any())
        return None if lost else period  # where units in between read nothing

    def _units(self, unit: Unit, convention: Convention) -> AllUnits | Interior:
        """All units of the map, or those of one period where no border cuts the ones asked for."""
        whole = not any(self.geometry.stretched) and not self.geometry.is_cut_anywhere(unit)
        if whole and convention not in self._inner:
            self._inner[convention] = interior(
                self.graph, self.value, self.origin, self.theory, convention
            )
        if whole and (inner := self._inner[convention]):
            return inner
        if convention not in self._every:
            self._every[convention] = all_units(self.graph, self.value, self.origin, convention)
        return self._every[convention]

    @cached_property
    def is_resized(self) -> bool:
        """Whether anything on the way can make units take turns; windows do not."""
        axes = (axis for i in self.ancestors for axis in self.graph.nodes[i].axes)
        return any(isinstance(axis, Index) for axis in axes)

    @cached_property
    def reached(self) -> np.ndarray:
        """As large as the source, bool: whether a path leads from a position to any unit."""
        self._check_sizes()
        return counting.paths_to_all(self.graph, self.value, self.origin) > 0


def check_position(word: str, at: Unit, size: Size, where: str) -> None:
    """Raise UsageError for a position with another number of axes, or outside of a map."""
    text, axes = ",".join(map(str, at)), ",".join(names(len(size)))
    if len(at) != len(size):
        raise UsageError(f"{word} {text}: {where} is {by(size)}, so a {word} is {axes}")
    if not all(0 <= i < n for i, n in zip(at, size, strict=True)):
        first, last = ",".join("0" for _ in size), ",".join(str(n - 1) for n in size)
        raise UsageError(
            f"{word} {text} is outside {where} is {by(size)}, {word}s are {first} to {last}"
        )


def pair(values: Sequence[T], what: str) -> tuple[T, T]:
    """Figures of both axes of an image. Raises RfbenchError for a map with more or fewer axes."""
    if len(values) == 2:
        return values[0], values[1]
    raise RfbenchError(
        f"{what} is for images, with two axes; this network takes {len(values)}-D input"
    )


def not_local(witness: Witness, what: str = "path counts need") -> RfbenchError:
    """The error for a network that mixes positions beyond windows and pooling."""
    return RfbenchError(
        f"{what} a convolutional network; this one is {witness.extent}: {witness}. "
        "Choose an earlier layer with --to; --list-layers shows them. `rfbench rf effective` "
        "measures it by gradients."
    )
