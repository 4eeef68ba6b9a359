"""A graph that was traced at one input size, at another."""

from dataclasses import replace

from rfbench.spatial_graph.axis import Axis, Expand
from rfbench.spatial_graph.graph import SpatialGraph, too_small
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node, Opaque
from rfbench.spatial_graph.size import Size


def resized(graph: SpatialGraph, size: Size, value: Value) -> SpatialGraph | None:
    """The part of a graph behind a tensor that is not rigid, on another input size.

    None where maps meet at that size whose sizes differ: the network has to be asked. Raises
    UsageError where nothing is left of the map.
    """
    if len({graph.map_size(v) for v in graph.inputs.values()}) > 1:
        return None  # each has a size of its own
    behind = graph.ancestors(set(graph.share(value)))
    nodes: list[Node] = []
    for i, node in enumerate(graph.nodes):
        if i not in behind:
            nodes.append(replace(node, sources=()))
            continue
        new = size
        if node.sources:
            if not _meets(node, nodes):
                return None
            axes = tuple(_fit(a, nodes, k) for k, a in enumerate(node.axes))
            old = nodes[node.sources[0]].size
            new = tuple(a.out_size(n) for a, n in zip(axes, old, strict=True))
            node = replace(node, axes=axes)
        if min(new) < 1:
            raise too_small(size, node.layer)
        nodes.append(replace(node, size=new))
    if len({nodes[i].size for i in graph.share(value)}) > 1:
        return None

    def kept(held: dict[str, Value | Opaque]) -> dict[str, Value | Opaque]:
        return {
            name: v
            for name, v in held.items()
            if isinstance(v, Value) and behind.issuperset(graph.share(v))
        }

    layers, outputs = kept(graph.layers), kept(graph.outputs)
    return replace(graph, size=size, nodes=nodes, layers=layers, outputs=outputs)


def _fit(axis: Axis, nodes: list[Node], i: int) -> Axis:
    """A map as the sizes of the graph's other nodes say."""
    return replace(axis, size=nodes[axis.like].size[i]) if isinstance(axis, Expand) else axis


def _meets(node: Node, nodes: list[Node]) -> bool:
    """Whether the sources of a step have one size, and one position where one is expanded."""
    sizes = {nodes[i].size for i in node.sources}
    single = all(
        n == 1
        for a, n in zip(node.axes, nodes[node.sources[0]].size, strict=True)
        if isinstance(a, Expand)
    )
    return len(sizes) == 1 and single
