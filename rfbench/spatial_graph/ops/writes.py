"""Writes to entries that a table or a mask chooses: x[:, :, table] = 0, x[x < 0] = 0."""

import numpy as np
import torch

from rfbench.spatial_graph.axis import from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Scrambled, Value
from rfbench.spatial_graph.ops.indexing import pick
from rfbench.spatial_graph.ops.join import scatter
from rfbench.spatial_graph.ops.masks import kept
from rfbench.spatial_graph.ops.pointwise import pointwise
from rfbench.spatial_graph.ops.registry import Constant, dependent, register_op
from rfbench.spatial_graph.ops.slide import slide
from rfbench.spatial_graph.ops.views import copies, widen

MOST = 64  # entries that are added to one


@register_op("aten::index_put", "aten::_unsafe_index_put")
def index_put(
    b: Builder,
    x: Value | Constant,
    tables: list[Value | Constant | None],
    values: Value | Constant,
    accumulate: bool = False,
) -> Value | None:
    """One table of positions, or one mask."""
    given = [(dim, table) for dim, table in enumerate(tables) if table is not None]
    if len(given) != 1 or accumulate:
        raise Scrambled("entries are written one by one")
    dim, table = given[0]
    shape, fixed = b.out_shape, isinstance(values, Constant)
    if isinstance(table, Value):  # y[y < 0] = 0
        if len(table.shape) < len(shape) or not fixed:
            raise Scrambled("where it writes depends on the values of the image")
        return pointwise(b, x, table)
    at = table.values
    if at is None:
        raise Scrambled("where it writes is not known")
    if at.dim() == 1:
        rows = np.flatnonzero(at.numpy()) if at.dtype == torch.bool else at.numpy() % shape[dim]
        part = (*shape[:dim], len(rows), *shape[dim + 1 :])
        source = copies(values, part) if isinstance(values, Value) else None
        return scatter(b, dependent(x), source, dim, rows, shape[dim])
    if at.dtype != torch.bool or not fixed:
        raise Scrambled("entries are written one by one")
    behind = len(shape) - dim - at.dim()
    mask = ~at.numpy().reshape((1,) * dim + tuple(at.shape) + (1,) * behind)
    return kept(b, x, mask) if isinstance(x, Value) else None


@register_op("aten::scatter")
def scattered(
    b: Builder,
    x: Value | Constant,
    dim: int,
    table: Value | Constant,
    value: object,
    **more: object,
) -> Value | None:
    """A number at places that depend on the input: ones and zeros of a hard choice.

    Every entry of the dimension then depends on all that choose there. Or a map, or a number, at
    the places of a table.
    """
    dim %= len(b.out_shape)
    if isinstance(table, Constant) and not more:
        source = dependent(value)
        at = _row(b, table, dim)
        return _written(b, dependent(x), source, dim, at)
    if isinstance(x, Value) or isinstance(table, Constant) or isinstance(value, Value | Constant):
        raise Scrambled("entries are written one by one")
    other = [n for i, n in enumerate(table.shape) if i != dim]
    if other != [n for i, n in enumerate(x.shape) if i != dim]:
        raise Scrambled("entries are written to a part of a tensor")
    if any(f.axis in SPATIAL for f in table.dims[dim]):
        raise Scrambled("where it writes depends on the values of the image")
    return widen(b.contract(table, [dim], "pool"), dim, x.shape[dim])


@register_op("aten::index_copy")
def index_copy(
    b: Builder, x: Value | Constant, dim: int, table: Value | Constant, source: object
) -> Value | None:
    dim %= len(b.out_shape)
    return _written(b, dependent(x), dependent(source), dim, _row(b, table, dim))


@register_op("aten::index_add", "aten::scatter_add")
def index_add(
    b: Builder,
    x: Value | Constant,
    dim: int,
    table: Value | Constant,
    source: object,
    alpha: float = 1,
) -> Value | None:
    """Each entry added to that where its table says; several may be added to one."""
    dim %= len(b.out_shape)
    at, value = _row(b, table, dim), dependent(source) if alpha else None
    left, parts = np.arange(len(at)), [dependent(x)]
    while value is not None and len(left):  # of those that meet, one at a time
        now = left[np.unique(at[left], return_index=True)[1]]
        parts.append(_written(b, None, pick(b, value, dim, now), dim, at[now]))
        left = np.setdiff1d(left, now)
        if len(parts) > MOST:
            raise Scrambled(f"more than {MOST} entries are added to one")
    known = [part for part in parts if part is not None]
    return b.combine(known) if known else None


@register_op("aten::scatter_reduce")
def scatter_reduce(
    b: Builder,
    x: Value | Constant,
    dim: int,
    table: Value | Constant,
    source: Value | Constant,
    reduce: str,
    **_: object,
) -> Value | None:
    """The sum, mean, product or extreme of the entries that a table puts in one place."""
    if isinstance(x, Value):
        raise Scrambled("what the entries are reduced into depends on the input")
    if reduce in ("sum", "prod"):
        return index_add(b, x, dim, table, source)
    dim %= len(b.out_shape)
    at, value = _row(b, table, dim), dependent(source)
    if value is None:
        return None
    each = [np.flatnonzero(at == i) for i in range(b.out_shape[dim])]
    most = max(map(len, each))
    places = np.array([[*i, *[-1] * (most - len(i))] for i in each])
    weights = (places >= 0) / np.maximum((places >= 0).sum(1, keepdims=True), 1)
    b.rigid = True
    reduced = from_matrix(places, len(at), weights if reduce == "mean" else None)
    return slide(b, value, {dim: reduced}, "pool")


def _row(b: Builder, table: Value | Constant, dim: int) -> np.ndarray:
    """Where a table of the same entries everywhere puts those along a dimension."""
    values = table.values if isinstance(table, Constant) else None
    if values is None:
        where = "depends on the values of the image" if isinstance(table, Value) else "is not known"
        raise Scrambled(f"where it writes {where}")
    if values.dim() > 1:
        other = [n for i, n in enumerate(b.out_shape) if i != dim]
        rows = values.movedim(dim, 0).flatten(1)
        whole = [n for i, n in enumerate(values.shape) if i != dim] == other
        if not whole or bool((rows != rows[:, :1]).any()):
            raise Scrambled("entries are written one by one")
        values = rows[:, 0]
    return values.numpy() % b.out_shape[dim]


def _written(
    b: Builder, x: Value | None, source: Value | None, dim: int, at: np.ndarray
) -> Value | None:
    """The entries `at` of a dimension overwritten, all by others."""
    order = np.argsort(at)
    if (np.diff(at[order]) == 0).any():
        raise Scrambled("several entries are written to one")
    if source is not None:
        source = pick(b, source, dim, order)
        if source.shape != (*b.out_shape[:dim], len(at), *b.out_shape[dim + 1 :]):
            raise Scrambled("entries are written to a part of a tensor")
    return scatter(b, x, source, dim, at[order], b.out_shape[dim])


@register_op("aten::index_fill")
def index_fill(
    b: Builder, x: Value, dim: int, table: Value | Constant, value: object
) -> Value | None:
    at = table.values if isinstance(table, Constant) else None
    if at is None or isinstance(value, Value):
        raise Scrambled("where it writes is not known")
    dim %= len(b.out_shape)
    n = b.out_shape[dim]
    return scatter(b, x, None, dim, at.numpy() % n, n)
