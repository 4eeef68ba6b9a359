"""Adds nodes to the spatial graph: position by position, or by summing up.

`combine` adds or multiplies tensors that broadcast, `contract` sums over whole dimensions; windows
are in ops/slide.py. The handlers in ops/ say which operation does which.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import numpy as np

from rfbench.spatial_graph.axis import SAME, Axis, Expand, Full, Index, Window, from_matrix
from rfbench.spatial_graph.broadcast import common_dims, pad_rank
from rfbench.spatial_graph.graph import SpatialGraph, too_small
from rfbench.spatial_graph.layout import (
    CONSTANT,
    SPATIAL,
    Dim,
    Factor,
    Scrambled,
    Slot,
    Value,
    channels,
    channels_in,
    positions,
    solid,
    tidy,
    uniform,
)
from rfbench.spatial_graph.node import Node, Opaque, Reach, Witness
from rfbench.spatial_graph.operations import name_of
from rfbench.spatial_graph.size import Size
from rfbench.spatial_graph.spread import spread

Axes = tuple[Axis, ...]  # a map for each axis


class Builder:
    """Adds nodes to a graph; knows which operation is at work.

    op, layer: its name ("aten.add.Tensor") and the layer that called it. func: itself, to be run.
    out_shape: of its first result. rigid: whether it belongs to this input size only; a handler
    sets it. step: counts the operations. named: the nodes of layers and outputs.
    """

    def __init__(self, size: Size) -> None:
        self.graph = SpatialGraph(size)
        self.letters = self.graph.letters
        self.still: Axes = (SAME,) * len(size)  # the maps that leave positions alone
        self.op = self.layer = ""
        self.func: Any = None
        self.out_shape: tuple[int, ...] = ()
        self.rigid = False
        self.step = 0
        self.named: set[int] = set()
        self.parts: dict[int, tuple[int, int]] = {}  # of complex numbers: real, imaginary
        self._made: dict[tuple, int] = {}
        self._same = {CONSTANT: CONSTANT}  # nodes of the operation that leave all as it was

    def start(self, shape: Sequence[int]) -> Value:
        """The input, 1 x C x the axes: one class of channels."""
        node = self._add(Node("input", (), tuple(shape[2:]), self.still))
        dims = (tidy([Factor(a, n)]) for a, n in zip("c" + self.letters, shape[1:], strict=True))
        return Value(((), *dims), np.full((1, shape[1], *(1 for _ in self.letters)), node))

    def _add(self, node: Node) -> int:
        self.graph.nodes.append(node)
        return len(self.graph.nodes) - 1

    def node(
        self,
        kind: str,
        labels: Sequence[int] | np.ndarray | Mapping[int, int],
        axes: Axes | None = None,
        learned: int = 0,
        reach: Reach = Reach.LOCAL,
        channels: int = 0,
    ) -> int:
        """The node for these source channels; the same one for the same channels within an op.

        labels: one a channel; or how many have each, constant ones left out, of so many `channels`.
        learned: for a sum with weights, how many of them each channel has; 0 for any other.
        """
        if axes is None or axes == self.still:
            axes = self.still
        made = None if axes is self.still else axes
        if isinstance(labels, Mapping):
            counts, total = labels, channels * learned
        else:
            counts = Counter(labels.tolist() if isinstance(labels, np.ndarray) else labels)
            counts.pop(CONSTANT, None)
            total = len(labels) * learned
        if not counts:
            return CONSTANT
        key = (kind, tuple(sorted(counts.items())), total, made, reach)
        if key not in self._made:
            size = self.graph.nodes[min(counts)].size
            if made is not None:
                size = tuple(axis.out_size(m) for axis, m in zip(made, size, strict=True))
                if min(size) < 1:
                    raise too_small(self.graph.size, self.layer)
            call = self.rigid, self.op, self.layer, self.step
            summed = tuple(counts), size, axes, tuple(counts.values()), total
            self._made[key] = self._add(Node(kind, *summed, reach, *call))
        return self._made[key]

    def weighted(self, counts: Mapping[int, int | Fraction], channels: int) -> int:
        """The node of a sum over `channels` channels in which each source takes part so often."""
        if not counts:
            return CONSTANT
        key = ("weighted", tuple(sorted(counts.items())), channels)
        if key not in self._made:
            size = self.graph.nodes[min(counts)].size
            call = self.rigid, self.op, self.layer, self.step
            summed = tuple(counts), size, self.still, tuple(counts.values()), channels
            self._made[key] = self._add(Node("conv", *summed, Reach.LOCAL, *call))
        return self._made[key]

    def begin(self, func: Any, layer: str, out_shape: tuple[int, ...]) -> None:
        """Start an operation: nodes are shared within one, never between two."""
        self.op, self.layer, self.rigid = name_of(func), layer, False
        self.func, self.out_shape = func, out_shape
        self.step += 1
        self._made.clear()
        self._same = {CONSTANT: CONSTANT}

    def takes_channels(self, x: Value, dim: int, over: Sequence[int]) -> None:
        """Note where the first step that says so finds the channels of the input."""
        if not self.graph.channels_in:
            self.graph.channels_in = channels_in(x, dim, over)
            self.graph.channels_by = self.layer or "(the network)"

    def opaque(self, reach: Reach, reason: str = "", if_mixed: Reach | None = None) -> Opaque:
        """The result of the operation at work where its positions are no longer known."""
        return Opaque(Witness(reach, self.op, self.layer, reason), if_mixed)

    def each(self, value: Value, make: Callable[[int], int], dims: tuple | None = None) -> Value:
        """Replace every label by what `make` gives for it."""
        ids = [CONSTANT if i == CONSTANT else make(i) for i in value.classes.ids]
        return value.relabelled(ids, dims or value.dims)

    def moved(
        self,
        value: Value,
        axes: Axes,
        dims: tuple[Dim, ...],
        kind: str = "structure",
        reach: Reach = Reach.LOCAL,
    ) -> Value:
        """A tensor after the same maps for every channel."""
        return self.each(value, lambda i: self.node(kind, [i], axes, reach=reach), dims)

    def same(self, value: Value) -> Value:
        """A tensor of its own with the same history: activations, norms, named outputs."""
        nodes, made = self.graph.nodes, self._same
        call = self.still, (1,), 0, Reach.LOCAL, self.rigid, self.op, self.layer, self.step
        for i in value.classes.ids:
            if i not in made:
                made[i] = len(nodes)
                nodes.append(Node("same", (i,), nodes[i].size, *call))
        return value.relabelled([made[i] for i in value.classes.ids], value.dims)

    def is_new(self, value: Value) -> bool:
        """Whether all its nodes are of the operation at work."""
        nodes, step = self.graph.nodes, self.step
        return all([nodes[i].step == step for i in value.share])

    # -- sums over whole dimensions ---------------------------------------------------------------

    def contract(
        self, value: Value, over: Sequence[int], kind: str = "conv", divide: str = ""
    ) -> Value:
        """Sum over dimensions; each is left with size 1. Positions in them become a window.

        kind 'conv': a learned sum over channels; 'pool': means and norms; 'sum': every term once.
        """
        for i in over:
            value = solid(value, i)
        axes: list[Axis] = []
        steps: dict[Slot, int] = {}
        for axis in range(len(self.letters)):
            made, more = self._reduced_axis(value, over, axis, divide)
            axes.append(made)
            steps |= more
        dims = tuple(
            tuple(f._replace(step=steps.get((i, j), f.step)) for j, f in enumerate(d))
            if i not in over
            else ()
            for i, d in enumerate(value.dims)
        )
        rows = np.moveaxis(value.labels, over, range(-len(over), 0))
        keep = rows.shape[: rows.ndim - len(over)]
        rows = rows.reshape(*keep, -1)
        if kind == "pool" and (rows == rows[..., :1]).all():
            rows = rows[..., :1]
        learned = int(kind == "pool" and rows.shape[-1] > 1)
        if kind == "conv":  # a weight for every position of every channel
            learned = prod(f.size for i in over for f in value.dims[i] if f.axis in SPATIAL)
            self.rigid |= learned > 1
        new = self.mixed(rows, lambda r: self.node(kind, r, tuple(axes), learned))
        return Value(dims, np.expand_dims(new, tuple(over)))

    def on_axis(self, axis: int, made: Axis) -> Axes:
        """One of the maps `made`, the others the identity."""
        return (*self.still[:axis], made, *self.still[axis + 1 :])

    def mixed(self, rows: np.ndarray, make: Callable[[np.ndarray], int]) -> np.ndarray:
        """One node for every distinct multiset of labels along the last axis."""
        flat = rows.reshape(-1, rows.shape[-1])
        if (flat == flat[:1]).all():
            return np.full(rows.shape[:-1], make(flat[0]))
        flat = np.sort(flat, axis=1)
        unique, inverse = np.unique(flat, axis=0, return_inverse=True)
        return np.array([make(r) for r in unique])[inverse.reshape(-1)].reshape(rows.shape[:-1])

    def _reduced_axis(
        self, value: Value, over: Sequence[int], axis: int, divide: str
    ) -> tuple[Axis, dict[Slot, int]]:
        """The map along one axis that sums over its factors in `over`, and the new steps of the
        factors that are kept, by their slots."""
        slots = value.slots(self.letters[axis])
        summed = [f for slot, f in slots.items() if slot[0] in over]
        if not summed:
            return SAME, {}
        kept = [(slot, f) for slot, f in slots.items() if slot[0] not in over]
        kept.sort(key=lambda item: -item[1].step)
        at = np.add.outer(positions([f for _, f in kept]), positions(summed))
        n = self._size(value)[axis]
        if kept:
            self.rigid = True
        steps, inner = {}, 1
        for slot, f in reversed(kept):
            steps[slot] = inner
            inner *= f.size
        made = from_matrix(np.sort(at, axis=1), n)
        if divide and isinstance(made, Full | Window):
            made = replace(made, divide="taps")
        elif divide and isinstance(made, Index):
            made = replace(made, weights=np.full(made.at.shape, 1 / made.at.shape[1]))
        return made, steps

    def _size(self, value: Value) -> Size:
        return self.graph.map_size(value)

    # -- position by position ---------------------------------------------------------------------

    def combine(
        self,
        values: Sequence[Value],
        kind: str = "sum",
        mixing: Reach = Reach.CONTEXT,
        partial: Reach = Reach.WINDOWED,
    ) -> Value:
        """Add or multiply tensors that broadcast against each other.

        A tensor that lacks an axis is expanded along it. mixing: what that makes of the network:
        a context in element-wise operations, global in a product of matrices (attention), or
        `partial` where it keeps positions along another axis. partial: the same for a tensor that
        holds one value a window.
        """
        dims, moved = self.meet(values, mixing, partial)
        form = [channels(d) for d in dims]
        whole = tuple(tidy(list(d)) for d in dims)
        if all(len(v.classes.ids) == 1 for v in values):
            return uniform(whole, form, self.node(kind, [int(m.flat[0]) for m in moved]))
        stacked = np.stack([np.broadcast_to(v, form) for v in moved], axis=-1)
        return Value(whole, self.mixed(stacked, lambda r: self.node(kind, r)))

    def _alike(self, values: Sequence[Value], apart: int | None) -> bool:
        """Whether all stand for the same positions in the same order; apart: see `meet`."""
        forms = {tuple(d for i, d in enumerate(v.dims) if i != apart) for v in values}
        return len(forms) == 1 and len({self._size(v) for v in values}) == 1

    def meet(
        self,
        values: Sequence[Value],
        mixing: Reach = Reach.CONTEXT,
        partial: Reach = Reach.WINDOWED,
        apart: int | None = None,
    ) -> tuple[list[Dim], list[np.ndarray]]:
        """The common dimensions of several tensors, and the labels of each moved to them.

        apart: a dimension in which they need not agree (concatenation).
        """
        if self._alike(values, apart):
            first = enumerate(values[0].dims)
            return [() if i == apart else d for i, d in first], [v.labels for v in values]
        rank = max(len(v.dims) for v in values)
        values = [pad_rank(v, rank) for v in values]
        if mixing == Reach.CONTEXT:
            values = [self._spread(v, values, apart) for v in values]
        dims, values, clash = common_dims(values, apart)
        if clash:
            mixing = Reach.GLOBAL
        refs = [self._reference(values, dims, axis, clash) for axis in self.letters]
        slots: dict[Slot, Factor] = {}
        for ref, axis in zip(refs, self.letters, strict=True):
            slots |= ref.slots(axis)
        dims = [tuple(slots.get((i, j), f) for j, f in enumerate(d)) for i, d in enumerate(dims)]
        return dims, [self._aligned(v, refs, mixing, partial) for v in values]

    def _spread(self, value: Value, others: Sequence[Value], apart: int | None) -> Value:
        """An operand with whole axes in place of copies where another has such an axis."""
        for i, n in enumerate(value.shape):
            if len(value.dims[i]) < 2:
                continue  # copies among the positions of an axis are a factor of their own
            axes = [v.dims[i] for v in others if len(v.dims[i]) == 1 and v.dims[i][0].size == n]
            if i != apart and any(d[0].axis in SPATIAL for d in axes):
                value = spread(self, value, i)
        return value

    def _reference(
        self, values: Sequence[Value], dims: Sequence[Dim], name: str, clash: bool
    ) -> Value:
        """The operand whose positions along an axis the result takes."""
        counted = [prod(f.size for f in v.factors(name)) for v in values]
        most = max(range(len(values)), key=lambda i: (counted[i], sum(map(len, values[i].dims))))
        if counted[most] != prod(f.size for d in dims for f in d if f.axis == name):
            channels = "channels, which a layer has taken for positions, meet positions"
            raise Scrambled(channels if clash else "every position meets every other")
        return values[most]

    def _aligned(
        self, value: Value, refs: Sequence[Value], mixing: Reach, partial: Reach
    ) -> np.ndarray:
        """Labels of an operand, moved to the positions of the references."""
        axes: list[Axis] = []
        reach = Reach.LOCAL
        if mixing == Reach.GLOBAL and value.spatial:  # attention along some axes, or in windows
            mixing = partial
        for axis, (ref, name) in enumerate(zip(refs, self.letters, strict=True)):
            mine, theirs = value.slots(name), ref.slots(name)
            n, size = self._size(value)[axis], self._size(ref)[axis]
            if mine == theirs and n == size:
                axes.append(SAME)
            elif not mine and n == 1:
                axes.append(Expand(size, int(ref.labels.max())))
                reach = max(reach, mixing)
            else:
                axes.append(self._reindexed(mine, theirs, n, size))
                if mine.keys() != theirs.keys():
                    reach = max(reach, partial)
        maps = tuple(axes)
        if maps == self.still:
            return value.labels
        kind = "context" if reach else "structure"
        return self.each(value, lambda i: self.node(kind, [i], maps, reach=reach)).labels

    def _reindexed(
        self, mine: dict[Slot, Factor], theirs: dict[Slot, Factor], n: int, size: int
    ) -> Axis:
        """For every position of the reference, the position of an operand with other steps."""
        self.rigid = True
        if not mine or not mine.keys() <= theirs.keys():
            raise Scrambled("positions meet that are not the same")
        at = np.full(size, -1)
        grid = list(product(*(range(f.size) for f in theirs.values())))
        for indices in grid:
            index = dict(zip(theirs, indices, strict=True))
            position = sum(index[k] * f.step for k, f in theirs.items())
            source = sum(index[k] * f.step for k, f in mine.items())
            if at[position] not in (-1, source):
                raise Scrambled("overlapping windows meet positions")
            at[position] = source
        return from_matrix(at[:, None], n)
