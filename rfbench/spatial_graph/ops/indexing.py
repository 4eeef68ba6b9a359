"""Selections: some entries of a dimension, in any order."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rfbench.spatial_graph.axis import Index
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Scrambled, Value, dim_of, insert, take
from rfbench.spatial_graph.ops.registry import Constant, register_op
from rfbench.spatial_graph.ops.slide import within
from rfbench.spatial_graph.ops.views import squeeze, transpose, widen
from rfbench.spatial_graph.spread import spread


def pick(b: Builder, x: Value, dim: int, at: np.ndarray) -> Value:
    """The entries `at` of a dimension: channels, or positions of one axis."""
    dim = dim_of(x, dim)
    size = x.shape[dim]
    if at.dtype == bool:  # a mask
        at = np.flatnonzero(at)
    at = np.where(at < 0, at + size, at)
    whole = len(at) == size and (at == np.arange(size)).all()
    if not whole:
        x = spread(b, x, dim)
    factors = x.dims[dim]
    if whole or len(factors) != 1 or factors[0].axis not in SPATIAL:
        return take(x, dim, at)
    axis, made, dims = within(b, x, dim, Index(np.asarray(at)[:, None]), x.dims)
    return b.moved(x, b.on_axis(axis, made), tuple(dims))


@register_op("aten::slice")
def slice_(
    b: Builder,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    return pick(b, x, dim, np.arange(x.shape[dim_of(x, dim)])[slice(start, end, step)])


@register_op("aten::select")
def select(b: Builder, x: Value, dim: int, index: int) -> Value:
    dim = dim_of(x, dim)
    return squeeze(b, pick(b, x, dim, np.array([index % x.shape[dim]])), dim)


@register_op("aten::split", "aten::unsafe_split", "aten::split_with_sizes")
def split(b: Builder, x: Value, sizes: int | list[int], dim: int = 0) -> list[Value]:
    n = x.shape[dim_of(x, dim)]
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    ends = np.cumsum([0, *sizes])
    return [pick(b, x, dim, np.arange(lo, hi)) for lo, hi in pairwise(ends)]


@register_op("aten::unbind")
def unbind(b: Builder, x: Value, dim: int = 0) -> list[Value]:
    return [select(b, x, dim, i) for i in range(x.shape[dim_of(x, dim)])]


@register_op("aten::flip")
def flip(b: Builder, x: Value, dims: list[int]) -> Value:
    """Positions or channels in reverse order."""
    for dim in dims:
        x = pick(b, x, dim, np.arange(x.shape[dim_of(x, dim)])[::-1])
    return x


@register_op("aten::rot90")
def rot90(b: Builder, x: Value, k: int = 1, dims: Sequence[int] = (0, 1)) -> Value:
    turns = k % 4
    x = flip(b, x, [dims[1]]) if turns in (1, 2) else x
    x = flip(b, x, [dims[0]]) if turns in (2, 3) else x
    return transpose(b, x, *dims) if turns in (1, 3) else x


@register_op("aten::roll")
def roll(b: Builder, x: Value, shifts: list[int], dims: Sequence[int] = ()) -> Value:
    if not dims:
        raise Scrambled("positions are rolled into other rows")
    for shift, dim in zip(shifts, dims, strict=True):
        x = pick(b, x, dim, np.roll(np.arange(x.shape[dim]), shift))
    return x


@register_op("aten::index")
def index(b: Builder, x: Value | Constant, tables: list[Any]) -> Value:
    """x[..., table, ...]: a table of positions for one of the dimensions."""
    if isinstance(x, Constant) and len(tables) == 1 and isinstance(tables[0], Value):
        return _looked_up(b, x, tables[0])
    if isinstance(x, Constant) or any(isinstance(t, Value) for t in tables):
        raise Scrambled("an index depends on the input")
    dims = [i for i, table in enumerate(tables) if table is not None]
    if len(dims) > 1:
        return _crossed(b, x, dims, [tables[i].values for i in dims])
    if len(tables[dims[0]].shape) != 1:
        raise Scrambled("positions are picked by a table")
    dim = dims[0]
    at = tables[dim].values
    if at is not None:
        return pick(b, x, dim, at.numpy())
    alike = (x.labels == x.labels.take([0], axis=dim)).all()
    if alike and all(f.axis == "c" for f in x.dims[dim]):  # whichever it picks
        return pick(b, x, dim, np.zeros(b.out_shape[dim], int))
    raise Scrambled("positions are picked by a table that is not known")


def _looked_up(b: Builder, table: Constant, at: Value) -> Value:
    """A row of a table for every number: a code book's."""
    out = b.same(at)
    for n in table.shape[1:]:
        out = widen(insert(out, len(out.dims)), len(out.dims), n)
    return out


def _crossed(b: Builder, x: Value, dims: list[int], tables: list[Any]) -> Value:
    """x[..., rows[:, None], columns]: a table for each of neighbouring dimensions, crossed."""
    if any(t is None or t.dtype.itemsize == 1 for t in tables):
        raise Scrambled("positions are picked by tables that are not known")
    every = np.broadcast_arrays(*(t.numpy() for t in tables))
    if dims != list(range(dims[0], dims[-1] + 1)) or every[0].ndim != len(dims):
        raise Scrambled("positions are picked one by one")
    for i, (dim, table) in enumerate(zip(dims, every, strict=True)):
        x = pick(b, x, dim, _line(table, i))
    return x


def _line(table: np.ndarray, dim: int) -> np.ndarray:
    """A table that is the same along all other dimensions."""
    rows = np.moveaxis(table, dim, 0).reshape(table.shape[dim], -1)
    if (rows != rows[:, :1]).any():
        raise Scrambled("positions are picked one by one")
    return rows[:, 0]


@register_op("aten::gather")
def gather(b: Builder, x: Value | Constant, dim: int, table: Value | Constant, **_: Any) -> Value:
    """A table of positions along one dimension, the same along all others."""
    at = table.values if isinstance(table, Constant) else None
    if at is None or isinstance(x, Constant):
        raise Scrambled("positions are picked by a table that is not known")
    dim = dim_of(x, dim)
    for other, n in enumerate(at.shape):
        if other != dim and n < x.shape[other]:
            x = pick(b, x, other, np.arange(n))
    return pick(b, x, dim, _line(at.numpy(), dim))


@register_op("aten::index_select")
def index_select(b: Builder, x: Value | Constant, dim: int, table: Value | Constant) -> Value:
    at = table.values if isinstance(table, Constant) else None
    if at is None or isinstance(x, Constant):
        raise Scrambled("positions are picked by a table that is not known")
    return pick(b, x, dim, at.numpy())
