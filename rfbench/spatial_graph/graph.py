"""The spatial graph: every class of channels as a node, every operation as a map along y and x.

A node stands for channels with the same spatial history. It is a weighted sum of its sources, to
which one linear map an axis is applied. Everything else (theory, path counts, status) is a pass
over the list of nodes.
"""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from fractions import Fraction

import numpy as np

from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.spatial_graph.axis import SAME, Axis, Expand
from rfbench.spatial_graph.layout import CONSTANT, Value

Size = tuple[int, int]


class Reach(IntEnum):
    """How far an output unit looks: each kind farther than the one before."""

    LOCAL = 0
    CONTEXT = 1
    WINDOWED = 2
    GLOBAL = 3
    UNSUPPORTED = 4

    def __str__(self) -> str:
        return ("local", "local + global context", "windowed", "global", "unsupported")[self]


@dataclass(frozen=True)
class Witness:
    """Why a network is not local: the operation, and the layer that called it."""

    reach: Reach
    op: str
    layer: str
    reason: str = ""

    def __str__(self) -> str:
        where = f" in layer {self.layer}" if self.layer else ""
        return f"{self.op}{where}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True, eq=False)
class Node:
    """A class of channels: sum of the sources, each weighted, mapped along y and x.

    kind: input, conv, pool, adaptive, sum, product, same, context, structure. counts: how often
    each source takes part. channels: for a sum over channels (convolution, linear), how many there
    are, constant ones included; 0 for any other sum. reach: what this step alone adds. rigid:
    whether the step belongs to one input size. step: the same for all nodes of one operation.
    """

    kind: str
    sources: tuple[int, ...]
    size: Size
    y: Axis = SAME
    x: Axis = SAME
    counts: tuple[int | Fraction, ...] = ()
    channels: int = 0
    reach: Reach = Reach.LOCAL
    rigid: bool = False
    op: str = ""
    layer: str = ""
    step: int = 0

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """(y, x)."""
        return self.y, self.x


@dataclass(frozen=True)
class Opaque:
    """A tensor whose positions are no longer known; its witness names the operation at fault.

    if_mixed: the reach of attention over it, where its positions are only rearranged.
    """

    witness: Witness
    if_mixed: Reach | None = None


@dataclass(repr=False)
class SpatialGraph:
    """A traced network as nodes in topological order.

    layers: module path -> the tensor it returned (a Value, or Opaque), in order of execution; only
    those that depend on the input. output: what the network returned. target: the layer of the last
    map, '' when there is none.
    """

    size: Size
    nodes: list[Node] = field(default_factory=list)
    layers: dict[str, Value | Opaque] = field(default_factory=dict)
    output: Value | Opaque | None = None
    target: str = ""

    def __repr__(self) -> str:
        # in a notebook, all nodes would be hundreds of lines
        to = f", to {self.target}" if self.target else ""
        return f"SpatialGraph of {self.size[0]}x{self.size[1]} px: {len(self.nodes)} nodes{to}"

    def is_rigid(self, value: Value) -> bool:
        """Whether any step towards a tensor belongs to this input size only."""
        return any(self.nodes[i].rigid for i in self.ancestors(set(self.share(value))))

    def resized(self, size: Size, value: Value) -> "SpatialGraph":
        """The part of the graph behind a tensor that is not rigid, on another input size (H, W).

        Raises UsageError where nothing is left of the map.
        """
        behind = self.ancestors(set(self.share(value)))
        nodes: list[Node] = []
        for i, node in enumerate(self.nodes):
            if i not in behind:
                nodes.append(replace(node, sources=()))
                continue
            new = size
            if node.sources:
                y, x = (self._fit(a, nodes, k) for k, a in enumerate(node.axes))
                old = nodes[node.sources[0]].size
                new = (y.out_size(old[0]), x.out_size(old[1]))
                node = replace(node, y=y, x=x)
            if min(new) < 1:
                raise too_small(size, node.layer)
            nodes.append(replace(node, size=new))
        layers: dict[str, Value | Opaque] = {
            name: v
            for name, v in self.layers.items()
            if isinstance(v, Value) and behind.issuperset(self.share(v))
        }
        return replace(self, size=size, nodes=nodes, layers=layers)

    @staticmethod
    def _fit(axis: Axis, nodes: list[Node], i: int) -> Axis:
        return replace(axis, size=nodes[axis.like].size[i]) if isinstance(axis, Expand) else axis

    def maps(self) -> dict[str, Size]:
        """Layers whose output is a map of positions, with its size (h, w)."""
        return {name: self.map_size(v) for name, v in self.layers.items() if is_map(v)}

    def map_size(self, value: Value | Opaque | None) -> Size:
        """(h, w) of a tensor's map."""
        if not isinstance(value, Value):
            raise RfbenchError("this tensor has no map of positions")
        return self.nodes[int(max(value.labels.flat))].size

    def layer(self, name: str) -> Value:
        """The map of a layer. Raises UsageError for an unknown one or one without positions."""
        if name not in self.layers:
            near = suggest(name, self.layers)
            raise UsageError(f"unknown layer '{name}'.{near} --list-layers shows all.")
        value = self.layers[name]
        if isinstance(value, Opaque):
            raise RfbenchError(f"layer '{name}' has no map of positions: {value.witness}")
        if len(value.dims) < 3 and not value.spatial:
            raise UsageError(
                f"layer '{name}' has no positions; --list-layers shows those with some"
            )
        return value

    def share(self, value: Value) -> dict[int, int]:
        """Number of channels behind every node of a tensor."""
        labels, counts = np.unique(value.labels, return_counts=True)
        return {int(a): int(n) for a, n in zip(labels, counts, strict=True) if a != CONSTANT}

    def ancestors(self, nodes: set[int]) -> set[int]:
        """The nodes that any of these depend on, themselves included."""
        seen = set(nodes)
        for i in range(max(seen, default=-1), -1, -1):
            if i in seen:
                seen.update(self.nodes[i].sources)
        return seen

    def witness(self, value: Value | Opaque | None) -> Witness:
        """How far a tensor looks, and the first step that made it so."""
        if value is None:
            return Witness(Reach.UNSUPPORTED, "the output", "", "it does not depend on the input")
        if isinstance(value, Opaque):
            return value.witness
        widest = Witness(Reach.LOCAL, "", "")
        for i in sorted(self.ancestors(set(self.share(value)))):
            node = self.nodes[i]
            if node.reach > widest.reach:
                widest = Witness(node.reach, node.op, node.layer)
        return widest

    def status(self) -> Witness:
        """The reach of the network: of its last map, or of its output where that looks farther."""
        if isinstance(self.output, Opaque):
            return self.output.witness
        return self.witness(self.layers.get(self.target, self.output))


def is_map(value: Value | Opaque | None) -> bool:
    """Whether a tensor still has positions."""
    return isinstance(value, Value) and value.spatial


def too_small(size: Size, layer: str) -> UsageError:
    """The error for an input on which nothing is left of the map."""
    where = f" in layer {layer}" if layer else ""
    return UsageError(f"an input of {size[0]}x{size[1]} is too small: nothing is left{where}")
