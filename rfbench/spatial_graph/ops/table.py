"""What every aten operation does to positions: one table, from its name to a function.

A function gets the builder and the arguments, in which tensors that depend on the input are Values
and all others (weights, constants) None. It returns a Value, a list of them, or None for a result
that does not depend on the input. Norms are identities: their statistics count as constants.
"""

from collections.abc import Callable

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.graph import Reach
from rfbench.spatial_graph.layout import Value, dim_of, insert, permute, shape
from rfbench.spatial_graph.ops.views import (
    Shape,
    channel_shuffle,
    copies,
    flip,
    repeat,
    rot90,
    select,
    slice_,
    split,
    squeeze,
    transpose,
    unbind,
    unfold,
    widen,
)
from rfbench.spatial_graph.ops.windows import adaptive, pad, pixel_shuffle, pixel_unshuffle, pool

Result = Value | list[Value] | None


def pointwise(b: Builder, name: str, values: list[Value], form: Shape) -> Value:
    """Any element-wise operation: sums and products of maps, activations, constants."""
    product = any(word in name for word in ("mul", "div", "pow", "cmul"))
    if len(values) > 1:
        return copies(b.combine(values, "product" if product else "sum"), form)
    return copies(b.same(values[0]), form)


def _glu(b: Builder, x: Value, dim: int = -1) -> Value:
    half = shape(x)[dim_of(x, dim)] // 2
    return b.combine(split(b, x, half, dim), "product")


def total(
    b: Builder,
    x: Value,
    dims: list[int] | None,
    keep: bool,
    divide: str = "",
    kind: str = "pool",
) -> Value:
    """Mean, sum, norm, variance or maximum over dimensions."""
    over = [dim_of(x, d) for d in (dims or range(len(x.dims)))]
    out = b.contract(x, over, kind, divide)
    return out if keep else squeeze(b, out, over)


def span(b: Builder, x: Value, dim: int) -> Reach:
    """What mixing all positions of a dimension is: windowed while they stand close together."""
    size = b.graph.map_size(x)
    wide = any(
        2 * (f.size - 1) * f.step >= size["hw".index(f.axis)] for f in x.dims[dim] if f.axis in "hw"
    )
    return Reach.GLOBAL if wide else Reach.WINDOWED


def softmax(b: Builder, x: Value, dim: int) -> Value:
    """Every entry depends on all others of the dimension."""
    dim = dim_of(x, dim)
    if not {f.axis for f in x.dims[dim]} & {"c", "h", "w"}:
        return b.same(x)
    both = [x, b.contract(x, [dim], "pool")]
    return copies(b.combine(both, "product", partial=span(b, x, dim)), shape(x))


def matmul(b: Builder, x: Value | None, y: Value | None, forms: tuple[Shape, Shape]) -> Value:
    """x (..., M, K) times y (..., K, N); one of them may be constant."""
    if y is None:
        assert x is not None
        last = len(x.dims) - 1
        return widen(b.contract(x, [last]), last, forms[1][-1])
    if x is None:
        first = len(y.dims) - 2
        return widen(b.contract(y, [first]), first, forms[0][-2])
    last = len(x.dims) - 1
    partial = span(b, y, last - 1)
    x, y = b.contract(x, [last], "pool"), b.contract(y, [last - 1], "pool")
    rows = {f.axis for f in x.dims[last - 1]} & {"h", "w"}
    if rows & {f.axis for f in y.dims[last]}:  # every query meets every key
        partial = span(b, y, last)
        y = widen(b.contract(y, [last], "pool"), last, forms[1][-1])
    return copies(
        b.combine([x, y], "product", Reach.GLOBAL, partial), (*forms[0][:-1], forms[1][-1])
    )


def _first(f: Callable[..., Value]) -> Callable[..., Value]:
    return lambda b, x, *args, **kwargs: f(b, x)


TABLE: dict[str, Callable[..., Result]] = {
    "permute": lambda b, x, order: permute(x, [dim_of(x, d) for d in order]),
    "transpose": transpose,
    "t": lambda b, x: permute(x, list(range(len(x.dims)))[::-1]),
    "unsqueeze": lambda b, x, dim: insert(x, dim % (len(x.dims) + 1)),
    "squeeze": squeeze,
    "repeat": repeat,
    "slice": slice_,
    "select": select,
    "split": split,
    "unsafe_split": split,
    "split_with_sizes": split,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "flip": flip,
    "rot90": rot90,
    "glu": _glu,
    "unbind": unbind,
    "unfold": unfold,
    "constant_pad_nd": pad,
    "mean": lambda b, x, dims=None, keep=False, **_: total(b, x, dims, keep, "valid"),
    "sum": lambda b, x, dims=None, keep=False, **_: total(b, x, dims, keep, kind="sum"),
    "amax": lambda b, x, dims=None, keep=False: total(b, x, dims, keep),
    "max": lambda b, x, dim=None, keep=False: total(b, x, dim if dim is None else [dim], keep),
    "amin": lambda b, x, dims=None, keep=False: total(b, x, dims, keep),
    "min": lambda b, x, dim=None, keep=False: total(b, x, dim if dim is None else [dim], keep),
    "var": lambda b, x, dims=None, keepdim=False, **_: total(b, x, dims, keepdim, "valid"),
    "std": lambda b, x, dims=None, keepdim=False, **_: total(b, x, dims, keepdim, "valid"),
    "linalg_vector_norm": lambda b, x, order=2, dims=None, keep=False, **_: total(b, x, dims, keep),
    "avg_pool2d": lambda b, x, k, s=None, p=0, ceil=False, include=True, divisor=None: pool(
        b, x, k, s, p, 1, ceil, "kernel" if include else "valid", divisor
    ),
    "max_pool2d_with_indices": lambda b, x, k, s=None, p=0, d=1, ceil=False: pool(
        b, x, k, s, p, d, ceil
    ),
    "_adaptive_avg_pool2d": lambda b, x, size: adaptive(b, x, size, "kernel"),
    "adaptive_max_pool2d": lambda b, x, size: adaptive(b, x, size, ""),
    "_softmax": lambda b, x, dim, *_: softmax(b, x, dim),
    "_safe_softmax": lambda b, x, dim, *_: softmax(b, x, dim),
    "_log_softmax": lambda b, x, dim, *_: softmax(b, x, dim),
    "native_batch_norm": _first(Builder.same),
    "_native_batch_norm_legit_no_training": _first(Builder.same),
    "native_layer_norm": _first(Builder.same),
    "native_group_norm": _first(Builder.same),
    "_fused_rms_norm": _first(Builder.same),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
