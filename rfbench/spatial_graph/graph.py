"""The spatial graph: every class of channels as a node, every operation as a map along each axis.

A node stands for channels with the same spatial history. It is a weighted sum of its sources, to
which one linear map an axis is applied. Everything else (theory, path counts, status) is a pass
over the list of nodes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.spatial_graph.axis import Dense, Expand, names
from rfbench.spatial_graph.draw import Draw
from rfbench.spatial_graph.layout import SPATIAL, Factor, Value, tidy
from rfbench.spatial_graph.node import Node, Opaque, Reach, Witness
from rfbench.spatial_graph.size import Size, by

ALL_INPUTS = "inputs"  # as a source: all of several inputs together


@dataclass(repr=False)
class SpatialGraph:
    """A traced network as nodes in topological order.

    layers: module path -> the tensor it returned (a Value, or Opaque), in order of execution; only
    those that depend on the input. followed: what stands for some of them on the way to the output,
    where it has another form. outputs: what the network returned, by name: 'output', or
    'output.aux', 'output.0'; output: the one that is taken where none is named. target: the layer
    of the last map, '' when there is none. inputs: of several, by name: 'input.0', 'input.1'.
    failure: why the trace ended early. sized: the step after which the network's code knew sizes;
    None: it never did. program: the operations by name. channels: of each input. channels_in: what
    the first convolution or recurrence, channels_by, takes for its channels: the 'input' (its
    channels), 'positions' of it, those of 'one channel' (a frame of a video, where frames stand
    first), 'windows' where it slides over the channels; '': nothing tells.
    draws: of the steps that take part of what is drawn at random, what draws it; chosen: what draws
    numbers that the network's code reads, with the step before.
    """

    size: Size
    nodes: list[Node] = field(default_factory=list)
    layers: dict[str, Value | Opaque] = field(default_factory=dict)
    followed: dict[str, Value] = field(default_factory=dict)
    output: Value | Opaque | None = None
    target: str = ""
    outputs: dict[str, Value | Opaque] = field(default_factory=dict)
    inputs: dict[str, Value] = field(default_factory=dict)
    must_choose: bool = False  # several outputs, and no telling which is meant
    failure: RfbenchError | None = None
    sized: int | None = None
    program: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    channels_in: str = ""
    channels_by: str = ""
    draws: dict[int, Draw] = field(default_factory=dict)
    chosen: dict[Draw, int] = field(default_factory=dict)
    # what was asked for last, and the answer: it stays right, since nodes are only added
    _behind: tuple[frozenset[int], frozenset[int]] | None = field(
        default=None, init=False, compare=False
    )

    def __repr__(self) -> str:
        # in a notebook, all nodes would be hundreds of lines
        to = f", to {self.target}" if self.target else ""
        unit = " px" if len(self.size) == 2 else ""
        return f"SpatialGraph of {by(self.size)}{unit}: {len(self.nodes)} nodes{to}"

    @property
    def letters(self) -> str:
        """The axes as factors name them: 'w', 'hw' or 'dhw'."""
        return SPATIAL[-len(self.size) :]

    @property
    def names(self) -> str:
        """The axes as people name them: 'x', 'yx' or 'zyx'."""
        return names(len(self.size))

    def is_rigid(self, value: Value) -> bool:
        """Whether a tensor may be made in another way at another input size.

        Because a step towards it belongs to this size, or the network's code knew sizes.
        """
        behind = [self.nodes[i] for i in self.ancestors(set(self.share(value)))]
        last = max((n.step for n in behind), default=0)
        return any(n.rigid for n in behind) or (self.sized is not None and last > self.sized)

    def maps(self) -> dict[str, Size]:
        """Layers whose output is a map of positions, with its size."""
        return {name: self.map_size(v) for name, v in self.named().items() if is_map(v)}

    def named(self) -> dict[str, "Value | Opaque"]:
        """All that --to takes: layers, and outputs where there are several."""
        return self.layers | (self.outputs if len(self.outputs) > 1 else {})

    def map_size(self, value: Value | Opaque | None) -> Size:
        """The size of a tensor's map, along every axis."""
        if not isinstance(value, Value):
            raise RfbenchError("this tensor has no map of positions")
        return self.nodes[value.classes.ids[-1]].size

    def layer(self, name: str) -> Value:
        """The map of a layer. Raises UsageError for an unknown one or one without positions."""
        if name == ALL_INPUTS and self.inputs:
            return self.together()
        named = self.inputs | self.outputs | self.layers
        if name not in named:
            if parts := [n for n in named if n.startswith(f"{name}.")]:
                some = ", ".join(parts[:6]) + (", ..." if len(parts) > 6 else "")
                raise UsageError(f"'{name}' has no map of its own: choose one of {some}")
            near = suggest(name, named)
            if self.failure is not None:
                raise type(self.failure)(
                    f"layer '{name}' has not been run, or does not exist.{near} "
                    f"{_ended(self.failure)}{self._last()}"
                )
            raise UsageError(f"unknown layer '{name}'.{near} --list-layers shows all.")
        value = named[name]
        if isinstance(value, Opaque):
            raise RfbenchError(
                f"layer '{name}' has no map of positions: {value.witness}.{self._last()}"
            )
        if len(value.dims) < 3 and not value.spatial:
            raise UsageError(
                f"layer '{name}' has no positions.{self._last()} "
                "--list-layers shows those with some."
            )
        return value

    def together(self) -> Value:
        """All of several inputs as one, of which a field is the union of those of each.

        Positions are those of the largest: one of a smaller input covers several. Raises UsageError
        where that is no whole number.
        """
        every = list(self.inputs.values())
        sizes = [self.map_size(v) for v in every]
        if any(n % m for size in sizes for n, m in zip(self.common_size(), size, strict=True)):
            raise UsageError(
                f"inputs of different sizes ({', '.join(map(by, sizes))}) are taken as one only "
                "where the largest is a multiple of the others"
            )
        labels = np.concatenate([v.labels for v in every], axis=1)
        channels = tidy([Factor("c", labels.shape[1])])
        return Value((every[0].dims[0], channels, *every[0].dims[2:]), labels)

    def common_size(self) -> Size:
        """Of all inputs together: along every axis that of the largest."""
        sizes = [self.map_size(v) for v in self.inputs.values()] or [self.size]
        return tuple(map(max, *sizes)) if len(sizes) > 1 else sizes[0]

    def check_end(self) -> None:
        """Raise where the network's last map is asked for, and there is no telling which it is."""
        if self.failure is not None:
            last = self._last()
            raise type(self.failure)(
                f"{_ended(self.failure)}{last} Choose it with --to." if last else str(self.failure)
            )
        if not self.must_choose:
            return
        some = ", ".join(n for n in self.outputs if is_map(self.outputs[n]))
        if not some and (last := self._last()):
            raise UsageError(
                f"the network has several outputs, and none is a map.{last} Choose it with --to; "
                "in Python: layer="
            )
        raise UsageError(
            "the network has several outputs: choose one with --to "
            f"({some or 'none is a map'}); in Python: layer="
        )

    def _last(self) -> str:
        """The last map, as a sentence."""
        last = next(reversed([n for n, v in self.layers.items() if is_map(v)]), None)
        return f" The last layer with a map is '{last}'." if last else ""

    def share(self, value: Value) -> dict[int, int]:
        """Number of channels behind every node of a tensor."""
        return value.share

    def alike(self, a: int, b: int) -> bool:
        """Whether two nodes are made of the input in the same way: by equal steps."""
        pairs, seen = [(a, b)], set()
        while pairs:
            a, b = (self.plain(i) for i in pairs.pop())
            if a == b or (a, b) in seen:
                continue
            seen.add((a, b))
            one, other = self.nodes[max(a, 0)], self.nodes[max(b, 0)]
            forms = [(n.kind, n.size, n.axes, n.counts, n.channels) for n in (one, other)]
            if min(a, b) < 0 or forms[0] != forms[1] or len(one.sources) != len(other.sources):
                return False
            if not one.sources:
                return False
            pairs += zip(one.sources, other.sources, strict=True)
        return True

    def plain(self, i: int) -> int:
        """The node before activations and other steps that leave all as it was."""
        while i >= 0 and self.nodes[i].kind == "same":
            i = self.nodes[i].sources[0]
        return i

    def ancestors(self, nodes: Iterable[int]) -> frozenset[int]:
        """The nodes that any of these depend on, themselves included."""
        ends = frozenset(nodes)
        if self._behind is None or self._behind[0] != ends:
            seen = set(ends)
            for i in range(max(seen, default=-1), -1, -1):
                if i in seen:
                    seen.update(self.nodes[i].sources)
            self._behind = ends, frozenset(seen)
        return self._behind[1]

    def witness(self, value: Value | Opaque | None) -> Witness:
        """How far a tensor looks, and the first step that made it so."""
        if value is None:
            return Witness(Reach.UNSUPPORTED, "the output", "", "it does not depend on the input")
        if isinstance(value, Opaque):
            return value.witness
        widest = Witness(Reach.LOCAL, "", "")
        along: set[str] = set()  # axes of which windows hold all positions
        for i in sorted(self.ancestors(set(self.share(value)))):
            node = self.nodes[i]
            if node.reach == Reach.WINDOWED:
                along |= self._held(node)
            every = node.reach == Reach.WINDOWED and along == set(self.names)
            reach = Reach.GLOBAL if every else node.reach
            if reach > widest.reach:
                widest = Witness(reach, node.op, node.layer)
        if widest.reach == Reach.WINDOWED:
            return replace(widest, along="".join(name for name in self.names if name in along))
        return widest

    def mixing(self) -> set[int]:
        """The nodes that look farther than windows and global context."""
        found: set[int] = set()
        for i, node in enumerate(self.nodes):
            if node.reach > Reach.CONTEXT or not found.isdisjoint(node.sources):
                found.add(i)
        return found

    def _held(self, node: Node) -> set[str]:
        """The axes along which a node holds one value, of all positions."""
        each = zip(self.names, node.axes, strict=True)
        return {name for name, axis in each if isinstance(axis, Expand)}

    def mixed_axes(self, value: Value | Opaque | None) -> str:
        """The axes along which a tensor depends on all positions: 'x'; '' for none.

        By learned mixing of one axis; `witness` tells of all of them.
        """
        if not isinstance(value, Value):
            return ""
        behind = [self.nodes[i].axes for i in self.ancestors(set(self.share(value)))]
        return "".join(
            name
            for k, name in enumerate(self.names)
            if any(isinstance(axes[k], Dense) for axes in behind)
        )

    def drawn(self, value: Value | Opaque | None) -> tuple[list[Draw], list[Draw]]:
        """What is drawn at random on the way to a tensor: values, and numbers that code reads.

        The numbers did not matter in any of the draws that were tried.
        """
        if not isinstance(value, Value) or not (self.draws or self.chosen):
            return [], []
        steps = {self.nodes[i].step for i in self.ancestors(set(self.share(value)))}
        values = [draw for step, draw in self.draws.items() if step in steps]
        read = [draw for draw, step in self.chosen.items() if step < max(steps)]
        return list(dict.fromkeys(values)), read

    def status(self) -> Witness:
        """The reach of the network: of its last map, or of its output where that looks farther."""
        if self.failure is not None:
            return Witness(Reach.UNSUPPORTED, "the network", "", str(self.failure))
        if self.must_choose:
            return Witness(Reach.UNSUPPORTED, "the network", "", "it has several outputs")
        if isinstance(self.output, Opaque):
            return self.output.witness
        return self.witness(self.named().get(self.target, self.output))


def is_map(value: Value | Opaque | None) -> bool:
    """Whether a tensor still has positions."""
    return isinstance(value, Value) and value.spatial


def too_small(size: Size, layer: str) -> UsageError:
    """The error for an input on which nothing is left of the map."""
    where = f" in layer {layer}" if layer else ""
    return UsageError(f"an input of {by(size)} is too small: nothing is left{where}")


def _ended(error: Exception) -> str:
    """An error as a sentence."""
    return f"{str(error).rstrip('.')}."
