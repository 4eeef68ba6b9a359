"""Joins: concatenation, stacking, and what a write to part of a tensor becomes."""

import math
from collections.abc import Sequence

import numpy as np

from rfbench.spatial_graph.axis import SAME, Expand, from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import (
    CONSTANT,
    SPATIAL,
    Factor,
    Scrambled,
    Value,
    dim_of,
    insert,
    solid,
    tidy,
    view,
)
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.ops.indexing import pick, unbind
from rfbench.spatial_graph.ops.registry import Constant, dependent, register_op
from rfbench.spatial_graph.ops.views import copies
from rfbench.spatial_graph.spread import spread

Tensors = list[Value | Constant]
Parts = Sequence[Value | None]  # None: constant
MOST = 1024  # positions that a vector may hold


class Joined(Scrambled):
    """Positions of several axes in one dimension: what was joined, and along which."""

    parts: tuple[Value, ...] = ()
    dim = 0


def join(b: Builder, parts: Parts, dim: int, sizes: Sequence[int]) -> Value | None:
    """Join channels, or positions of an axis. sizes: of every part along the dimension."""
    parts = [p if p is not None and p.depends_on_input else None for p in parts]
    known = [p for p in parts if p is not None]
    if not known:
        return None
    dim = dim_of(known[0], dim)
    near = any(f.axis in SPATIAL for p in known for f in p.dims[dim])  # copies join positions
    parts = [
        p if p is None or (near and _copied(p, dim)) else _channels_apart(b, solid(p, dim), dim)
        for p in parts
    ]
    known = [p for p in parts if p is not None]
    if any(f.axis in SPATIAL for p in known for f in p.dims[dim]):
        starts = np.cumsum([0, *sizes])
        tables = [np.arange(starts[-1]) - lo for lo in starts[:-1]]
        pairs = [(p, at) for p, at in zip(parts, tables, strict=True) if p is not None]
        return join_positions(b, [(p, np.where(at < p.shape[dim], at, -1)) for p, at in pairs], dim)
    dims, moved = b.meet(known, apart=dim)
    left = iter(moved)
    form = np.broadcast_shapes(*((*m.shape[:dim], 1, *m.shape[dim + 1 :]) for m in moved))
    rows = []
    for part, size in zip(parts, sizes, strict=True):
        row = next(left) if part is not None else np.array(CONSTANT)
        whole = (*form[:dim], size, *form[dim + 1 :])
        rows.append(row if row.shape == whole else np.broadcast_to(row, whole))
    dims[dim] = tidy([Factor("c", sum(sizes))])
    return b.same(Value(tuple(dims), np.concatenate(rows, axis=dim)))


def _copied(x: Value, dim: int) -> bool:
    """Whether a dimension holds nothing, or copies of it."""
    return all(f.axis == "b" for f in x.dims[dim])


def _channels_apart(b: Builder, x: Value, dim: int) -> Value:
    """Positions among channels as channels of different history.

    Where the axis stands elsewhere too (a space-to-depth), or where a vector holds all that a map
    has (flattened pools of several sizes).
    """
    held = x.dims[dim]
    moved = {f.axis for f in held if f.axis in SPATIAL}
    elsewhere = all(len(x.factors(a)) > sum(f.axis == a for f in held) for a in moved)
    mixed = moved and elsewhere and any(f.axis == "c" for f in held)
    every = math.prod(f.size for f in held if f.axis in SPATIAL)
    vector = moved and len(x.dims) == 2 and every <= MOST and not any(x.dims[1 - dim])
    return positions_to_channels(b, x, dim) if mixed or vector else x


def join_positions(b: Builder, parts: Sequence[tuple[Value, np.ndarray]], dim: int) -> Value:
    """The positions of several tensors in one axis, which a dimension holds whole.

    parts: each tensor, and the position in it from which one of the result comes, < 0 for none.
    """
    name = next(f.axis for p, _ in parts for f in p.dims[dim] if f.axis in SPATIAL)
    axis, whole = b.letters.index(name), []
    for value, at in ((spread(b, v, dim), at) for v, at in parts):
        n = b.graph.map_size(value)[axis]
        held, own = value.dims[dim], tidy([Factor(name, n)])
        if n == 1 and not value.factors(name) and _copied(value, dim):
            at = np.minimum(at, 0)  # of a single row
        elif held != own or len(value.factors(name)) != len(own):
            raise Joined("positions are concatenated with something else")
        dims = (*value.dims[:dim], tidy([Factor(name, len(at))]), *value.dims[dim + 1 :])
        whole.append((Value(dims, value.labels), np.maximum(at, -1)))
    b.rigid = True
    if (again := _of_one_map(b, whole, axis)) is not None:
        return again
    sizes = [b.graph.map_size(value)[axis] for value, _ in whole]
    maps = [from_matrix(at[:, None], n) for (_, at), n in zip(whole, sizes, strict=True)]
    each = zip(whole, maps, strict=True)
    return b.combine([b.moved(v, b.on_axis(axis, made), v.dims) for (v, _), made in each])


def _of_one_map(b: Builder, parts: Sequence[tuple[Value, np.ndarray]], axis: int) -> Value | None:
    """Parts of one map joined again in some order, such as a padding by hand; None for others."""
    (first, _), *others = parts
    if not others or any(v.dims != first.dims for v, _ in others):
        return None
    if any(v.labels.shape != first.labels.shape for v, _ in others):
        return None
    made: dict[tuple[int, ...], int] = {}
    rows = np.stack([v.labels.ravel() for v, _ in parts], axis=-1).tolist()
    for row in dict.fromkeys(map(tuple, rows)):
        chains = [_taken_from(b, i, at, axis) for i, (_, at) in zip(row, parts, strict=True)]
        common = set.intersection(*(set(chain) for chain in chains))
        if not common:
            return None
        node = max(common)
        at = np.maximum.reduce([chain[node] for chain in chains])
        n = b.graph.nodes[node].size[axis]
        made[row] = b.node("structure", [node], b.on_axis(axis, from_matrix(at[:, None], n)))
    labels = np.array([made[row] for row in map(tuple, rows)])
    return Value(first.dims, labels.reshape(first.labels.shape))


def _blocks_of_one_map(b: Builder, parts: Sequence[Value], dim: int) -> Value | None:
    """Neighbouring blocks that a map was cut into along an axis, stacked in their order.

    How i-RevNet moves blocks of 2x2 pixels into the channels.
    """
    first, n = parts[0], len(parts)
    same = all(p.dims == first.dims and len(p.classes.ids) == 1 for p in parts)
    if n < 2 or first.dims[dim] or not same:
        return None
    nodes = [next(iter(p.share)) for p in parts]
    for axis, letter in enumerate(b.letters):
        size = b.graph.nodes[nodes[0]].size[axis]
        chains = [_taken_from(b, node, np.arange(size), axis) for node in nodes]
        for common in set.intersection(*map(set, chains)):
            at = np.concatenate([chain[common] for chain in chains])
            whole = b.graph.nodes[common].size[axis]
            if len(at) == whole and (at == np.arange(whole)).all():
                dims = (*first.dims[:dim], (Factor(letter, n, size),), *first.dims[dim + 1 :])
                return Value(dims, np.full(first.labels.shape, common))
    return None


def _taken_from(b: Builder, node: int, at: np.ndarray, axis: int) -> dict[int, np.ndarray]:
    """The nodes from which one took its positions, itself first, and which of theirs `at` are."""
    found = {}
    while node != CONSTANT:
        found[node] = at
        step = b.graph.nodes[node]
        inner = step.kind in ("structure", "same") and node not in b.named
        if not inner or len(step.sources) > 1 or step.reach:
            break
        table = step.axes[axis].matrix(b.graph.nodes[step.sources[0]].size[axis])
        others = (a for i, a in enumerate(step.axes) if i != axis)
        if table.shape[1] > 1 or any(a != SAME for a in others):
            break
        node, at = step.sources[0], np.where(at < 0, -1, table[at, 0])
    return found


def scatter(
    b: Builder, x: Value | None, source: Value | None, dim: int, at: np.ndarray, n: int
) -> Value | None:
    """Overwrite entries `at` of a dimension of size n: what a write to a view becomes."""
    x, source = (v if v is not None and v.depends_on_input else None for v in (x, source))
    inside = np.isin(np.arange(n), at)
    if any(f.axis in SPATIAL for p in (x, source) if p is not None for f in p.dims[dim]):
        rest, new = np.where(inside, -1, np.arange(n)), np.full(n, -1)
        new[at] = np.arange(len(at))
        pairs = [(p, table) for p, table in ((x, rest), (source, new)) if p is not None]
        return join_positions(b, pairs, dim)
    runs = np.split(np.arange(n), np.flatnonzero(np.diff(inside)) + 1)
    parts: list[Value | None] = []
    for run in runs:
        whole, where = (source, np.searchsorted(at, run)) if inside[run[0]] else (x, run)
        parts.append(pick(b, whole, dim, where) if whole is not None else None)
    return join(b, parts, dim, [len(run) for run in runs])


def positions_to_channels(b: Builder, x: Value, dim: int) -> Value:
    """Positions in a dimension as channels of different history (space-to-depth)."""
    factors, shape = x.dims[dim], x.shape
    x = view(x, (*shape[:dim], *(f.size for f in factors), *shape[dim + 1 :]))
    for i, f in enumerate(factors):
        if f.axis in SPATIAL:
            parts = [insert(p, dim + i) for p in unbind(b, x, dim + i)]
            x = join(b, parts, dim + i, [1] * f.size) or x
    return view(x, shape)


def settled(b: Builder, x: Value) -> Value:
    """A map, N x C x the axes, of which every dimension holds what it should.

    Channels that a space-to-depth made are channels of different history; copies and channels that
    a depth-to-space put between positions are positions.
    """
    first = len(x.dims) - len(b.letters)
    if first != 2 or x.dims[0]:
        return x
    plain = [[f.axis for f in d] for d in x.dims[2:]] == [[a] for a in b.letters]
    if plain and not any([f.axis in SPATIAL for f in x.dims[1]]):
        return x  # by far the most
    for i, name in enumerate(b.letters):
        if any(f.axis in SPATIAL and f.axis != name for f in x.dims[first + i]):
            return x  # another order
    held = [f.axis for f in x.dims[1] if f.axis in SPATIAL]
    if any(held.count(a) == len(x.factors(a)) for a in held):
        return x  # tokens by tokens
    if held:
        x = positions_to_channels(b, x, 1)
    for axis in range(len(b.letters)):
        x = _laid_out(b, spread(b, x, first + axis), first + axis, axis)
    return x


def channels_for_positions(b: Builder, x: Value) -> bool:
    """Whether channels stand where an axis would (triplet attention), beside positions of others.

    A layer's output has them as positions; a permutation may yet bring them back.
    """
    behind = x.dims[len(x.dims) - len(b.letters) :]
    return x.spatial and any(f.axis == "c" for dim in behind for f in dim)


def _laid_out(b: Builder, x: Value, dim: int, axis: int) -> Value:
    """Channels, or copies, where a map that has one position along an axis is repeated along it."""
    held = x.dims[dim]
    single = not x.factors(b.letters[axis]) and b.graph.map_size(x)[axis] == 1
    if not (held and single and x.spatial):
        return x
    x = solid(x, dim)
    n, rows = x.shape[dim], np.moveaxis(x.labels, dim, 0).reshape(x.shape[dim], -1)
    dims = (*x.dims[:dim], (Factor(b.letters[axis], n),), *x.dims[dim + 1 :])
    b.rigid = True
    if (rows == rows[:1]).all():
        one = Value(dims, x.labels.take([0], axis=dim))
        return b.moved(one, b.on_axis(axis, Expand(n, 0)), dims, "context", Reach.CONTEXT)
    parts = []
    for i in range(n):
        at = np.where(np.arange(n) == i, 0, -1)[:, None]
        one = Value(dims, x.labels.take([i], axis=dim))
        parts.append(b.moved(one, b.on_axis(axis, from_matrix(at, 1)), dims))
    return b.combine(parts)


@register_op("aten::cat")
def cat(b: Builder, tensors: Tensors, dim: int = 0) -> Value | None:
    sizes = [x.shape[dim] for x in tensors]
    try:
        return join(b, [dependent(x) for x in tensors], dim, sizes)
    except Joined as error:
        values = tuple(x for x in tensors if isinstance(x, Value))
        if len(values) == len(tensors):
            error.parts, error.dim = values, dim_of(values[0], dim)
        raise


@register_op("aten::stack")
def stack(b: Builder, tensors: Tensors, dim: int = 0) -> Value | None:
    dim %= len(b.out_shape)
    parts = [insert(x, dim) if isinstance(x, Value) else None for x in tensors]
    known = [p for p in parts if p is not None]
    again = _blocks_of_one_map(b, known, dim) if len(known) == len(parts) else None
    return again or join(b, parts, dim, [1] * len(parts))


@register_op("aten::slice_scatter")
def slice_scatter(
    b: Builder,
    x: Value | Constant,
    source: Value | Constant,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value | None:
    n = b.out_shape[dim]
    at = np.arange(n)[slice(start, end, step)]
    return scatter(b, dependent(x), dependent(source), dim, at, n)


@register_op("aten::select_scatter")
def select_scatter(
    b: Builder, x: Value | Constant, source: Value | Constant, dim: int, index: int
) -> Value | None:
    n = b.out_shape[dim]
    row = insert(source, dim) if isinstance(source, Value) else None
    return scatter(b, dependent(x), row, dim, np.array([index % n]), n)


@register_op("aten::copy")
def copy(b: Builder, x: Value | Constant, source: Value | Constant, *_: object) -> Value | None:
    """All of x is overwritten."""
    return copies(b.same(source), b.out_shape) if isinstance(source, Value) else None
