"""Reductions: means, sums, norms, variances and maxima over whole dimensions."""

from typing import Any

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import Value, dim_of
from rfbench.spatial_graph.ops.registry import register_op
from rfbench.spatial_graph.ops.views import squeeze

Dims = list[int] | None  # None: all


def reduce(
    b: Builder, x: Value, dims: Dims, keep: bool, divide: str = "", kind: str = "pool"
) -> Value:
    """Reduce dimensions to size 1, or away. kind, divide: see Builder.contract."""
    over = [dim_of(x, d) for d in (dims or range(len(x.dims)))]
    out = b.contract(x, over, kind, divide)
    return out if keep else squeeze(b, out, over)


@register_op("aten::mean")
def mean(b: Builder, x: Value, dims: Dims = None, keep: bool = False, **_: Any) -> Value:
    return reduce(b, x, dims, keep, "valid")


@register_op("aten::sum")
def total(b: Builder, x: Value, dims: Dims = None, keep: bool = False, **_: Any) -> Value:
    return reduce(b, x, dims, keep, kind="sum")


@register_op("aten::amax", "aten::amin")
def extremum(b: Builder, x: Value, dims: Dims = None, keep: bool = False) -> Value:
    return reduce(b, x, dims, keep)


@register_op("aten::max", "aten::min")
def extremum_along(b: Builder, x: Value, dim: int | None = None, keep: bool = False) -> Value:
    return reduce(b, x, dim if dim is None else [dim], keep)


@register_op("aten::var", "aten::std")
def variance(b: Builder, x: Value, dims: Dims = None, keepdim: bool = False, **_: Any) -> Value:
    return reduce(b, x, dims, keepdim, "valid")


@register_op("aten::linalg_vector_norm")
def norm(
    b: Builder, x: Value, order: float = 2, dims: Dims = None, keep: bool = False, **_: Any
) -> Value:
    return reduce(b, x, dims, keep)
