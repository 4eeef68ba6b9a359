"""Pooling over windows: maximum, average, adaptive."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from rfbench.spatial_graph.axis import Axis, Full, Index, Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import Scrambled, Value
from rfbench.spatial_graph.ops.registry import Constant, axes_of, each_axis, register_op
from rfbench.spatial_graph.ops.slide import slide


@register_op("aten::max_pool2d_with_indices", "aten::max_pool3d_with_indices")
def max_pool(
    b: Builder,
    x: Value,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> list[Value]:
    """The maxima, and where they are, which depends on the same positions."""
    return [_pool(b, x, kernel, stride, padding, dilation, ceil)] * 2


@register_op("aten::fractional_max_pool2d", "aten::fractional_max_pool3d")
def fractional_max_pool(
    b: Builder, x: Value, kernel: Sequence[int], out: Sequence[int], samples: Value | Constant
) -> list[Value]:
    """Windows at uneven distances, as the samples given to the module say."""
    fixed = samples.values if isinstance(samples, Constant) else None
    if fixed is None:
        raise Scrambled(
            "it draws its windows at random in every pass, unless given _random_samples"
        )
    rows = fixed.double().reshape(-1, len(out))
    if (rows != rows[:1]).any():
        raise Scrambled("each channel has windows of its own")
    b.rigid = True
    axes: dict[int, Axis] = {}
    for i, (k, m) in enumerate(zip(kernel, out, strict=True)):
        dim = len(x.dims) - len(out) + i
        spare, draw = x.shape[dim] - k, float(rows[0, len(out) - 1 - i])  # the last axis first
        step = spare / (m - 1) if m > 1 else 0.0
        starts = [int((j + draw) * step) - int(draw * step) for j in range(m - 1)]
        axes[dim] = Index(np.add.outer(np.array([*starts, spare]), np.arange(k)))
    return [slide(b, x, axes, "pool")] * 2


@register_op("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d")
def avg_pool(
    b: Builder,
    x: Value,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    include_padding: bool = True,
    divisor: int | None = None,
) -> Value:
    divide = "kernel" if include_padding else "valid"
    return _pool(b, x, kernel, stride, padding, 1, ceil, divide, divisor)


def _pool(
    b: Builder,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool,
    divide: str = "",
    divisor: int | None = None,
) -> Value:
    """A window over the last dimensions. divisor: in place of the window's size."""
    axes = axes_of(b.op)
    k, p, d = (each_axis(v, axes) for v in (kernel, padding, dilation))
    s = each_axis(stride, axes) if stride else k
    first = len(x.dims) - axes
    b.rigid = list(x.shape[first:]) == k  # the size of the map may be where the kernel's is from
    taps = None
    if divisor:
        divide, taps = "", (Fraction(1, divisor),) * k[0]
    windows: dict[int, Axis] = {}
    for i in range(axes):
        weights = None if i else taps
        windows[first + i] = Window(k[i], s[i], p[i], p[i], d[i], ceil, weights, divide)
    return slide(b, x, windows, "pool")


@register_op(
    "aten::adaptive_avg_pool1d", "aten::_adaptive_avg_pool2d", "aten::_adaptive_avg_pool3d"
)
def adaptive_avg_pool(b: Builder, x: Value, size: Sequence[int]) -> Value:
    return _adaptive(b, x, size, "kernel")


@register_op("aten::adaptive_max_pool2d", "aten::adaptive_max_pool3d")
def adaptive_max_pool(b: Builder, x: Value, size: Sequence[int]) -> list[Value]:
    return [_adaptive(b, x, size, "")] * 2


def _adaptive(b: Builder, x: Value, size: Sequence[int], divide: str) -> Value:
    """A window where the input divides evenly, else torch's uneven bins."""
    axes: dict[int, Axis] = {}
    for i, m in enumerate(size):
        dim = len(x.dims) - len(size) + i
        n = x.shape[dim]
        if m == 1:
            axes[dim] = Full(divide and "valid")
        elif n % m == 0:
            axes[dim] = Window(n // m, n // m, divide=divide)
        else:
            bins = [(j * n // m, -(-(j + 1) * n // m)) for j in range(m)]
            most = max(hi - lo for lo, hi in bins)
            at = np.array([[*range(lo, hi), *[-1] * (most - hi + lo)] for lo, hi in bins])
            axes[dim] = Index(at, (at >= 0) / (at >= 0).sum(1, keepdims=True))
    if all(m == 1 for m in size):
        return slide(b, x, axes, "pool")
    b.rigid = True
    return slide(b, x, axes, "adaptive")
