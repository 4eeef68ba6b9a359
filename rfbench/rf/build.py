"""From a recording to the spatial graph: three ways to make a node.

`combine` adds or multiplies tensors position by position, `contract` sums over whole dimensions,
`slide` moves a window. The table in ops.py says which aten operation does which.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import product
from math import prod

import numpy as np

from rfbench.rf.axis import SAME, Axis, Expand, Full, Window, from_matrix
from rfbench.rf.graph import Node, Reach, Size, SpatialGraph, too_small
from rfbench.rf.layout import CONSTANT, Dim, Factor, Scrambled, Value, channels, solid, split, tidy


class Builder:
    """Adds nodes to a graph; remembers which operation and layer is at work."""

    def __init__(self, size: Size) -> None:
        self.graph = SpatialGraph(size)
        self.op = self.layer = ""
        self.rigid = False  # whether the step at work belongs to this input size only
        self._made: dict[tuple, int] = {}

    def start(self, shape: Sequence[int]) -> Value:
        """The input, 1 x C x H x W: one class of channels."""
        node = self._add(Node("input", (), (shape[2], shape[3])))
        dims = ((), tidy([Factor("c", shape[1])]))
        dims += (tidy([Factor("h", shape[2])]), tidy([Factor("w", shape[3])]))
        return Value(dims, np.full((1, shape[1], 1, 1), node))

    def _add(self, node: Node) -> int:
        self.graph.nodes.append(node)
        return len(self.graph.nodes) - 1

    def node(
        self,
        kind: str,
        labels: Sequence[int],
        axes: tuple[Axis, Axis] = (SAME, SAME),
        learned: int = 0,
        reach: Reach = Reach.LOCAL,
    ) -> int:
        """The node for these source channels; the same one for the same channels within an op.

        learned: for a sum with weights, how many of them each channel has; 0 for any other.
        """
        counts = Counter(int(i) for i in labels)
        total = counts.total() * learned
        counts.pop(CONSTANT, None)
        if not counts:
            return CONSTANT
        key = (kind, tuple(sorted(counts.items())), total, axes, reach)
        if key not in self._made:
            n = self.graph.nodes[min(counts)].size
            size = (axes[0].out_size(n[0]), axes[1].out_size(n[1]))
            if min(size) < 1:
                raise too_small(self.graph.size, self.layer)
            self._made[key] = self._add(
                Node(
                    kind,
                    tuple(counts),
                    size,
                    *axes,
                    tuple(counts.values()),
                    total,
                    reach,
                    self.rigid,
                    self.op,
                    self.layer,
                )
            )
        return self._made[key]

    def begin(self, op: str, layer: str) -> None:
        """Start an operation: nodes are shared within one, never between two."""
        self.op, self.layer, self.rigid = op, layer, False
        self._made.clear()

    def each(self, value: Value, make: Callable[[int], int], dims: tuple | None = None) -> Value:
        """Replace every label by what `make` gives for it."""
        unique, inverse = np.unique(value.labels, return_inverse=True)
        new = np.array([CONSTANT if i == CONSTANT else make(int(i)) for i in unique])
        return Value(dims or value.dims, new[inverse].reshape(value.labels.shape))

    def same(self, value: Value) -> Value:
        """A tensor of its own with the same history: activations, norms, named outputs."""
        return self.each(value, lambda i: self.node("same", [i]))

    # -- sums over whole dimensions ---------------------------------------------------------------

    def contract(self, value: Value, over: Sequence[int], kind: str = "conv", divide: str = ""):
        """Sum over dimensions; each is left with size 1. Positions in them become a window.

        kind 'conv': a learned sum over channels; 'pool': means and norms; 'sum': every term once.
        """
        for i in over:
            value = solid(value, i)
        dims = tuple(() if i in over else d for i, d in enumerate(value.dims))
        axes, steps = [], {}
        for axis, name in enumerate("hw"):
            made, kept = self._reduced_axis(value, over, name, axis, divide)
            axes.append(made)
            steps[name] = kept
        if axes[0] != SAME or axes[1] != SAME:
            dims = tuple(tuple(self._restep(f, steps) for f in d) for d in dims)
        rows = np.moveaxis(value.labels, over, range(-len(over), 0))
        keep = rows.shape[: rows.ndim - len(over)]
        rows = rows.reshape(*keep, -1)
        if kind == "pool" and (rows == rows[..., :1]).all():
            rows = rows[..., :1]
        learned = int(kind == "pool" and rows.shape[-1] > 1)
        if kind == "conv":  # a weight for every position of every channel
            learned = prod(f.size for i in over for f in value.dims[i] if f.axis in "hw")
        new = self.mixed(rows, lambda r: self.node(kind, r, tuple(axes), learned))
        return Value(dims, np.expand_dims(new, tuple(over)))

    @staticmethod
    def on_axis(axis: int, made: Axis) -> tuple[Axis, Axis]:
        """(y, x) with one of them `made`, the other the identity."""
        return (made, SAME) if axis == 0 else (SAME, made)

    @staticmethod
    def _restep(f: Factor, steps: dict[str, dict[int, int]]) -> Factor:
        return f._replace(step=steps[f.axis][f.step]) if steps.get(f.axis) else f

    def mixed(self, rows: np.ndarray, make: Callable[[np.ndarray], int]) -> np.ndarray:
        """One node for every distinct multiset of labels along the last axis."""
        flat = rows.reshape(-1, rows.shape[-1])
        if (flat == flat[:1]).all():
            return np.full(rows.shape[:-1], make(flat[0]))
        flat = np.sort(flat, axis=1)
        unique, inverse = np.unique(flat, axis=0, return_inverse=True)
        return np.array([make(r) for r in unique])[inverse.reshape(-1)].reshape(rows.shape[:-1])

    def _reduced_axis(
        self, value: Value, over: Sequence[int], name: str, axis: int, divide: str
    ) -> tuple[Axis, dict[int, int]]:
        """The map along one axis that sums over its factors in `over`, and the kept factors' new
        steps by their old ones."""
        gone = [f for i in over for f in value.dims[i] if f.axis == name]
        if not gone:
            return SAME, {}
        kept = [f for i, d in enumerate(value.dims) if i not in over for f in d if f.axis == name]
        kept.sort(key=lambda f: -f.step)
        at = np.add.outer(_positions(kept), _positions(gone))
        n = self._size(value)[axis]
        if kept:
            self.rigid = True
        steps, inner = {}, 1
        for f in reversed(kept):
            steps[f.step] = inner
            inner *= f.size
        made = from_matrix(np.sort(at, axis=1), n)
        if divide and isinstance(made, Full):
            made = Full(divide)
        elif divide and isinstance(made, Window):
            made = Window(
                made.kernel, made.stride, made.before, made.after, made.dilation, divide="kernel"
            )
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
        a context in element-wise operations, global in a product of matrices (attention). partial:
        the same for a tensor that holds one value a window.
        """
        dims, moved = self.meet(values, mixing, partial)
        form = [channels(d) for d in dims]
        stacked = np.stack([np.broadcast_to(v, form) for v in moved], axis=-1)
        labels = self.mixed(stacked, lambda r: self.node(kind, r))
        return Value(tuple(tidy(list(d)) for d in dims), labels)

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
        rank = max(len(v.dims) for v in values)
        values = [_pad_rank(v, rank) for v in values]
        dims, values, clash = _common_dims(values, apart)
        if clash:
            mixing = Reach.GLOBAL
        refs = [self._reference(values, dims, axis) for axis in (0, 1)]
        places = _by_place(refs[0], "h") | _by_place(refs[1], "w")
        dims = [tuple(places.get((i, j), f) for j, f in enumerate(d)) for i, d in enumerate(dims)]
        return dims, [self._aligned(v, refs, mixing, partial) for v in values]

    def _reference(self, values: Sequence[Value], dims: Sequence[Dim], axis: int) -> Value:
        """The operand whose positions along an axis the result takes."""
        best = max(values, key=lambda v: (prod(f.size for f in v.factors("hw"[axis])), _size(v)))
        wanted = prod(f.size for d in dims for f in d if f.axis == "hw"[axis])
        if prod(f.size for f in best.factors("hw"[axis])) != wanted:
            raise Scrambled("every position meets every other")
        return best

    def _aligned(
        self, value: Value, refs: Sequence[Value], mixing: Reach, partial: Reach
    ) -> np.ndarray:
        """Labels of an operand, moved to the positions of the references."""
        axes: list[Axis] = []
        reach = Reach.LOCAL
        for axis, (ref, name) in enumerate(zip(refs, "hw", strict=True)):
            mine, theirs = _by_place(value, name), _by_place(ref, name)
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
        if axes == [SAME, SAME]:
            return value.labels
        kind = "context" if reach else "structure"
        both = (axes[0], axes[1])
        return self.each(value, lambda i: self.node(kind, [i], both, reach=reach)).labels

    def _reindexed(self, mine: dict, theirs: dict, n: int, size: int) -> Axis:
        """For every position of the reference, the position of an operand with other steps."""
        self.rigid = True
        if not mine.keys() <= theirs.keys():
            raise Scrambled("positions meet that are not the same")
        at = np.full(size, -1)
        grid = list(product(*(range(f.size) for f in theirs.values())))
        for indices in grid:
            place = dict(zip(theirs, indices, strict=True))
            here = sum(place[k] * f.step for k, f in theirs.items())
            there = sum(place[k] * f.step for k, f in mine.items())
            if at[here] not in (-1, there):
                raise Scrambled("overlapping windows meet positions")
            at[here] = there
        return from_matrix(at[:, None], n)

    # -- windows ----------------------------------------------------------------------------------

    def slide(self, value: Value, windows: Mapping[int, Axis], kind: str) -> Value:
        """Apply a map along each of the dimensions given; each must hold one whole axis."""
        axes, dims = self.along(value, windows)
        return self.each(value, lambda i: self.node(kind, [i], axes), dims)

    def along(
        self, value: Value, windows: Mapping[int, Axis]
    ) -> tuple[tuple[Axis, Axis], tuple[Dim, ...]]:
        """Maps by dimension as maps by axis (y, x), and the dimensions that they leave."""
        axes: dict[int, Axis] = {}
        dims = list(value.dims)
        for dim, window in windows.items():
            axis, made = None, window
            if self._is_block(value, dim):
                table = window.matrix(value.dims[dim][0].size)
                axis, made, dims = self.within(value, dim, table, dims)
            else:
                axis, n = self.whole_axis(value, dim, len(value.dims) - dim)
                if axis is not None:
                    dims[dim] = tidy([Factor("hw"[axis], window.out_size(n))])
            if axis is None:
                if window.out_size(1) != 1 or (window.matrix(1) == 0).sum() != 1:
                    raise Scrambled("a window changes a dimension that is no axis of the map")
            elif axis in axes:
                raise Scrambled("windows move over two parts of one axis")
            else:
                axes[axis] = made
        return (axes.get(0, SAME), axes.get(1, SAME)), tuple(dims)

    def _is_block(self, value: Value, dim: int) -> bool:
        """Whether a dimension holds one factor of an axis whose others stand elsewhere."""
        factors = value.dims[dim]
        if len(factors) != 1 or factors[0].axis not in "hw":
            return False
        return len(value.factors(factors[0].axis)) > 1

    def within(
        self, value: Value, dim: int, table: np.ndarray, dims: Sequence[Dim]
    ) -> tuple[int, Axis, list[Dim]]:
        """A map along one factor of an axis, the same in all blocks that its other factors make.

        table: places in the factor, (outputs, taps), -1 for none. Returns the axis, the map along
        it, and `dims` as it leaves them.
        """
        name = value.dims[dim][0].axis
        blocks = sorted(_by_place(value, name).items(), key=lambda item: -item[1].step)
        at, inside = np.zeros((1, 1), int), np.ones((1, 1), bool)
        for place, f in blocks:
            part = table if place[0] == dim else np.arange(f.size)[:, None]
            at = (at[:, None, :] + part * f.step).reshape(-1, max(at.shape[1], part.shape[1]))
            inside = (inside[:, None, :] & (part >= 0)).reshape(at.shape)
        new, count = {}, 1
        for place, f in reversed(blocks):
            size = len(table) if place[0] == dim else f.size
            new[place] = Factor(name, size, count)
            count *= size
        self.rigid = True
        axis = "hw".index(name)
        made = from_matrix(np.where(inside, at, -1), self.graph.map_size(value)[axis])
        moved = [tidy([new.get((i, j), f) for j, f in enumerate(d)]) for i, d in enumerate(dims)]
        return axis, made, moved

    def unfurl(self, value: Value, dim: int) -> Value:
        """Copies along an axis of which the map has one position (a pooled branch), as positions."""
        axis = dim - len(value.dims) + 2
        copies = [f.size for f in value.dims[dim] if f.axis == "b"]
        if axis < 0 or len(copies) != 1 or len(value.dims[dim]) != 1:
            return value
        if value.factors("hw"[axis]) or self._size(value)[axis] != 1:
            return value
        self.rigid = True
        axes = self.on_axis(axis, Expand(copies[0], 0))
        dims = (*value.dims[:dim], (Factor("hw"[axis], copies[0]),), *value.dims[dim + 1 :])
        return self.each(
            value, lambda i: self.node("context", [i], axes, reach=Reach.CONTEXT), dims
        )

    def whole_axis(self, value: Value, dim: int, from_end: int) -> tuple[int | None, int]:
        """Which axis (0 for y, 1 for x) a dimension holds whole, and its size.

        A dimension of size 1 is the axis that stands there in N x C x H x W.
        """
        factors = value.dims[dim]
        if not factors:
            axis = 2 - from_end if from_end in (1, 2) else None
            if axis is None or value.factors("hw"[axis]) or self._size(value)[axis] != 1:
                return None, 1
            return axis, 1
        f = factors[0]
        axis = "hw".find(f.axis)
        if len(factors) > 1 or axis < 0 or len(value.factors(f.axis)) > 1:
            raise Scrambled("a window moves over something else than one whole axis")
        if f.step != 1 or self._size(value)[axis] != f.size:
            raise Scrambled("a window moves over part of an axis")
        return axis, f.size


def _positions(factors: Sequence[Factor]) -> np.ndarray:
    """Positions that factors count, in their row-major order."""
    parts = [np.arange(f.size) * f.step for f in factors]
    return reduce(lambda a, b: np.add.outer(a, b).reshape(-1), parts, np.zeros(1, int))


def _pad_rank(value: Value, rank: int) -> Value:
    extra = rank - len(value.dims)
    labels = value.labels.reshape((1,) * extra + value.labels.shape)
    return Value(((),) * extra + value.dims, labels)


def _size(value: Value) -> int:
    return len([f for d in value.dims for f in d])


def _by_place(value: Value, name: str) -> dict[tuple[int, int], Factor]:
    """Factors of an axis by where they stand: (dimension, place in it)."""
    return {(i, j): f for i, d in enumerate(value.dims) for j, f in enumerate(d) if f.axis == name}


def _common_dims(values: Sequence[Value], apart: int | None) -> tuple[list[Dim], list[Value], bool]:
    """Cut the dimensions of all operands alike.

    Returns the result's dimensions, the operands with dimensions cut alike, and whether channels
    of one stand where positions of another do.
    """
    dims: list[Dim] = []
    cut: list[list[Dim]] = [[] for _ in values]
    clash = False
    for i, column in enumerate(zip(*(v.dims for v in values), strict=True)):
        if i == apart:
            column = ((),) * len(values)
        present = [d for d in column if d]
        sizes = _common_sizes(present)
        merged: list[Factor] = []
        parts = [[g[0] for g in split(d, sizes)] if d else None for d in column]
        for j in range(len(sizes)):
            here = [p[j] for p in parts if p]
            spatial = [f for f in here if f.axis in "hw"]
            if len({f.axis for f in spatial}) > 1:
                raise Scrambled("rows meet columns")
            clash |= bool(spatial) and any(f.axis == "c" for f in here)
            merged.append((spatial or [f for f in here if f.axis == "c"] or here)[0])
        for operand, p in zip(cut, parts, strict=True):
            operand.append(tuple(p or ()))
        dims.append(tuple(merged))
    return dims, [_recut(v, d, dims, apart) for v, d in zip(values, cut, strict=True)], clash


def _recut(value: Value, cut: list[Dim], dims: list[Dim], apart: int | None) -> Value:
    """An operand with its dimensions cut like the result's.

    Copies where the result has channels become channels; channels where it has positions, which
    must all be of one class, become copies.
    """
    labels, new = value.labels, []
    for i, (mine, whole) in enumerate(zip(cut, dims, strict=True)):
        new.append(
            tuple(f if f.axis == g.axis else g._replace(axis="b") for f, g in zip(mine, whole))
        )
        if i == apart or not mine:
            continue
        left, right = labels.shape[:i], labels.shape[i + 1 :]
        labels = labels.reshape(*left, *(f.size if f.axis == "c" else 1 for f in mine), *right)
        for j, (f, g) in enumerate(zip(mine, whole, strict=True)):
            if f.axis == "c" and g.axis != "c":
                first = labels.take([0], axis=i + j)
                if (labels != first).any():
                    raise Scrambled("channels of different history meet positions")
                labels = first
        form = (*left, *(g.size if g.axis == "c" else 1 for g in whole), *right)
        labels = np.broadcast_to(labels, form).reshape(*left, channels(whole), *right)
    return Value(tuple(new), labels)


def _common_sizes(dims: Sequence[Dim]) -> list[int]:
    """The coarsest sizes into which all these dimensions can be cut."""
    if not dims:
        return []
    ends = sorted({int(e) for d in dims for e in np.cumprod([f.size for f in reversed(d)])})
    sizes, last = [], 1
    for e in ends:
        if e % last:
            raise Scrambled("dimensions are cut in different places")
        sizes.append(e // last)
        last = e
    return sizes[::-1]
