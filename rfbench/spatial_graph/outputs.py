"""What a network is asked for where nothing is named: which output, and which map."""

import numpy as np

from rfbench.spatial_graph.graph import SpatialGraph, is_map
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node, Opaque, Reach, Witness
from rfbench.spatial_graph.operations import Trace


def whole_output(graph: SpatialGraph, output: Value | Opaque | None) -> Value | Opaque | None:
    """An output, opaque where it is no vector and has no positions of the input.

    As a map that is laid out from a vector (an autoencoder's), or one that was put together entry
    by entry, by a loop over positions: a map before it would not be what the network is asked for.
    Heads of their own widths over one vector are no loop: nothing picks single positions there.
    """
    if not isinstance(output, Value) or output.spatial or sum(n > 1 for n in output.shape) < 2:
        return output
    if 1 < len(graph.size) == len(output.shape) - 2 and min(output.shape[2:]) > 1:
        reason = "it is laid out from a vector: each of its positions may see the whole input"
        return Opaque(Witness(Reach.GLOBAL, "the output", "", reason))
    behind = [graph.nodes[i] for i in graph.ancestors(set(graph.share(output)))]
    if not any(node.kind == "structure" and _picks(graph, node) for node in behind):
        return output
    for dim in range(len(output.dims)):
        rows = np.moveaxis(output.labels, dim, 0).reshape(output.labels.shape[dim], -1)
        first = rows[0].tolist()
        for row in np.unique(rows, axis=0).tolist():
            if not all(graph.alike(a, b) for a, b in zip(first, row, strict=True)):
                reason = f"its entries along dimension {dim} were made one by one"
                return Opaque(Witness(Reach.UNSUPPORTED, "the output", "", reason))
    return output


def _picks(graph: SpatialGraph, node: Node) -> bool:
    """Whether a step keeps a single position of an axis that has more."""
    before = graph.nodes[node.sources[0]].size
    return any(m == 1 < n for m, n in zip(node.size, before, strict=True))


def main_output(trace: Trace) -> str | None:
    """The output that a network is asked for where none is named; None: there is no telling.

    The only one; 'out' or 'logits'; of timm's feature maps the last.
    """
    names = list(trace.outputs)
    if len(names) == 1 or (names and trace.feature_maps):
        return names[-1]
    return next((n for n in ("output.out", "output.logits") if n in names), None)


def last_map(graph: SpatialGraph) -> str:
    """The layer of the last map: the output, or of vectors what lies ahead of adaptive pooling.

    '' where the output is itself a map of no layer, or no layer has a map.
    """
    if not isinstance(graph.output, Value):
        return ""
    whole = set(graph.share(graph.output)) if is_map(graph.output) else set()
    ends = bool(whole)  # the output itself is the last map
    open_ = graph.ancestors(set(graph.share(graph.output)))
    if not ends:
        open_ &= _ahead_of_pooling(graph)
    last, newest = "", -1
    for name, value in graph.layers.items():
        if isinstance(value, Value) and is_map(value):
            share = graph.share(value).keys()
            if ends and share != whole:
                continue
            if share and max(share) >= newest and open_.issuperset(share):
                last, newest = name, max(share)
    return last


def _ahead_of_pooling(graph: SpatialGraph) -> set[int]:
    """The nodes that the input reaches past adaptive pooling."""
    ahead: set[int] = set()
    for i, node in enumerate(graph.nodes):
        start = node.kind == "input"
        if node.kind != "adaptive" and (start or not ahead.isdisjoint(node.sources)):
            ahead.add(i)
    return ahead
