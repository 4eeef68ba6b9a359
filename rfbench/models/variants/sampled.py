"""The surgery: a layer that also samples, with a pool before or behind its own forward pass."""

import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import UsageError
from rfbench.models.pools import POOLS


class Pooled(nn.Module):
    """Mixed in before a layer's class: samples with the pool `rf_pool`, then runs the layer."""

    rf_base: type[nn.Module]
    if TYPE_CHECKING:  # TorchScript would read these annotations, and does not support such types
        rf_pool: nn.Module
        rf_convolve: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / s), ceil(W / s)); with 1 or 3 axes alike."""
        return self.rf_convolve(self.rf_pool(x))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # the class is created at run time: pickle and deepcopy recreate it from its base
        return (_blank, (self.rf_base,), *super().__reduce_ex__(max(2, protocol))[2:])


class PooledAfter(nn.Module):
    """Mixed in before a layer's class: runs the layer, then samples with the pool `rf_pool`."""

    rf_base: type[nn.Module]
    if TYPE_CHECKING:
        rf_pool: nn.Module
        rf_convolve: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / s), ceil(W / s)); with 1 or 3 axes alike."""
        return self.rf_pool(self.rf_convolve(x))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (_blank, (self.rf_base, True), *super().__reduce_ex__(max(2, protocol))[2:])


SAMPLED = (Pooled, PooledAfter)
_CLASSES: dict[tuple[type[nn.Module], bool], Any] = {}  # one by class of the layer, and order


def _sampled(base: type[nn.Module], after: bool) -> type[nn.Module]:
    if (base, after) not in _CLASSES:
        mixin: Any = PooledAfter if after else Pooled
        body = {"__module__": __name__, "__doc__": base.__doc__, "rf_base": base}
        name = f"{mixin.__name__}{base.__name__}"
        _CLASSES[base, after] = type(name, (mixin, base), body | _methods(base, after))
    return _CLASSES[base, after]


def _methods(base: type[nn.Module], after: bool) -> dict[str, Any]:
    """The methods that the mixins need: the layer's forward pass under another name."""
    forward = base.forward
    if not inspect.isfunction(forward) or len(inspect.signature(forward).parameters) != 2:
        return {"forward": _forward_with_more_after if after else _forward_with_more}
    # TorchScript supports neither super() nor *args, and reads a method's name from its code
    code, scope = forward.__code__, forward.__globals__
    convolve = types.FunctionType(
        code, scope, "rf_convolve", forward.__defaults__, forward.__closure__
    )
    convolve.__annotations__ = forward.__annotations__
    return {"rf_convolve": convolve}


def _forward_with_more(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """For convolutions with more inputs than a map: the expert weights of timm's CondConv2d."""
    return self.rf_base.forward(self, self.rf_pool(x), *args, **kwargs)


def _forward_with_more_after(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return self.rf_pool(self.rf_base.forward(self, x, *args, **kwargs))


def _blank(base: type[nn.Module], after: bool = False) -> nn.Module:
    return _sampled(base, after).__new__(_sampled(base, after))


def make_pool(
    pool: str, channels: int, stride: tuple[int, ...] = (2, 2), level: int = -1
) -> nn.Module:
    """The pool `POOLS[pool]` for a map of `channels`, with one stride an axis.

    Raises UsageError if it samples at stride 2 only, or stores a tensor.
    """
    factory = POOLS[pool]
    if all(s == 2 for s in stride):
        sample = factory(channels, len(stride))
    elif "stride" in inspect.signature(factory).parameters:
        sample = factory(channels, len(stride), stride=stride)
    else:
        raise UsageError(f"the pool '{pool}' samples at stride 2 only, not at {shown(stride)}")
    held = [value for m in sample.modules() for value in vars(m).values()]
    if [*sample.parameters(), *sample.buffers()] or any(isinstance(v, Tensor) for v in held):
        raise UsageError(
            f"the pool '{pool}' stores a tensor, which would change the keys of checkpoints or be "
            "lost by to_empty(). Compute it in forward()."
        )
    if hasattr(sample, "level"):
        vars(sample)["level"] = level
    return sample


def shown(stride: tuple[int, ...]) -> str:
    """2 for (2, 2), 2x1 for (2, 1)."""
    return str(stride[0]) if len(set(stride)) == 1 else "x".join(map(str, stride))


def each(value: Any, axes: int) -> tuple[int, ...]:
    """A number, or a list of one, for every axis: as torch reads them."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * axes if len(values) == 1 else values


def stride_of(layer: Any) -> tuple[int, ...]:
    """The stride of a convolution or a max pool along each axis."""
    if isinstance(layer, MAX_POOLS):
        return each(layer.kernel_size if layer.stride is None else layer.stride, axes_of(layer))
    return each(layer.stride, axes_of(layer))


MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def axes_of(layer: Any) -> int:
    """The number of spatial axes of a convolution or a max pool."""
    if isinstance(layer, MAX_POOLS):
        return next(i for i, kind in enumerate(MAX_POOLS, 1) if isinstance(layer, kind))
    return len(layer.kernel_size)


def is_after(pool: str) -> bool:
    """Whether a pool samples what a convolution at stride 1 gives, not what it reads."""
    return bool(getattr(make_pool(pool, 1), "after", False))


def swap(layer: Any, pool: str, level: int = -1, channels: int = 1) -> None:
    """Change one convolution or max pool in place. channels: that a max pool reads."""
    after = isinstance(layer, MAX_POOLS) or is_after(pool)
    if not isinstance(layer, MAX_POOLS):
        channels = layer.out_channels if after else layer.in_channels
    stride = stride_of(layer)
    sample = make_pool(pool, channels, stride, level)
    x = torch.empty(1, channels, *(4 * s for s in stride), device="meta")
    if sample(x).shape != x.shape:
        if isinstance(layer, MAX_POOLS) and layer.ceil_mode:
            sample = _with_last_window(layer, sample)
        unstrided(layer)
    else:
        after = False  # a max pool of its own stride, on a map that was moved
    attach(layer, sample, after)


class Cropped(nn.Module):
    """Cuts some positions off the end of every axis, and samples the rest."""

    def __init__(self, sample: nn.Module, less: tuple[int, ...]) -> None:
        super().__init__()
        self.sample = sample
        self.less = [-n for own in reversed(less) for n in (0, own)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to what the sample makes of (N, C, H - less, W - less)."""
        return self.sample(F.pad(x, self.less))


def _with_last_window(layer: Any, sample: nn.Module) -> nn.Module:
    """The sample for a max pool that rounds its size up (`ceil_mode`), whose padding it changes.

    The stride less one more windows are then needed at stride 1. They are taken before the first,
    which leaves the pool centred where its last window was cut short. The layer is left as it is
    where torch allows no such padding; its output then has another size.
    """
    axes = axes_of(layer)
    kernel, own = each(layer.kernel_size, axes), each(layer.padding, axes)
    more = tuple(s - 1 for s in stride_of(layer))
    padding = tuple(p + m for p, m in zip(own, more, strict=True))
    dense = all(d == 1 for d in each(layer.dilation, axes))
    if not dense or any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        return sample
    layer.padding, layer.ceil_mode = padding, False
    return Cropped(sample, more)


def unstrided(layer: Any) -> None:
    """Set the stride of a layer to 1."""
    # on the module, because timm's convolutions (Conv2dSame, StdConv2d, ...) read it from there
    layer.stride = tuple(1 for _ in stride_of(layer))


def attach(layer: Any, sample: nn.Module, after: bool) -> None:
    """Let `sample` sample what `layer` reads, or what it returns."""
    layer.__class__ = _sampled(type(layer), after)
    layer.rf_pool = sample.train(layer.training)
