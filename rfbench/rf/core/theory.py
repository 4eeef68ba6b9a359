"""Theoretical receptive fields on the spatial graph (Araujo et al., Distill 2019).

A forward pass: along each axis, which input positions can unit u of a node see? With effective
stride S the answer is [first + u S, last + u S]; size r = last - first + 1, effective padding
P = -first, centre c = (first + last) / 2 + u S. Branches that meet must agree in S and c.
"""

from collections import defaultdict
from dataclasses import dataclass

from rfbench.rf.core.field import (
    Along,
    Field,
    Phased,
    Sparse,
    Whole,
    origin,
    region,
    union,
)
from rfbench.rf.core.split import slices_of_all
from rfbench.rf.core.steps import apply
from rfbench.spatial_graph.axis import SAME
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node
from rfbench.spatial_graph.size import Size

__all__ = [
    "Along",
    "Disagreement",
    "Field",
    "Fields",
    "Phased",
    "Theory",
    "Whole",
    "region",
    "theory",
]

Fields = tuple[Along | None, ...]  # of each axis; None where units have nothing in common
Steps = tuple[Along | Sparse | None, ...]  # the same on the way, where some units may read nothing


@dataclass(frozen=True)
class Disagreement:
    """Branches that meet with different strides or centres along an axis, by its name.

    op: the addition, product or concatenation. layer: who called it. fields, branches: of each
    distinct branch the field and the layer that it comes from. nodes: what the operation made.
    """

    op: str
    layer: str
    axis: str
    fields: tuple[Along, ...]
    branches: tuple[str, ...]
    nodes: frozenset[int]


@dataclass
class Theory:
    """Fields of every node that sees the source (None: not at all), and where they disagree.

    start: the nodes of the source. slices: those that together take every position once.
    """

    fields: list[Steps | None]
    disagreements: list[Disagreement]
    source: Size
    slices: frozenset[int]
    start: frozenset[int] = frozenset({0})

    def of(self, graph: SpatialGraph, value: Value) -> Fields:
        """The union of the fields of a tensor's channels; None along each axis where none sees
        it."""
        every = self.steps_of(graph, value)
        return tuple(None if isinstance(f, Sparse) else f for f in every)

    def steps_of(self, graph: SpatialGraph, value: Value) -> Steps:
        """The same, also where some units read nothing."""
        known = [f for i in graph.share(value) if (f := self.fields[i]) is not None]
        units = graph.map_size(value)
        return tuple(union([f[k] for f in known], units[k], n) for k, n in enumerate(self.source))

    def behind(self, graph: SpatialGraph, value: Value) -> list[Disagreement]:
        """The disagreements on the way to a tensor."""
        nodes = graph.ancestors(set(graph.share(value)))
        return [d for d in self.disagreements if not nodes.isdisjoint(d.nodes)]


def theory(graph: SpatialGraph, source: Value | None = None) -> Theory:
    """Fields from the input, or from the map of a layer; global context is left out."""
    start = set(graph.share(source)) if source is not None else {0}
    size = tuple(max(graph.nodes[i].size[k] for i in start) for k in range(len(graph.size)))
    fields: list[Steps | None] = [None] * len(graph.nodes)
    steps: dict[int, list[int]] = defaultdict(list)  # the nodes of every operation
    for i, node in enumerate(graph.nodes):
        if i in start:
            # of several inputs a position of a smaller one covers several of the largest
            covers = [n // m for n, m in zip(size, node.size, strict=True)]
            fields[i] = tuple(Field(0, n - 1, n) for n in covers)
        elif node.kind == "same" and node.sources:
            fields[i] = fields[node.sources[0]]
            if fields[i] is not None:
                steps[node.step].append(i)
        elif node.kind != "context":
            known = [f for s in node.sources if (f := fields[s]) is not None]
            if known:
                alone = len(known) == 1 and all(axis is SAME for axis in node.axes)
                fields[i] = known[0] if alone else _after(graph, node, known, size)
                steps[node.step].append(i)
    split = {
        step: slices_of_all(graph, nodes) for step, nodes in steps.items() if _joins(graph, nodes)
    }
    apart = [
        d
        for step, nodes in steps.items()
        if not split.get(step)
        for d in _disagree(graph, fields, nodes)
    ]
    return Theory(fields, apart, size, frozenset().union(*split.values()), frozenset(start))


def _after(graph: SpatialGraph, node: Node, known: list[Steps], source: Size) -> Steps:
    """The fields behind a step of which some sources' are known."""
    size = graph.nodes[node.sources[0]].size
    return tuple(_apply(node, known, k, size, source) for k in range(len(source)))


def _apply(
    node: Node, known: list[Steps], axis: int, n: Size, source: Size
) -> Along | Sparse | None:
    seen = union([f[axis] for f in known], n[axis], source[axis])
    return None if seen is None else apply(seen, node.axes[axis], n[axis], source[axis])


def _disagree(
    graph: SpatialGraph, fields: list[Steps | None], nodes: list[int]
) -> list[Disagreement]:
    """Where the branches of one operation disagree: terms of a sum, parts of a concatenation."""
    op, layer = graph.nodes[nodes[0]].op, graph.nodes[nodes[0]].layer
    joined = _joins(graph, nodes)
    sums = [graph.nodes[i].sources for i in nodes if graph.nodes[i].kind in ("sum", "product")]
    apart = []
    for axis, name in enumerate(graph.names):
        for meeting in [nodes] if joined else sums:
            sides: dict[tuple, tuple[Along, str]] = {}
            firsts = {id(fields[i]): i for i in reversed(meeting)}  # of many equal ones
            for i in (i for i in meeting if firsts[id(fields[i])] == i):
                side = both[axis] if (both := fields[i]) is not None else None
                if side is not None and not isinstance(side, Whole | Sparse):
                    key = side.stride, origin(side)
                    if key not in sides:
                        came = _before(graph, i) if joined else i
                        sides[key] = side, graph.nodes[came].layer
            if len(sides) > 1:
                parts, layers = zip(*sides.values(), strict=True)
                apart.append(Disagreement(op, layer, name, parts, layers, frozenset(nodes)))
                break
    return apart


def _joins(graph: SpatialGraph, nodes: list[int]) -> bool:
    """Whether an operation puts maps side by side."""
    return any(word in graph.nodes[nodes[0]].op for word in _JOINS)


_JOINS = (".cat.", ".stack.", "_scatter.")


def _before(graph: SpatialGraph, i: int) -> int:
    """The node behind those that an operation made of it."""
    step = graph.nodes[i].step
    while graph.nodes[i].step == step and graph.nodes[i].sources:
        i = graph.nodes[i].sources[0]
    return i
