"""Views, selections and joins: operations that move entries without adding any up."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rfbench.spatial_graph.axis import Index, from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import (
    CONSTANT,
    Factor,
    Scrambled,
    Value,
    dim_of,
    insert,
    permute,
    shape,
    solid,
    take,
    tidy,
    view,
)
from rfbench.spatial_graph.ops.slide import within

Shape = tuple[int, ...]


def widen(value: Value, dim: int, size: int) -> Value:
    """Repeat a dimension of size 1 as `size` channels of the same history."""
    dims = (*value.dims[:dim], tidy([Factor("c", size)]), *value.dims[dim + 1 :])
    return Value(dims, np.repeat(value.labels, size, axis=dim))


def copies(value: Value, form: Shape) -> Value:
    """Broadcast to a shape: dimensions of size 1 become copies."""
    extra = len(form) - len(value.dims)
    dims = ((),) * extra + value.dims
    new = tuple(d or tidy([Factor("b", n)]) for d, n in zip(dims, form, strict=True))
    return Value(new, value.labels.reshape((1,) * extra + value.labels.shape))


def transpose(b: Builder, x: Value, i: int, j: int) -> Value:
    order = list(range(len(x.dims)))
    i, j = dim_of(x, i), dim_of(x, j)
    order[i], order[j] = j, i
    return permute(x, order)


def squeeze(b: Builder, x: Value, dims: int | list[int]) -> Value:
    gone = {dim_of(x, d) for d in ([dims] if isinstance(dims, int) else dims)}
    gone = {d for d in gone if not x.dims[d]}
    return Value(
        tuple(d for i, d in enumerate(x.dims) if i not in gone),
        x.labels.squeeze(tuple(gone)) if gone else x.labels,
    )


def repeat(b: Builder, x: Value, times: list[int]) -> Value:
    extra = len(times) - len(x.dims)
    x = copies(x, (1,) * extra + shape(x))
    for dim, n in enumerate(times):
        if n > 1 and any(f.axis in "hw" for f in x.dims[dim]):
            raise Scrambled("a map is repeated")
        if n > 1:
            x = solid(x, dim)
            new = tidy([Factor("c", n * shape(x)[dim])])
            labels = np.concatenate([x.labels] * n, axis=dim)
            x = Value((*x.dims[:dim], new, *x.dims[dim + 1 :]), labels)
    return x


def channel_shuffle(b: Builder, x: Value, groups: int) -> Value:
    form = shape(x)
    x = view(x, (form[0], groups, form[1] // groups, *form[2:]))
    return view(transpose(b, x, 1, 2), form)


def flip(b: Builder, x: Value, dims: list[int]) -> Value:
    """Positions or channels in reverse order."""
    for dim in dims:
        x = pick(b, x, dim, np.arange(shape(x)[dim_of(x, dim)])[::-1])
    return x


def rot90(b: Builder, x: Value, k: int = 1, dims: Sequence[int] = (0, 1)) -> Value:
    turns = k % 4
    x = flip(b, x, [dims[1]]) if turns in (1, 2) else x
    x = flip(b, x, [dims[0]]) if turns in (2, 3) else x
    return transpose(b, x, *dims) if turns in (1, 3) else x


def pick(b: Builder, x: Value, dim: int, at: np.ndarray) -> Value:
    """The entries `at` of a dimension: channels, or positions of one axis."""
    dim = dim_of(x, dim)
    factors = x.dims[dim]
    size = shape(x)[dim]
    whole = len(at) == size and (at == np.arange(size)).all()
    if whole or len(factors) != 1 or factors[0].axis not in "hw":
        return take(x, dim, at)
    axis, made, dims = within(b, x, dim, Index(np.asarray(at)[:, None]), x.dims)
    return b.moved(x, b.on_axis(axis, made), tuple(dims))


def slice_(
    b: Builder,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    return pick(b, x, dim, np.arange(shape(x)[dim_of(x, dim)])[slice(start, end, step)])


def select(b: Builder, x: Value, dim: int, index: int) -> Value:
    dim = dim_of(x, dim)
    return squeeze(b, pick(b, x, dim, np.array([index % shape(x)[dim]])), dim)


def split(b: Builder, x: Value, sizes: int | list[int], dim: int = 0) -> list[Value]:
    n = shape(x)[dim_of(x, dim)]
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    ends = np.cumsum([0, *sizes])
    return [pick(b, x, dim, np.arange(lo, hi)) for lo, hi in pairwise(ends)]


def unbind(b: Builder, x: Value, dim: int = 0) -> list[Value]:
    return [select(b, x, dim, i) for i in range(shape(x)[dim_of(x, dim)])]


def unfold(b: Builder, x: Value, dim: int, size: int, step: int) -> Value:
    dim = dim_of(x, dim)
    (f,) = x.dims[dim] or (Factor("b", 1),)
    if f.axis not in "hw":
        raise Scrambled("channels are unfolded")
    outer = Factor(f.axis, (f.size - size) // step + 1, f.step * step)
    x = insert(x, len(x.dims))
    dims = list(x.dims)
    dims[dim], dims[-1] = tidy([outer]), tidy([Factor(f.axis, size, f.step)])
    return Value(tuple(dims), x.labels)


def cat(b: Builder, parts: list[Value | None], dim: int, sizes: list[int]) -> Value | None:
    """Join channels, or positions of an axis. sizes: of every part along the dimension; a part is
    None where it is constant."""
    known = [p for p in parts if p is not None and p.alive]
    if not known:
        return None
    dim = dim_of(known[0], dim)
    parts = [solid(p, dim) if p is not None and p.alive else None for p in parts]
    known = [p for p in parts if p is not None]
    if any(f.axis in "hw" for p in known for f in p.dims[dim]):
        starts = np.cumsum([0, *sizes])
        placed = [(p, np.arange(starts[-1]) - lo) for p, lo in zip(parts, starts, strict=False)]
        return lay(
            b, [(p, np.where(at < shape(p)[dim], at, -1)) for p, at in placed if p is not None], dim
        )
    dims, moved = b.meet(known, apart=dim)
    left = iter(moved)
    form = np.broadcast_shapes(*((*m.shape[:dim], 1, *m.shape[dim + 1 :]) for m in moved))
    rows = []
    for part, size in zip(parts, sizes, strict=True):
        row = next(left) if part is not None else np.array(CONSTANT)
        rows.append(np.broadcast_to(row, (*form[:dim], size, *form[dim + 1 :])))
    dims[dim] = tidy([Factor("c", sum(sizes))])
    return b.same(Value(tuple(dims), np.concatenate(rows, axis=dim)))


def lay(b: Builder, parts: Sequence[tuple[Value, np.ndarray]], dim: int) -> Value:
    """Lay the positions of several tensors into one axis, which a dimension holds whole.

    parts: tensors, and the place in each from which a position of the result comes, < 0 for none.
    """
    name = next(f.axis for p, _ in parts for f in p.dims[dim] if f.axis in "hw")
    axis, placed = "hw".index(name), []
    for value, at in parts:
        n = b.graph.map_size(value)[axis]
        whole = tidy([Factor(name, n)])
        if value.dims[dim] != whole or len(value.factors(name)) != len(whole):
            raise Scrambled("positions are concatenated with something else")
        axes = b.on_axis(axis, from_matrix(np.maximum(at, -1)[:, None], n))
        b.rigid = True
        dims = (*value.dims[:dim], tidy([Factor(name, len(at))]), *value.dims[dim + 1 :])
        placed.append(b.moved(value, axes, dims))
    return b.combine(placed)


def scatter(
    b: Builder, x: Value | None, source: Value | None, dim: int, at: np.ndarray, n: int
) -> Value | None:
    """Overwrite entries `at` of a dimension of size n: what a write to a view becomes."""
    x, source = (v if v is not None and v.alive else None for v in (x, source))
    inside = np.isin(np.arange(n), at)
    if any(f.axis in "hw" for p in (x, source) if p is not None for f in p.dims[dim]):
        rest, new = np.where(inside, -1, np.arange(n)), np.full(n, -1)
        new[at] = np.arange(len(at))
        return lay(b, [(p, t) for p, t in ((x, rest), (source, new)) if p is not None], dim)
    runs = np.split(np.arange(n), np.flatnonzero(np.diff(inside)) + 1)
    parts: list[Value | None] = []
    for run in runs:
        whole, where = (source, np.searchsorted(at, run)) if inside[run[0]] else (x, run)
        parts.append(pick(b, whole, dim, where) if whole is not None else None)
    return cat(b, parts, dim, [len(run) for run in runs])


def spelled(b: Builder, x: Value, dim: int) -> Value:
    """Positions in a dimension as channels of different history (space-to-depth)."""
    factors, form = x.dims[dim], shape(x)
    x = view(x, (*form[:dim], *(f.size for f in factors), *form[dim + 1 :]))
    for i, f in enumerate(factors):
        if f.axis in "hw":
            parts: list[Value | None] = [insert(p, dim + i) for p in unbind(b, x, dim + i)]
            x = cat(b, parts, dim + i, [1] * f.size) or x
    return view(x, form)
