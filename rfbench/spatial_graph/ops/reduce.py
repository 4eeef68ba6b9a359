"""Reductions: means, sums, norms, variances and maxima over whole dimensions."""

from typing import Any

import numpy as np

from rfbench.spatial_graph.axis import from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Scrambled, Value, dim_of, solid, windows_over
from rfbench.spatial_graph.ops.pointwise import pointwise
from rfbench.spatial_graph.ops.registry import register_op
from rfbench.spatial_graph.ops.slide import slide
from rfbench.spatial_graph.ops.views import squeeze, widen

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


@register_op("aten::max", "aten::min", "aten::median", "aten::nanmedian", "aten::mode")
def extremum_along(
    b: Builder, x: Value, dim: int | None = None, keep: bool = False
) -> Value | list[Value]:
    """The value, and where it is, which depends on the same entries."""
    if dim is None and "mode" in b.op:
        dim = -1  # the others take all dimensions then
    out = reduce(b, x, dim if dim is None else [dim], keep)
    return out if dim is None else [out, out]


@register_op("aten::kthvalue")
def kth(b: Builder, x: Value, _k: int, dim: int = -1, keep: bool = False) -> list[Value]:
    return [reduce(b, x, [dim], keep)] * 2


@register_op("aten::argmax", "aten::argmin", "aten::any", "aten::all", "aten::prod")
def over_one(
    b: Builder, x: Value, dim: int | list[int] | None = None, keep: bool = False, **_: Any
) -> Value:
    return reduce(b, x, [dim] if isinstance(dim, int) else dim, keep)


@register_op("aten::logsumexp")
def logsumexp(b: Builder, x: Value, dims: Dims = None, keep: bool = False) -> Value:
    return reduce(b, x, dims, keep)


@register_op("aten::var", "aten::std")
def variance(b: Builder, x: Value, dims: Dims = None, keepdim: bool = False, **_: Any) -> Value:
    return reduce(b, x, dims, keepdim, "valid")


@register_op("aten::var_mean", "aten::std_mean")
def moments(
    b: Builder, x: Value, dims: Dims = None, keepdim: bool = False, **_: Any
) -> list[Value]:
    return [reduce(b, x, dims, keepdim, "valid") for _ in range(2)]


@register_op("aten::sort")
def sort(b: Builder, x: Value, dim: int = -1, _descending: bool = False, **_: Any) -> list[Value]:
    return ranked(b, x, dim)


@register_op("aten::topk")
def topk(b: Builder, x: Value, _k: int, dim: int = -1, *_: bool, **__: Any) -> list[Value]:
    return ranked(b, x, dim)


def ranked(b: Builder, x: Value, dim: int) -> list[Value]:
    """Channels in the order of their values: each depends on all of them."""
    dim = dim_of(x, dim)
    if any(f.axis in SPATIAL for f in x.dims[dim]):
        raise Scrambled("positions are put in the order of their values")
    out = widen(b.contract(x, [dim], "pool"), dim, b.out_shape[dim])
    return [out, out]


@register_op("aten::cummax", "aten::cummin")
def best_so_far(b: Builder, x: Value, dim: int) -> list[Value]:
    return [cumulated(b, x, dim)] * 2


@register_op("aten::cumsum", "aten::cumprod", "aten::logcumsumexp")
def cumulated(b: Builder, x: Value, dim: int, **_: Any) -> Value:
    """Sums over all entries up to each."""
    dim = dim_of(x, dim)
    at = np.tril(np.arange(1, x.shape[dim] + 1)[None, :].repeat(x.shape[dim], 0)) - 1
    if any(f.axis in SPATIAL for f in x.dims[dim]):
        b.rigid = True
        return slide(b, x, {dim: from_matrix(at, x.shape[dim])}, "adaptive")
    x = solid(x, dim)
    labels = b.mixed(windows_over(x.labels, dim, at), lambda r: b.node("sum", r))
    return Value(x.dims, labels)


@register_op("aten::sub")
def difference(b: Builder, *args: Any, **kwargs: Any) -> Value | None:
    """Of maps; not of running sums, whose parts are sums over windows (a box filter)."""
    summed = [_running_sums(b, x) for x in args[:2] if isinstance(x, Value)]
    if len(summed) == 2 and not summed[0].isdisjoint(summed[1]):
        raise Scrambled("running sums are subtracted: what is left of them is not known")
    return pointwise(b, *args, **kwargs)


def _running_sums(b: Builder, x: Value) -> set[int]:
    """The running sums of which a tensor holds parts."""
    left = [*b.graph.share(x)]
    seen: set[int] = set()
    found: set[int] = set()
    while left:
        i = left.pop()
        if i in seen:
            continue
        seen.add(i)
        node = b.graph.nodes[i]
        if "cumsum" in node.op:
            found.add(i)
        elif node.kind in ("structure", "same"):
            left += node.sources
    return found


@register_op("aten::linalg_vector_norm")
def norm(
    b: Builder, x: Value, order: float = 2, dims: Dims = None, keep: bool = False, **_: Any
) -> Value:
    return reduce(b, x, dims, keep)
