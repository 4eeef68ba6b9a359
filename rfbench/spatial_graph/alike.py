"""Whether tensors of two graphs are made of the input in the same way."""

from collections.abc import Iterable

import numpy as np

from rfbench.spatial_graph.axis import Axis, Expand, Index
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import CONSTANT, Value
from rfbench.spatial_graph.node import Opaque

Named = dict[str, Value | Opaque]


class Forms:
    """Numbers for what nodes do: the same in all graphs for the same steps from the input."""

    def __init__(self) -> None:
        self._numbers: dict[tuple, int] = {}

    def of(self, graph: SpatialGraph, named: Named) -> dict[str, tuple]:
        """What each tensor is, by name; equal for those that are made in the same way."""
        nodes = self._nodes(graph)

        def form(value: Value | Opaque) -> tuple:
            if isinstance(value, Opaque):
                return (value.witness.reach, value.witness.along)
            labels = np.append(nodes, CONSTANT)[value.labels]
            return value.dims, labels.shape, labels.tobytes()

        return {name: form(value) for name, value in named.items()}

    def _nodes(self, graph: SpatialGraph) -> np.ndarray:
        found: list[int] = []
        for node in graph.nodes:
            if node.kind == "same":  # activations, names
                found.append(found[node.sources[0]])
                continue
            counts = node.counts or (1,) * len(node.sources)
            summed = sorted(zip((found[i] for i in node.sources), counts, strict=True))
            axes = tuple(map(_axis, node.axes))
            which = 0 if node.sources else len(found)  # of several inputs
            key = (node.kind, which, node.size, tuple(summed), axes, node.channels, node.reach)
            found.append(self._numbers.setdefault(key, len(self._numbers)))
        return np.array(found, int)


def _axis(axis: Axis) -> tuple:
    if isinstance(axis, Expand):  # `like` is the number of a node
        return "expand", axis.size
    if not isinstance(axis, Index):
        return ("axis", axis)
    weights = () if axis.weights is None else axis.weights.tobytes()
    own = axis.inner, axis.period, axis.phases
    return "index", axis.at.shape, axis.at.astype(int).tobytes(), weights, own


def differing(graph: SpatialGraph, others: Iterable[SpatialGraph]) -> set[str]:
    """The layers and outputs that are not made in the same way in all graphs.

    A layer that another has not run is no such, a missing output is.
    """
    forms = Forms()
    mine = forms.of(graph, graph.layers), forms.of(graph, graph.outputs)
    apart: set[str] = set()
    for other in others:
        theirs = forms.of(other, other.layers), forms.of(other, other.outputs)
        apart |= {n for n, form in mine[0].items() if theirs[0].get(n, form) != form}
        apart |= {n for n, form in mine[1].items() if theirs[1].get(n) != form}
    return apart
