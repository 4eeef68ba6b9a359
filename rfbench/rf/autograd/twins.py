"""The path-counting twin of each torch function: what it becomes in N' (paper, section 3).

Convolutions are all-ones without bias, activations and norms the identity, max-pooling an all-ones
depthwise convolution; a product or a difference of maps adds their paths. `rf.nprime` puts them in
place. A function in none of these tables is refused by name, never guessed. To teach the autograd
engine a function, add its name to a table or a method to `Windows`.
"""

import math
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names without the underscores of in-place and operator forms: relu_ is relu, __iadd__ is iadd.
IDENTITY = _names(
    "relu relu6 leaky_relu rrelu prelu elu selu celu silu mish gelu hardswish hardsigmoid "
    "hardtanh sigmoid logsigmoid tanh softplus softsign hardshrink softshrink tanhshrink "
    "threshold clamp clip clamp_min clamp_max abs neg positive pos pow rpow square sqrt rsqrt "
    "exp expm1 log log1p reciprocal erf sin cos nan_to_num batch_norm layer_norm group_norm "
    "instance_norm rms_norm local_response_norm normalize dropout dropout1d dropout2d dropout3d "
    "alpha_dropout feature_dropout feature_alpha_dropout detach data to type type_as float "
    "double half bfloat16 cpu cuda real"
)
SUMS = _names(
    "add iadd radd sub subtract isub rsub mul multiply imul rmul div divide true_divide truediv "
    "itruediv rtruediv rdiv addcmul addcdiv maximum minimum lerp"
)
REDUCTIONS = _names("mean sum amax amin max min var std norm vector_norm linalg_vector_norm")
AXES = _names("permute transpose swapaxes swapdims movedim moveaxis t T mT H adjoint")
SPREADS = _names("expand expand_as broadcast_to repeat tile interpolate upsample")
SHAPES = _names(
    "view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze "
    "repeat_interleave cat concat concatenate stack chunk split split_with_sizes tensor_split "
    "unbind unsafe_chunk unsafe_split iter getitem setitem copy narrow select index_select "
    "contiguous clone roll flip rot90 pad constant_pad_nd reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d pixel_shuffle "
    "pixel_unshuffle channel_shuffle native_channel_shuffle unfold fold"
)
SHAPES |= AXES | SPREADS
# Asked of a map, or made in its likeness: nothing of the map's values goes into the answer.
QUERIES = _names(
    "size dim ndimension numel nelement len stride storage_offset is_contiguous "
    "is_floating_point is_complex element_size data_ptr get_device hash repr format zeros_like "
    "ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full "
    "new_tensor"
)
# Every position sees every other. In a context that gates=ignore cuts off they do no harm.
NONLOCAL = _names(
    "softmax log_softmax matmul bmm mm baddbmm einsum scaled_dot_product_attention "
    "multi_head_attention_forward cumsum lstm gru"
)


class Refused(Exception):
    """`args`: the function's name and why it has no twin."""


@dataclass
class Call:
    """One call of a torch function on a map, and what is known of its result."""

    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_place: bool
    given: list[Tensor]  # all tensors among the arguments
    maps: list[Tensor]  # those that depend on the input
    kept: list[Tensor] = field(default_factory=list)  # those whose paths go on
    last: bool = False  # the last axis holds the channels
    context: bool = False  # no positions: a global average and what follows from it


def summed(call: Call) -> Tensor:
    """The paths of all maps together, at the shape the call would have."""
    target = call.args[0] if call.in_place else None
    if target is not None and (_among(target, call.kept) or not _among(target, call.maps)):
        for tensor in call.kept[1:] if target is call.kept[0] else call.kept:
            target.add_(tensor)
        return target
    total = call.kept[0]
    for tensor in call.kept[1:]:
        total = total + tensor
    return total.expand(torch.broadcast_shapes(*(tensor.shape for tensor in call.given))).clone()


def reshaped(call: Call) -> Any:
    """The call itself: views, copies, paddings, resizes. Contexts not kept are constants in it."""
    args, kwargs, before = call.args, call.kwargs, call.kept[0]
    if len(call.kept) < len(call.maps):
        args, kwargs = tree_map_only(
            Tensor, lambda one: one if _among(one, call.kept) else one.detach(), (args, kwargs)
        )
    if call.name in AXES and before.ndim > 2:  # follow the channels on axes of unlike lengths
        probe = torch.empty(*range(2, before.ndim + 2), device="meta")
        axis = before.ndim - 1 if call.last else 1
        call.last = call.func(probe, *args[1:], **kwargs).shape[-1] == probe.shape[axis]
    point = no_positions(before)
    out = call.func(*args, **kwargs)
    call.context |= call.name in SPREADS and point and not no_positions(out)
    return tuple(out) if call.name == "iter" else out


def reduced(call: Call, single: bool, count: bool, n: int) -> Any:
    """Means, sums, maxima and norms over axes: sums of paths.

    Divided by the number of channels where those are reduced, by that of positions for a mean
    without `count`. n: the number of axes of the network's input.
    """

    def parse(x: Tensor, *rest: Any, **kwargs: Any) -> tuple[Tensor, Any, bool]:
        if "norm" in call.name:
            rest = rest[1:]  # norm(p, dim, keepdim)
        elif call.name in ("var", "std"):
            rest = rest[:1] + rest[2:]  # var(dim, unbiased, keepdim)
        dim = kwargs.get("dim", kwargs.get("axis", rest[0] if rest else None))
        return x, dim, bool(kwargs.get("keepdim", rest[1] if len(rest) > 1 else False))

    x, dim, keepdim = parse(*call.args, **call.kwargs)
    axes = [dim] if isinstance(dim, int) else list(dim or range(x.ndim))
    dims = {axis % x.ndim for axis in axes}
    stacked = x.ndim > n + 2  # branches
    channel = set() if stacked else {x.ndim - 1 if call.last else 1}
    averaged = dims & channel if single or call.name == "mean" else set()
    if call.name == "mean" and not count:
        averaged |= dims - channel
    call.context |= x.ndim in (3, n + 2) and dims >= set(range(1, x.ndim)) - channel
    out = x.sum(sorted(dims), keepdim) / math.prod(x.shape[axis] for axis in averaged)
    if call.name in ("max", "min") and dim is not None:
        kind = getattr(torch.return_types, call.name)
        return kind((out, torch.zeros_like(out, dtype=torch.long)))
    return out


class Windows:
    """Twins of the functions with a window, with their names and their signatures.

    `single`: convolutions weigh 1/C_in, else 1. `count`: pooling windows sum, else averages stay.
    axes: of the network's input. `fixed`: tensors that are buffers of the module or made of buffers
    only: BlurPool's kernel.
    """

    NAMES = frozenset(
        f"{name}{n}d"
        for name in ("conv", "conv_transpose", "avg_pool", "max_pool", "adaptive_avg_pool")
        for n in (1, 2, 3)
    ) | _names("linear adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")

    def __init__(
        self, single: bool, count: bool, fixed: MutableMapping[Tensor, bool], axes: int
    ) -> None:
        self.single, self.count, self.fixed, self.axes = single, count, fixed, axes

    def __call__(self, call: Call) -> Tensor:
        """The twin of `call`; Refused where the kernel depends on the map or windows differ."""
        if len(call.kept) > 1 or call.kept[0] is not call.given[0]:
            raise Refused(f"torch.{call.name}", "has a kernel that is computed from the map")
        if call.name == "conv1d" and call.context and (self.axes > 1 or call.last):
            return self._across_channels(*call.args, **call.kwargs)
        kind, own = call.name.rstrip("123d"), f"{self.axes}d"
        if call.name == "linear":
            return self._linear(call.last or call.context, *call.args, **call.kwargs)
        if not call.name.endswith(own):
            raise Refused(f"torch.{call.name}", f"in a network of {own.upper()} inputs has no twin")
        out: Tensor = getattr(self, f"_{kind}")(*call.args, **call.kwargs)
        call.context |= kind.startswith("adaptive") and set(out.shape[-self.axes :]) == {1}
        return out

    def kernel(self, weight: Tensor, fan_in: int) -> Tensor:
        """All-ones; a fixed kernel is scaled to a smallest weight of 1, or kept as it is."""
        scale = 1 / fan_in if self.single else 1.0
        if weight not in self.fixed:
            return torch.full(weight.shape, scale, dtype=torch.float64, device="cpu")
        if not bool((weight >= 0).all()):  # NaN where the module came on the meta device
            raise Refused(
                "the fixed kernel (a buffer)", "has negative weights or was on the meta device"
            )
        return weight * scale / weight[weight > 0].min() if self.count else weight

    def _across_channels(
        self, input: Tensor, weight: Tensor, bias: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        # Along the channels of a context (ECA): channels mixed, as in any convolution, with fewer
        # of them at the ends.
        ones = torch.ones_like(weight, dtype=torch.float64)
        out = F.conv1d(input, ones, None, *args, **kwargs)
        mixed = F.conv1d(torch.ones_like(input), ones, None, *args, **kwargs)
        return out / mixed if self.single else out

    def _linear(
        self, over_channels: bool, input: Tensor, weight: Tensor, bias: Any = None
    ) -> Tensor:
        # over positions it is a kernel of as many taps, each of them one path
        return F.linear(input, self.kernel(weight, weight.shape[1] if over_channels else 1))

    def _conv(
        self, input: Tensor, weight: Tensor, bias: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        return _F("conv", self.axes)(
            input, self.kernel(weight, weight.shape[1]), None, *args, **kwargs
        )

    def _conv_transpose(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        ones = self.kernel(weight, weight.shape[0] // groups)
        return _F("conv_transpose", self.axes)(
            input, ones, None, stride, padding, output_padding, groups, dilation
        )

    def _avg_pool(
        self,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        divisor = 1 if self.count else divisor_override
        return self._average(
            input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor
        )

    def _average(
        self,
        x: Tensor,
        kernel: Any,
        stride: Any,
        padding: Any,
        ceil: bool,
        include_padding: bool,
        divisor: int | None,
    ) -> Tensor:
        if self.axes > 1:
            average = _F("avg_pool", self.axes)
            return average(x, kernel, stride, padding, ceil, include_padding, divisor)
        # of sequences torch divides always: as images of one row
        k, s, p = (_each(value, 1)[0] for value in (kernel, stride or kernel, padding))
        rows = F.avg_pool2d(x.unsqueeze(-2), (1, k), (1, s), (0, p), ceil, include_padding, divisor)
        return rows.squeeze(-2)

    def _max_pool(
        self,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        if set(_each(dilation, self.axes)) == {1}:
            # an average without its divisor is the all-ones convolution
            return self._average(input, kernel_size, stride, padding, ceil_mode, True, 1)
        if ceil_mode:
            raise Refused("torch.max_pool", "is dilated and in ceil_mode at once")
        ones = input.new_ones(input.shape[1], 1, *_each(kernel_size, self.axes))
        step = stride or kernel_size
        convolve = _F("conv", self.axes)
        return convolve(input, ones, None, step, padding, dilation, input.shape[1])

    def _adaptive_avg_pool(self, input: Tensor, output_size: Any) -> Tensor:
        return self._adaptive(input, output_size, 1 if self.count else None)

    def _adaptive_max_pool(
        self, input: Tensor, output_size: Any, return_indices: bool = False
    ) -> Tensor:
        return self._adaptive(input, output_size, 1)

    def _adaptive(self, x: Tensor, output_size: Any, divisor: int | None) -> Tensor:
        have = x.shape[-self.axes :]
        want = [w or h for w, h in zip(_each(output_size, self.axes), have, strict=True)]
        if any(h % w for h, w in zip(have, want, strict=True)):
            sizes = " to ".join(" x ".join(map(str, one)) for one in (have, want))
            raise Refused("torch.adaptive_pool", f"from {sizes} has windows of unequal sizes")
        window = [h // w for h, w in zip(have, want, strict=True)]
        return self._average(x, window, window, 0, False, True, divisor)


def _F(name: str, axes: int) -> Any:
    """F.conv2d for 'conv' and 2."""
    return getattr(F, f"{name}{axes}d")


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def no_positions(tensor: Tensor) -> bool:
    """Whether at most one axis is longer than 1: (1, C), (1, C, 1, 1), (1, 1, 1, C)."""
    return tensor.numel() == max(tensor.shape, default=1)


def _each(value: Any, axes: int) -> tuple[Any, ...]:
    """A number for each axis: (a, a) for a or (a,)."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * axes if len(values) == 1 else values


def _among(tensor: Tensor, those: list[Tensor]) -> bool:
    return any(tensor is one for one in those)
