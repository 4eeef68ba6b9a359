"""Element-wise operations: activations, norms, sums and products of maps that broadcast.

torch tags most of them as pointwise; those need no entry here (see `lookup` in ops/__init__.py).
"""

from collections.abc import Iterator
from typing import Any

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import Scrambled, Value, dim_of, insert
from rfbench.spatial_graph.ops.indexing import split
from rfbench.spatial_graph.ops.registry import register_op
from rfbench.spatial_graph.ops.views import copies, widen

# element-wise, though not tagged so by torch
UNTAGGED = (
    "alias", "clone", "detach", "contiguous", "lift_fresh", "native_dropout",
    "hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "elu", "celu", "selu", "leaky_relu",
    "prelu", "_prelu_kernel", "rrelu_with_noise", "rrelu_with_noise_functional", "softplus",
    "softshrink", "hardshrink", "log_sigmoid_forward", "bitwise_not", "_conj", "_conj_physical",
    "resolve_conj", "_neg_view", "resolve_neg",
    "polar", "bucketize", "bernoulli", "binomial", "normal", "normal_functional", "poisson",
    "_standard_gamma",
)  # fmt: skip
FILLED = (
    "empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like",
    "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "fill", "zero",
)  # fmt: skip


@register_op(*(f"aten::{name}" for name in UNTAGGED))
def pointwise(b: Builder, *args: Any, **kwargs: Any) -> Value | None:
    """Any of them: a tensor keeps its history, several are summed or multiplied."""
    if kwargs.get("alpha", 1) == 0 or kwargs.get("value", 1) == 0:  # a term that is taken 0 times
        args = args[:1]
    values = [*_values((*args, *kwargs.values()))]
    if len(values) == 1:
        return copies(b.same(values[0]), b.out_shape)
    if not values:
        return None
    name = b.op.split(".")[1]
    kind = "product" if any(word in name for word in ("mul", "div", "pow")) else "sum"
    return copies(b.combine(values, kind), b.out_shape)


def _values(tree: list | tuple) -> Iterator[Value]:
    for part in tree:
        if isinstance(part, Value):
            yield part
        elif isinstance(part, list | tuple):
            yield from _values(part)


@register_op(
    "aten::native_batch_norm",
    "aten::_native_batch_norm_legit_no_training",
    "aten::native_layer_norm",
    "aten::native_group_norm",
    "aten::_fused_rms_norm",
)
def norm(b: Builder, x: Value, *_: object, **__: object) -> Value:
    """Norms are identities: their statistics count as constants."""
    return b.same(x)


@register_op(
    "aten::fake_quantize_per_tensor_affine_cachemask",
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "aten::fake_quantize_per_channel_affine_cachemask",
    "aten::_fused_moving_avg_obs_fq_helper",
)
def fake_quantized(b: Builder, x: Value, *_: object) -> list[Value | None]:
    """Rounded as a quantised network would; which entries are cut off does not count."""
    return [b.same(x), None]


@register_op(
    *(
        f"quantized_decomposed::{word}_{kind}"
        for word in ("quantize", "dequantize")
        for kind in ("per_tensor", "per_channel", "per_channel_group", "per_token")
    ),
    "quantized_decomposed::fake_quant_per_channel",
)
def quantized(b: Builder, x: Value, *_: object, **__: object) -> Value:
    """Rounded, or back; what it is rounded to counts as a constant, as statistics do."""
    return b.same(x)


@register_op(
    "quantized_decomposed::choose_qparams",
    "quantized_decomposed::choose_qparams_symmetric",
    "quantized_decomposed::choose_qparams_per_token",
    "quantized_decomposed::choose_qparams_per_token_asymmetric",
)
def rounding(b: Builder, x: Value, *_: object, **__: object) -> list[Value | None]:
    """What it is rounded to."""
    return [None, None]


@register_op("aten::embedding")
def embedding(b: Builder, table: object, x: Value, *_: object) -> Value:
    """A row of a table for every number."""
    if isinstance(table, Value):
        raise Scrambled("a table depends on the input")
    return widen(insert(b.same(x), len(x.dims)), len(x.dims), b.out_shape[-1])


@register_op("aten::glu")
def glu(b: Builder, x: Value, dim: int = -1) -> Value:
    """One half of the channels times a gate from the other."""
    half = x.shape[dim_of(x, dim)] // 2
    return b.combine(split(b, x, half, dim), "product")


@register_op(*(f"aten::{name}" for name in FILLED))
def filled(b: Builder, like: object, *args: Any, **_: Any) -> None:
    """A tensor with the shape of another, and none of its values."""
    if any(isinstance(a, Value) for a in args):
        raise Scrambled("a tensor is filled with a value that depends on the input")
