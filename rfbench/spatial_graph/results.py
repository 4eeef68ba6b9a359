"""Results of common operations on the meta device, without running the operations.

torch computes many shapes in Python, in up to milliseconds an operation. A rule here answers only
where shape, type and order in memory of the result follow from those of contiguous arguments; it
gives None everywhere else, and the operation is run. tests/spatial_graph/test_results.py makes the
same calls both ways.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Shape = Sequence[int]
_META = torch.device("meta")
Result = Tensor | tuple[Tensor, ...] | None

_KINDS = (Tensor, torch.nn.Parameter)  # no subclass, whose operations are its own
_EXACT = (torch.float32, torch.float64)  # of which torch takes statistics in the same type


def known(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What an operation returns; None where it has to be run."""
    rule = RULES.get(func) or MISSING.get(func)
    if rule is None:
        return None
    try:
        return rule(*args, **kwargs)
    except TypeError:  # other arguments than the rule knows
        return None


def _plain(*tensors: Any) -> bool:
    """Whether these are contiguous meta tensors of one floating-point type, none of them empty."""
    return _typed(*tensors) and all([t.is_contiguous() for t in tensors])


def _typed(*tensors: Any) -> bool:
    """The same in any order in memory."""
    first = tensors[0]
    if type(first) not in _KINDS or not first.dtype.is_floating_point:
        return False
    dtype = first.dtype
    for t in tensors:
        if type(t) not in _KINDS or not t.is_meta or t.dtype is not dtype or not t.numel():
            return False
    return True


def _new(like: Tensor, shape: Shape) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=_META)


def _numbers(*values: Any) -> bool:
    return all(v is None or type(v) in (int, float, bool, str) for v in values)


def unary(x: Any, *args: Any, **kwargs: Any) -> Result:
    """Activations: of a tensor, with numbers."""
    fits = _numbers(*args, *kwargs.values()) and _plain(x)
    return _new(x, x.shape) if fits else None


def binary(x: Any, y: Any, *, alpha: Any = 1) -> Result:
    """Sums and products; one of two tensors has the shape of the result."""
    if not isinstance(y, Tensor):
        return unary(x, alpha) if type(y) in (int, float) else None
    if not _numbers(alpha) or not _plain(x, y):
        return None
    if _spreads(y.shape, x.shape):
        return _new(x, x.shape)
    return _new(x, y.shape) if _spreads(x.shape, y.shape) else None


def _spreads(small: Shape, large: Shape) -> bool:
    """Whether a shape broadcasts to another as it is."""
    extra = len(large) - len(small)
    return extra >= 0 and all(m in (1, n) for m, n in zip(small, large[extra:], strict=True))


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Result:
    given = [weight] if bias is None else [weight, bias]
    if transposed:
        _check_transposed(x, weight, bias, stride, dilation, output_padding, groups)
    if transposed or not _plain(x, *given) or x.dim() != weight.dim():
        return None
    c_out, c_in, *kernel = weight.shape
    if not len(kernel) == len(stride) == len(padding) == len(dilation) or min(stride) < 1:
        return None
    if c_in * groups != x.shape[1] or c_out % groups or any(t.shape != (c_out,) for t in given[1:]):
        return None
    each = zip(x.shape[2:], kernel, padding, dilation, strict=True)
    room = [n + 2 * p - d * (k - 1) - 1 for n, k, p, d in each]
    if min(room) < 0 or min(padding) < 0 or min(dilation) < 1:
        return None
    sides = (r // s + 1 for r, s in zip(room, stride, strict=True))
    return _new(x, (x.shape[0], c_out, *sides))


def _check_transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    dilation: list[int],
    output_padding: list[int],
    groups: int,
) -> None:
    """Raise what torch raises with data; on meta it takes any channels (torch 2.14)."""
    c_in, channels = weight.shape[0], x.shape[1 - weight.dim()]
    if channels != c_in:
        raise RuntimeError(
            f"expected {c_in} channels before a transposed convolution, but got {channels}"
        )
    c_out = weight.shape[1] * groups
    if bias is not None and bias.shape != (c_out,):
        raise RuntimeError(f"expected a bias of {c_out} values, but got {bias.numel()}")
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=False)):
        raise RuntimeError("output padding must be smaller than either stride or dilation")


def embedding(weight: Tensor, indices: Tensor, *_: Any) -> Result:
    """Raises what torch raises with data; on meta some versions take any numbers (2.11)."""
    if indices.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got {indices.dtype} instead"
        )
    known = _plain(weight) and indices.is_meta and indices.is_contiguous()
    return _new(weight, (*indices.shape, weight.shape[1])) if known else None


def batch_norm(x: Tensor, *args: Any) -> Result:
    *given, training, _, _ = args
    each = [t for t in given if t is not None]
    kept = [t for t in given[2:] if t is not None]  # in training it would write to these
    if len(kept) != (0 if training else 2) or x.dtype not in _EXACT:
        return None
    if not _plain(x, *each):
        return None
    channels = x.shape[1:2]
    if any(t.shape != channels for t in each):
        return None
    return _new(x, x.shape), _new(x, channels), _new(x, channels)


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, _eps: float
) -> Result:
    each = [t for t in (weight, bias) if t is not None]
    if x.dtype not in _EXACT or not _typed(x, *each):
        return None  # of x in any order in memory, the result is contiguous
    axes, form = x.dim() - len(shape), tuple(shape)
    if axes < 0 or x.shape[axes:] != form or any(t.shape != form for t in each):
        return None
    saved = (*x.shape[:axes], *(1 for _ in shape))
    return _new(x, x.shape), _new(x, saved), _new(x, saved)


def group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    _positions: int,
    groups: int,
    _eps: float,
) -> Result:
    each = [t for t in (weight, bias) if t is not None]
    if x.dtype not in _EXACT or not _plain(x, *each) or c % groups:
        return None
    if x.shape[:2] != (n, c) or any(t.shape != (c,) for t in each):
        return None
    return _new(x, x.shape), _new(x, (n, groups)), _new(x, (n, groups))


def mean(x: Tensor, dims: list[int] | None, keep: bool = False) -> Result:
    if not dims or not _plain(x) or not x.dim():
        return None
    if not all(-x.dim() <= d < x.dim() for d in dims):
        return None
    over = {d % x.dim() for d in dims}
    if len(over) != len(dims):
        return None
    sides = [1 if i in over else n for i, n in enumerate(x.shape) if keep or i not in over]
    return _new(x, sides)


def cat(tensors: list[Tensor], dim: int = 0) -> Result:
    if not tensors or not _plain(*tensors):
        return None
    form = list(tensors[0].shape)
    if not -len(form) <= dim < len(form):
        return None
    dim %= len(form)
    rest = {(*t.shape[:dim], None, *t.shape[dim + 1 :]) for t in tensors}
    if len(rest) > 1 or any(t.dim() != len(form) for t in tensors):
        return None
    form[dim] = sum(t.shape[dim] for t in tensors)
    return _new(tensors[0], form)


def addmm(bias: Tensor, a: Tensor, b: Tensor) -> Result:
    """Of a linear layer, whose weight is transposed."""
    if not _plain(bias, a) or type(b) not in _KINDS or not b.is_meta or b.dtype is not a.dtype:
        return None
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or bias.shape != b.shape[1:]:
        return None
    return _new(a, (a.shape[0], b.shape[1]))


def softmax(x: Tensor, _dim: int, half_to_float: bool) -> Result:
    return _new(x, x.shape) if not half_to_float and _plain(x) and x.dim() else None


def safe_softmax(x: Tensor, _dim: int, dtype: Any = None) -> Result:
    return _new(x, x.shape) if dtype is None and _plain(x) and x.dim() else None


def pad(x: Tensor, amounts: list[int], value: Any = 0) -> Result:
    if not _plain(x) or not _numbers(value) or len(amounts) % 2 or len(amounts) > 2 * x.dim():
        return None
    sides = list(x.shape)
    for i in range(len(amounts) // 2):
        sides[-1 - i] += amounts[2 * i] + amounts[2 * i + 1]
        if min(amounts) < 0 or sides[-1 - i] < 1:
            return None
    return _new(x, sides)


def fake_quantize(x: Tensor, *_: Any) -> Result:
    """The rounded tensor, and which of its entries are not cut off."""
    return (_new(x, x.shape), torch.empty(x.shape, dtype=torch.bool, device=_META))


_UNARY = (
    "relu", "hardtanh", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu",
    "elu", "mish", "softplus", "exp", "abs", "neg", "sqrt", "rsqrt", "clamp", "clamp_min",
)  # fmt: skip
_aten = torch.ops.aten
RULES: dict[Any, Callable[..., Result]] = {
    **{getattr(_aten, name).default: unary for name in _UNARY},
    **{getattr(_aten, name).Tensor: binary for name in ("add", "sub", "mul", "div")},
    **{getattr(_aten, name).Scalar: binary for name in ("add", "sub", "mul", "div")},
    _aten.pow.Tensor_Scalar: unary,
    _aten.convolution.default: convolution,
    _aten.embedding.default: embedding,
    _aten.native_batch_norm.default: batch_norm,
    _aten.native_layer_norm.default: layer_norm,
    _aten.native_group_norm.default: group_norm,
    _aten.mean.dim: mean,
    _aten.cat.default: cat,
    _aten.addmm.default: addmm,
    _aten._softmax.default: softmax,
    _aten._safe_softmax.default: safe_softmax,
    _aten.constant_pad_nd.default: pad,
}
# of which torch has no shapes on the meta device
MISSING: dict[Any, Callable[..., Result]] = {
    _aten.fake_quantize_per_tensor_affine_cachemask.default: fake_quantize,
    _aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: fake_quantize,
    _aten.fake_quantize_per_channel_affine_cachemask.default: fake_quantize,
    _aten._fused_moving_avg_obs_fq_helper.default: fake_quantize,
}
