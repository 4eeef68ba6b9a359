"""Theoretical receptive fields on the spatial graph (Araujo et al., Distill 2019).

A forward pass: along each axis, which input positions can unit u of a node hear? With effective
stride S the answer is [first + u S, last + u S]; size r = last - first + 1, effective padding
P = -first, centre c = (first + last) / 2 + u S. Branches that meet must agree in S and c.
"""

from dataclasses import dataclass

from rfbench.rf.axis import Expand, Full, Index, Window
from rfbench.rf.graph import Node, SpatialGraph
from rfbench.rf.layout import Value


@dataclass(frozen=True)
class Field:
    """The field of unit 0 along one axis, in source positions: first, last, and the stride S."""

    first: int
    last: int
    stride: int

    @property
    def size(self) -> int:
        """r."""
        return self.last - self.first + 1

    @property
    def padding(self) -> int:
        """P, the effective padding before."""
        return -self.first

    def center(self, unit: int) -> float:
        """c of a unit, in source positions."""
        return (self.first + self.last) / 2 + unit * self.stride


Fields = tuple[Field | None, Field | None]  # (y, x); None where windows are not uniform


@dataclass(frozen=True)
class Disagreement:
    """Branches that meet with different strides or centres along an axis ('y' or 'x')."""

    node: int
    layer: str
    axis: str
    fields: tuple[Field, ...]


@dataclass
class Theory:
    """Fields of every node that hears the source (None: not at all), and where they disagree."""

    fields: list[Fields | None]
    disagreements: list[Disagreement]

    def of(self, graph: SpatialGraph, value: Value) -> Fields:
        """The union of the fields of a tensor's channels."""
        known = [f for i in graph.share(value) if (f := self.fields[i]) is not None]
        return _union(known, 0), _union(known, 1)


def theory(graph: SpatialGraph, source: Value | None = None) -> Theory:
    """Fields from the input, or from the map of a layer; global context is left out."""
    start = set(graph.share(source)) if source is not None else {0}
    result = Theory([None] * len(graph.nodes), [])
    for i, node in enumerate(graph.nodes):
        if i in start:
            result.fields[i] = (Field(0, 0, 1), Field(0, 0, 1))
        elif node.kind != "context":
            known = [f for s in node.sources if (f := result.fields[s]) is not None]
            if known:
                result.disagreements += _disagree(i, node, known)
                result.fields[i] = (_apply(node, known, 0, graph), _apply(node, known, 1, graph))
    return result


def _union(known: list[Fields], axis: int) -> Field | None:
    parts = [f[axis] for f in known]
    if not parts or any(p is None for p in parts):
        return None
    each = [p for p in parts if p is not None]
    return Field(min(p.first for p in each), max(p.last for p in each), max(p.stride for p in each))


def _disagree(i: int, node: Node, known: list[Fields]) -> list[Disagreement]:
    out = []
    for axis in (0, 1):
        parts = [p for f in known if (p := f[axis]) is not None]
        if len({(p.stride, p.center(0)) for p in parts}) > 1:
            out.append(Disagreement(i, node.layer, "yx"[axis], tuple(parts)))
    return out


def _apply(node: Node, known: list[Fields], axis: int, graph: SpatialGraph) -> Field | None:
    field, step = _union(known, axis), node.axes[axis]
    if isinstance(step, Index) and step.inner is not None:
        step = step.inner
    if field is None or isinstance(step, Index | Expand):
        return None
    if isinstance(step, Full):
        n = graph.nodes[node.sources[0]].size[axis]
        return Field(field.first, field.last + (n - 1) * field.stride, field.stride * n)
    assert isinstance(step, Window)
    first = field.first - step.before * field.stride
    last = field.last + (step.extent - 1 - step.before) * field.stride
    return Field(first, last, field.stride * step.stride)
