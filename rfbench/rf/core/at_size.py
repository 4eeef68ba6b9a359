"""The shift at an input size: of the maps that the network has at that size, and of no others.

A field that the border cuts has a shift of its own. So the maps are continued beyond the border: on
an input that is larger by whole periods the central unit's field is whole, and its place in the
grid is the same. Windows are continued as they are. A network with other steps (resizing) is traced
on the larger input, which counts only where every step of it is the same there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import nn

from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.rf.core import metrics
from rfbench.rf.core.geometry import uncut_size
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_counts import is_skipped
from rfbench.rf.core.path_map import DEFAULT
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.axis import Axis, Index, Window
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node
from rfbench.spatial_graph.resized import resized
from rfbench.spatial_graph.size import Size
from rfbench.spatial_graph.skeleton import skeleton

Pixels = tuple[float | None, ...]  # along every axis; None where there is no stride


@dataclass
class Shifts:
    """The shift of a layer of a network at any input size.

    own: the layer at a size at which the network runs. layer: the one asked for; None: the last
    map, of a network that has to run to its end.
    """

    network: Network
    own: Target
    layer: str | None = None
    _centers: dict[tuple, Pixels] = field(default_factory=dict, init=False, repr=False)
    _module: nn.Module | None = field(default=None, init=False, repr=False)

    def at(self, size: Size, traced: bool = False) -> Pixels:
        """The shift on an input of a size, along each axis, in source positions.

        The network is traced at the size where its maps may be others there, or if `traced`.
        Raises RfbenchError where the network refuses the size, and where the border cuts the field
        and nothing larger has the same maps.
        """
        if self.layer is None:
            self._check(size)
        if traced:
            self.network.whole(size)
        target = self.network.target(size, self.layer, self.own.source)
        key = _windows(target)
        if key is None:
            center = _center(whole_field(self.network, target))
        elif key in self._centers:
            center = self._centers[key]
        else:
            center = self._centers[key] = _center(whole_field(self.network, target))
        both = zip(center, _half_spares(target), strict=True)
        return tuple(None if c is None or p is None else c + p for c, p in both)

    def _check(self, size: Size) -> None:
        """Raise where the network does not run to its end at a size, as torch says."""
        graph = self.own.graph
        if graph.failure is not None or size == graph.size:
            return
        if isinstance(output := graph.output, Value) and self._ends_in(graph, output):
            larger = resized(graph, size, output)  # raises where nothing is left
            maps = [larger.nodes[i] for i in self.own.ancestors] if larger else []
            if larger is not None and all(prod(n.size) > 1 for n in maps if n.kind != "context"):
                return
        self._run(size)

    def _ends_in(self, graph: SpatialGraph, output: Value) -> bool:
        """Whether a graph holds all that the network does, the same at every size."""
        trace = self.network.traces.get(graph.size)
        if trace is None or trace.forward is None or len(trace.forward) > len(trace.ops):
            return False  # timm's classifiers are not in the graph
        return not graph.is_rigid(output)

    def _run(self, size: Size) -> None:
        """Run the network without values."""
        drawn = self.own.graph.draws or self.own.graph.chosen  # a trace leaves generators alone
        if self.network.inputs is not None or drawn:
            self.network.whole(size).check_end()
            return
        if self._module is None:
            self._module, _ = skeleton(self.network.module)
        number = next((p.dtype for p in self._module.parameters()), torch.float32)
        image = torch.empty((1, self.network.channels or 3, *size), dtype=number, device="meta")
        try:
            with torch.no_grad():
                self._module(image)
        except Exception as error:
            raise UsageError(f"the network refuses it: {one_line(error, 200)}") from error


def whole_field(network: Network, target: Target) -> Target:
    """The target with the same maps on an input on which the central unit's field is whole.

    Raises RfbenchError where there is none: a network that is another one on larger inputs.
    """
    if not target.is_cut:
        return target
    larger = _continued(target)
    if larger is None:
        larger = network.uncut(target)
        if not _alike(target, larger):
            larger = target
    if larger.is_cut:
        raise RfbenchError("the border cuts the field, and larger inputs have other maps")
    return larger


def _continued(target: Target) -> Target | None:
    """Windows alone, on a larger input; None where there are other steps, or nothing meets."""
    nodes = [
        node if i not in target.ancestors else _with_axes(node, map(_inner, node.axes))
        for i, node in enumerate(target.graph.nodes)
    ]
    if any(isinstance(a, Index) for i in target.ancestors for a in nodes[i].axes):
        return None
    endless = replace(target.graph, nodes=nodes)
    larger = target
    for _ in range(4):
        size = uncut_size(larger.graph.size, larger.geometry, larger.units)
        graph = resized(endless, size, target.value)
        if graph is None:
            return None
        larger = Target(graph, target.layer, target.source)
        if _half_spares(larger) != _half_spares(target):
            return None
        if not larger.is_cut:
            break
    return larger


def same_maps(target: Target, other: Target) -> bool:
    """Whether a target at another input size is made by the same steps, with its units as there."""
    windows = _windows(target)
    if windows is None:
        return _alike(target, other)
    return windows == _windows(other) and _half_spares(target) == _half_spares(other)


def _inner(axis: Axis) -> Axis:
    """What a map is everywhere but at the border."""
    return axis.inner if isinstance(axis, Index) and axis.inner is not None else axis


def _with_axes(node: Node, axes: Iterable[Axis]) -> Node:
    return replace(node, axes=tuple(axes))


def _windows(target: Target) -> tuple | None:
    """All that a field of windows alone depends on; None where there are other steps."""
    out = []
    for i in sorted(target.direct):
        node = target.graph.nodes[i]
        if is_skipped(node, DEFAULT):
            continue
        axes = tuple(map(_inner, node.axes))
        if not all(isinstance(a, Window) for a in axes):
            return None
        out.append((i, node.kind, node.sources, node.counts, axes))
    return tuple(out)


def _alike(target: Target, larger: Target) -> bool:
    """Whether every step towards a target is the same on a larger input, and so is its place.

    Global contexts are left out: what they pool grows with the input.
    """
    if len(target.graph.nodes) != len(larger.graph.nodes):
        return False
    if target.direct != larger.direct or _half_spares(target) != _half_spares(larger):
        return False
    for i in target.direct:
        a, b = target.graph.nodes[i], larger.graph.nodes[i]
        if (a.kind, a.sources, a.counts, a.op) != (b.kind, b.sources, b.counts, b.op):
            return False
        for one, other in zip(map(_inner, a.axes), map(_inner, b.axes), strict=True):
            if type(one) is not type(other) or (isinstance(one, Window) and one != other):
                return False
        if target.theory.fields[i] != larger.theory.fields[i]:
            return False
    return True


def _half_spares(target: Target) -> Pixels:
    """((n - 1) S - (H - 1)) / 2 along each axis: by how much a centred grid begins after 0."""
    target.geometry.check_some()
    sides = zip(target.geometry.grid, target.units, target.source_size, strict=True)
    return tuple(
        None if stride is None else float(((units - 1) * stride - (side - 1)) / 2)
        for stride, units, side in sides
    )


def _center(target: Target) -> Pixels:
    """Where unit 0 looks: its centroid, on the mean of the units that take turns."""
    shift = metrics.shift(target.counts(), target.geometry)
    both = zip(shift, _half_spares(target), strict=True)
    return tuple(None if s is None or p is None else s - p for s, p in both)
