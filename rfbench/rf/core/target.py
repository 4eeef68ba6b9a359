"""What a question is about: a layer of a graph, seen from a source; what follows is made once."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core import geometry as geometries
from rfbench.rf.core import path_counts as counting
from rfbench.rf.core import theory as arithmetic
from rfbench.rf.core.forward import AllUnits, Period, all_units
from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.path_counts import DEFAULT, Convention, PathMap
from rfbench.rf.core.theory import Disagreement, Fields, Theory
from rfbench.spatial_graph.graph import Reach, Size, SpatialGraph, Witness
from rfbench.spatial_graph.layout import Value

Unit = tuple[int, int]  # (y, x)


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
            raise UsageError(f"the network has several inputs: choose one with --from ({some})")
        return None if self.source is None else self.graph.layer(self.source)

    @cached_property
    def units(self) -> Size:
        """Size (h, w) of the target's map."""
        return self.graph.map_size(self.value)

    @property
    def center(self) -> Unit:
        """The central unit, (n - 1) // 2."""
        return (self.units[0] - 1) // 2, (self.units[1] - 1) // 2

    @cached_property
    def source_size(self) -> Size:
        """Size (h, w) of the source's map."""
        return self.graph.size if self.origin is None else self.graph.map_size(self.origin)

    @cached_property
    def witness(self) -> Witness:
        """How far the target looks, and the first step that made it so."""
        return self.graph.witness(self.value)

    @cached_property
    def ancestors(self) -> set[int]:
        """The nodes that it depends on, its own included."""
        return self.graph.ancestors(set(self.graph.share(self.value)))

    @cached_property
    def theory(self) -> Theory:
        """The theoretical fields of every node of the graph, from the source."""
        return arithmetic.theory(self.graph, self.origin)

    @cached_property
    def fields(self) -> Fields:
        """Its theoretical fields along (y, x); None where units have no field in common."""
        return self.theory.of(self.graph, self.value)

    @cached_property
    def disagreements(self) -> list[Disagreement]:
        """Where branches on the way disagree in stride or centre."""
        return self.theory.behind(self.graph, self.value)

    @cached_property
    def geometry(self) -> Geometry:
        """Where its units stand over the source."""
        return geometries.geometry(self.graph, self.value, self.theory, self.source_size)

    @property
    def is_cut(self) -> bool:
        """Whether the border cuts the central unit's field. Raises NotUniform without a stride."""
        return self.geometry.is_cut(self.center)

    def unit(self, unit: Unit | None) -> Unit:
        """A unit of the map, the central one for None. Raises UsageError outside of the map."""
        h, w = self.units
        if unit is None:
            return self.center
        if not (0 <= unit[0] < h and 0 <= unit[1] < w):
            where = f"layer '{self.name}'" if self.name else "the output"
            raise UsageError(
                f"unit {unit[0]},{unit[1]} is outside {where}: its map is {h}x{w}, "
                f"units are 0,0 to {h - 1},{w - 1}"
            )
        return unit

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
        key = (self.unit(unit), convention, exact)
        if key not in self._counts:
            counts = counting.count_tensor(
                self.graph, self.value, key[0], self.origin, convention, exact
            )
            if counts is None:
                raise UsageError(
                    f"no path leads from '{self.source or 'the input'}' to '{self.name}'"
                )
            self._counts[key] = replace(counts, period=self.period(key[0], convention))
        return self._counts[key]

    def period(self, unit: Unit | None = None, convention: Convention = DEFAULT) -> Period | None:
        """The units around a unit that take turns; None where all units look alike."""
        phases = self.geometry.phases
        if phases == (1, 1):
            return None
        if convention not in self._every:
            self._every[convention] = all_units(self.graph, self.value, self.origin, convention)
        return self._every[convention].period(self.unit(unit), phases)

    @cached_property
    def reached(self) -> np.ndarray:
        """(H, W) bool: the positions of the source from which a path leads to any unit."""
        return counting.paths_to_all(self.graph, self.value, self.origin) > 0


def not_local(witness: Witness, what: str = "path counts need") -> RfbenchError:
    """The error for a network that mixes positions beyond windows and pooling."""
    return RfbenchError(
        f"{what} a convolutional network; this one is {witness.reach}: {witness}. "
        "Choose an earlier layer with --to; --list-layers shows them."
    )
