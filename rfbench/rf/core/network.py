"""A network and its spatial graphs, traced as rarely as possible.

One trace serves every layer and unit, and every input size as well unless a step on the way
belongs to one size (TF-same padding, resizing, windows of attention).
"""

import contextlib
from dataclasses import dataclass, field
from math import prod

from torch import nn

from rfbench.errors import RfbenchError
from rfbench.rf.core.cost import Cost, cost
from rfbench.rf.core.geometry import uncut_size
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.graph import Size, SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.trace import Trace, input_channels, trace_module


@dataclass
class Network:
    """A module in evaluation mode.

    native: the input size (H, W) that it is meant for; its last map there is the last map at any
    size. channels: of the input; None: as the network or its first convolution says.
    """

    module: nn.Module
    native: Size = (224, 224)
    channels: int | None = None
    graphs: dict[Size, SpatialGraph] = field(default_factory=dict)
    traces: dict[Size, Trace] = field(default_factory=dict)

    def graph(self, size: Size, layer: str | None = None) -> SpatialGraph:
        """The spatial graph up to a layer (the last map when None) on an input of (H, W)."""
        if not self.graphs and size != self.native:
            with contextlib.suppress(RfbenchError):  # own networks may run at `size` only
                self._build(self.native)
        if size in self.graphs:
            return self.graphs[size]
        for known in self.graphs.values():
            value = known.layers.get(layer if layer is not None else known.target)
            if isinstance(value, Value) and not known.is_rigid(value):
                return known.resized(size, value)
        return self._build(size)

    def _build(self, size: Size) -> SpatialGraph:
        graph = read(self._trace(size))
        first = next(iter(self.graphs.values()), graph)
        graph.target = first.target if first.target in graph.layers else graph.target
        self.graphs[size] = graph
        return graph

    def _trace(self, size: Size) -> Trace:
        if size not in self.traces:
            self.traces[size] = trace_module(self.module, size, self.channels)
        return self.traces[size]

    def cost(self, size: Size) -> Cost:
        """What an image of (H, W) costs, classifier included; RfbenchError where it has none."""
        return cost(self._trace(size))

    def memory(self, size: Size, images: int, number: int = 4) -> int:
        """The bytes, at least, that a pass forward and back keeps; 0 where they cannot be told.

        number: bytes of a number. Between a third of what is needed (EfficientNet: norms and
        activations keep theirs too) and nearly all (VGG).
        """
        with contextlib.suppress(RfbenchError):
            weights = sum(p.numel() for p in self.module.parameters())
            channels = self.channels or input_channels(self.module)
            each = self.cost(size).activations + 2 * channels * prod(size)  # and its gradient
            return number * (weights + images * each)
        return 0

    def target(self, size: Size, layer: str | None = None, source: str | None = None) -> Target:
        """A layer, seen from a source, on an input of (H, W)."""
        return Target(self.graph(size, layer), layer, source)

    def uncut(self, target: Target) -> Target:
        """The same on an input so large that the central unit's field is whole.

        target: at the first size to try; a network's own is a good choice, since it runs there.
        """
        for _ in range(4):
            if not target.is_cut:
                break
            size = uncut_size(target.graph.size, target.geometry, target.units)
            target = self.target(size, target.layer, target.source)
        return target
