"""Writes to entries that a table or a mask chooses: x[:, :, table] = 0, x[x < 0] = 0."""

import numpy as np
import torch

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Scrambled, Value, dim_of
from rfbench.spatial_graph.ops.join import scatter
from rfbench.spatial_graph.ops.masks import kept
from rfbench.spatial_graph.ops.pointwise import pointwise
from rfbench.spatial_graph.ops.registry import Constant, dependent, register_op
from rfbench.spatial_graph.ops.views import copies, widen


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
    **_: object,
) -> Value:
    """A number at places that depend on the input: ones and zeros of a hard choice.

    Every entry of the dimension then depends on all that choose there.
    """
    if isinstance(x, Value) or isinstance(table, Constant) or isinstance(value, Value | Constant):
        raise Scrambled("entries are written one by one")
    dim = dim_of(table, dim)
    other = [n for i, n in enumerate(table.shape) if i != dim]
    if other != [n for i, n in enumerate(x.shape) if i != dim]:
        raise Scrambled("entries are written to a part of a tensor")
    if any(f.axis in SPATIAL for f in table.dims[dim]):
        raise Scrambled("where it writes depends on the values of the image")
    return widen(b.contract(table, [dim], "pool"), dim, x.shape[dim])


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
