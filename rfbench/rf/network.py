"""A network and its spatial graphs, recorded as rarely as possible.

One recording serves every layer and unit, and every input size as well unless a step on the way
belongs to one size (TF-same padding, resizing, windows of attention).
"""

from dataclasses import dataclass, field

from torch import nn

from rfbench.rf.graph import Size, SpatialGraph
from rfbench.rf.interpret import spatial_graph
from rfbench.rf.metrics import Geometry, geometry, is_cut, uncut_size
from rfbench.rf.paths import target_map


@dataclass
class Network:
    """A module in evaluation mode; `channels` of its input, found when None."""

    module: nn.Module
    channels: int | None = None
    recorded: dict[Size, SpatialGraph] = field(default_factory=dict)

    def graph(self, size: Size, to: str | None = None) -> SpatialGraph:
        """The spatial graph up to layer `to` (the last map when None) on an input of (H, W)."""
        if size in self.recorded:
            return self.recorded[size]
        for known in self.recorded.values():
            value = target_map(known, to)
            if not known.is_rigid(value):
                return known.resized(size, value)
        self.recorded[size] = spatial_graph(self.module, size, self.channels)
        return self.recorded[size]

    def uncut(
        self, start: Size, to: str | None = None, source: str | None = None
    ) -> tuple[SpatialGraph, Geometry]:
        """The graph and geometry on an input so large that the central unit's field is whole.

        start: the first size to try; a network's own is a good choice, since it runs there.
        """
        graph = self.graph(start, to)
        place = geometry(graph, to, source)
        for _ in range(4):
            units = graph.map_size(target_map(graph, to))
            if not is_cut(place, ((units[0] - 1) // 2, (units[1] - 1) // 2)):
                break
            graph = self.graph(uncut_size(graph, place, units), to)
            place = geometry(graph, to, source)
        return graph, place
