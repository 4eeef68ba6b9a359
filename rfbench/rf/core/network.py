"""A network and its spatial graphs, traced as rarely as possible.

One trace serves every layer and unit. It serves other input sizes as well where the network's code
never learnt a size and no step on the way belongs to one (TF-same padding, resizing, windows of
attention): then the operations are the same. Otherwise the network is traced at each size.
"""

import contextlib
import gc
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.cost import Cost, cost
from rfbench.rf.core.geometry import uncut_size
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.call import Call
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.inputs import trace_as_fits
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.operations import Trace
from rfbench.spatial_graph.order import not_first
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.resized import resized
from rfbench.spatial_graph.size import Shape, Size, by
from rfbench.spatial_graph.splice import spliced
from rfbench.spatial_graph.trace import input_channels, trace_module

log = logging.getLogger(__name__)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """A garbage collection goes through all of torch's objects, longer than a recording takes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass
class Network:
    """A module in evaluation mode.

    native: the input size (of every axis) that it is meant for; its last map there is the last map
    at any size. channels: of the input; None: as the network says or takes. inputs: (C, H, W) of
    each of several maps, in place of both. call: how the user's own network is called, of which
    `module` takes maps with the channels first and nothing else.
    """

    module: nn.Module
    native: Size = (224, 224)
    channels: int | None = None
    inputs: list[Shape] | None = None
    graphs: dict[Size, SpatialGraph] = field(default_factory=dict)
    traces: dict[Size, Trace] = field(default_factory=dict)
    call: Call = field(default_factory=Call)
    noted: bool = False  # that it fails
    before: "Network | None" = None  # that it is, but for the layers `changed`
    changed: Sequence[str] = ()

    def with_layers(self, module: nn.Module, changed: Sequence[str]) -> "Network":
        """A copy of its module in which some layers have changed.

        What has been traced of this network then serves that one too, where it may.
        """
        new = replace(self, module=module, graphs={}, traces={}, before=self, changed=changed)
        new.channels = None if self.inputs else self.channels
        return new

    def graph(self, size: Size, layer: str | None = None) -> SpatialGraph:
        """The spatial graph up to a layer (the last map when None) on an input of (H, W).

        Raises what made the network fail ahead of its last map, or ahead of the layer.
        """
        graph = self._graph(size, layer)
        if layer is None:
            graph.check_end()
        elif graph.failure is not None:
            graph.layer(layer)
            if not self.noted:
                log.warning(f"what lies behind is not measured: {graph.failure}")
            self.noted = True
        return graph

    def whole(self, size: Size) -> SpatialGraph:
        """All that could be traced on an input of (H, W): every layer, every output."""
        if not self.graphs and size != self.native:
            self._graph(size, None)
        return self.graphs[size] if size in self.graphs else self._build(size)

    def _graph(self, size: Size, layer: str | None) -> SpatialGraph:
        if not self.graphs and size != self.native:
            with contextlib.suppress(RfbenchError):  # own networks may run at `size` only
                self._build(self.native)
        if size in self.graphs:
            return self.graphs[size]
        for known in self.graphs.values():
            value = known.named().get(layer if layer is not None else known.target)
            if known.failure is not None and layer is None:
                continue
            if isinstance(value, Value) and not known.is_rigid(value):
                other = resized(known, size, value)
                if other is not None:
                    return other
        return self._build(size)

    def _build(self, size: Size) -> SpatialGraph:
        with _without_collection():
            graph = read(self._trace(size))
        if self.inputs is None and graph.channels_in == "positions":
            raise not_first(graph)
        first = next(iter(self.graphs.values()), graph)
        if list(graph.named()) == list(first.named()):  # not where a loop ran longer
            graph.target = first.target
        self.graphs[size] = graph
        return graph

    def _trace(self, size: Size) -> Trace:
        if size not in self.traces and (trace := self._spliced(size)) is not None:
            self.traces[size] = trace
        if size not in self.traces:
            if self.inputs is None and self.channels is None:
                trace = trace_as_fits(self.module, size)
                self.channels = next(trace.shapes[i][1] for i in trace.inputs.values())
            else:
                trace = trace_module(self.module, size, self.channels, self._shapes(size))
            self.traces[size] = trace
        return self.traces[size]

    def _spliced(self, size: Size) -> Trace | None:
        if self.before is None or size not in self.before.traces:
            return None
        was, now = self.before.module.get_submodule, self.module.get_submodule
        layers = {name: (was(name), now(name)) for name in self.changed}
        return spliced(self.before.traces[size], self.before.module, layers)

    def _shapes(self, size: Size) -> list[Shape] | None:
        """The shapes of several maps where the first has a size: the others in proportion."""
        if self.inputs is None:
            return None
        (_, *own), shapes = self.inputs[0], []
        if size == tuple(own):
            return self.inputs
        for channels, *other in self.inputs:
            new = [n * to / at for n, to, at in zip(other, size, own, strict=True)]
            if any(n % 1 for n in new):
                raise UsageError(f"the inputs do not keep their proportions at {by(size)}")
            shapes.append((channels, *map(int, new)))
        return shapes

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
            channels = self.channels or input_channels(self.module, len(size))
            each = self.cost(size).activations + 2 * channels * prod(size)  # and its gradient
            return number * (weights + images * each)
        return 0

    def target(self, size: Size, layer: str | None = None, source: str | None = None) -> Target:
        """A layer, seen from a source, on an input of (H, W)."""
        return Target(self.graph(size, layer), layer, source)

    def larger(self, target: Target, size: Size) -> Target:
        """The same on an input of `size`, or larger where the network fails on that one.

        Then in multiples of the size of `target`: they halve as often as that does.
        """
        try:
            return self.target(size, target.layer, target.source)
        except RfbenchError:
            own = target.graph.size
            multiple = tuple(-(-n // one) * one for n, one in zip(size, own, strict=True))
            if multiple not in (size, own):
                with contextlib.suppress(RfbenchError):
                    return self.target(multiple, target.layer, target.source)
            raise

    def uncut(self, target: Target) -> Target:
        """The same on an input so large that the central unit's field is whole.

        target: at the first size to try; a network's own is a good choice, since it runs there. It
        is returned where its field is cut at every size.
        """
        for _ in range(4):
            if not target.is_cut or target.is_always_cut:
                break
            size = uncut_size(target.graph.size, target.geometry, target.units)
            larger = self.larger(target, size)
            if target.graph.sized is not None and larger.graph.program != target.graph.program:
                break  # another network at that size
            target = larger
        return target
