"""Convolutions: of maps, across channels, transposed, with fixed kernels, with dynamic weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from rfbench.spatial_graph.axis import Axis, Index, Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import (
    SPATIAL,
    Factor,
    Scrambled,
    Value,
    channels,
    solid,
    tidy,
    uniform,
    view,
    windows_over,
)
from rfbench.spatial_graph.node import Opaque, Reach
from rfbench.spatial_graph.ops.join import positions_to_channels
from rfbench.spatial_graph.ops.masked import cut, masked
from rfbench.spatial_graph.ops.registry import Constant, each_axis, register_op
from rfbench.spatial_graph.ops.slide import along, unfurl
from rfbench.spatial_graph.ops.views import widen


@dataclass(frozen=True)
class Convolution:
    """The arguments of a convolution: shapes of weight and result, and per axis what they say.

    kernel: the weights where they are fixed (a buffer's), None where they are learned.
    """

    weight: Sequence[int]
    out: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int = 1
    transposed: bool = False
    kernel: Tensor | None = None


@register_op("aten::convolution", "aten::_convolution")
def convolution(
    b: Builder,
    x: Value | Constant,
    weight: Value | Constant,
    _bias: object,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    _output_padding: object,
    groups: int,
    *_backend: bool,
) -> Value:
    if isinstance(x, Constant):
        raise Scrambled("the weights, but not the map, depend on the input")
    fixed = weight.values if isinstance(weight, Constant) else None
    s, p, d = (each_axis(v, len(weight.shape) - 2) for v in (stride, padding, dilation))
    conv = Convolution(weight.shape, b.out_shape, s, p, d, groups, transposed, fixed)
    rank = len(x.dims)
    b.takes_channels(x, rank - len(s) - 1, range(rank - len(s), rank))
    nonzero = weight.nonzero if isinstance(weight, Constant) else None
    if nonzero is not None and _fixed_taps(fixed, groups) is None:
        return _masked(b, x, conv, nonzero)
    out = convolve(b, x, conv)
    return gated(b, out, weight) if isinstance(weight, Value) else out


def convolve(b: Builder, x: Value, conv: Convolution) -> Value:
    """A convolution with weights that do not depend on the input."""
    first = len(x.dims) - (len(conv.weight) - 2)
    x, weights = _unfolded(b, x, first - 1, conv.groups)
    windows = _windows(b, x, conv)
    for dim in windows:
        x = unfurl(b, x, dim)
    rows, x, windows = _over_channels(x, windows)
    axes, dims = along(b, x, windows)
    channel, rank, width = first - 1, len(x.dims), conv.out[first - 1]
    new = (*dims[:channel], tidy([Factor("c", width)]), *dims[channel + 1 :])
    alone = rows is x.labels and rows.size == rows.shape[channel]  # no labels but the channels'
    if alone and (conv.groups == 1 or len(x.classes.ids) == 1):
        n = rows.size // conv.groups
        each = rows.ravel() if len(x.classes.ids) > 1 else {i: n for i in x.share}
        node = b.node("conv", each, axes, weights, channels=n)
        return uniform(new, [width if i == channel else 1 for i in range(rank)], node)
    rows = np.moveaxis(rows, channel, rank - 1)  # behind it only taps over channels
    rows = rows.reshape(*rows.shape[: rank - 1], conv.groups, -1)
    labels = b.mixed(rows, lambda r: b.node("conv", r, axes, weights))
    labels = np.moveaxis(np.repeat(labels, width // conv.groups, axis=-1), -1, channel)
    return Value(new, labels)


def _masked(b: Builder, x: Value, conv: Convolution, nonzero: Tensor) -> Value:
    """A convolution with a kernel of which some weights are always zero."""
    if conv.transposed:  # (C_in, C_out / groups, k, k)
        nonzero = torch.cat([part.transpose(0, 1) for part in nonzero.chunk(conv.groups)])
    x = solid(x, len(x.dims) - len(conv.weight) + 1)
    first = len(x.dims) - len(conv.weight) + 2
    for dim in range(first, len(x.dims)):
        x = unfurl(b, x, dim)
    windows: dict[int, Axis] = {first + i: Window() for i in range(len(conv.weight) - 2)}
    windows |= _windows(b, x, replace(conv, kernel=None))
    return masked(b, x, windows, nonzero.numpy(), conv.groups)


def _windows(b: Builder, x: Value, conv: Convolution) -> dict[int, Axis]:
    """The window along every dimension behind the channels."""
    k, s, p, d = conv.weight[2:], conv.stride, conv.padding, conv.dilation
    first = len(x.dims) - len(k)
    taps = _fixed_taps(conv.kernel, conv.groups) or (None,) * len(k)
    if conv.transposed:
        return transposed_windows(b, x, k, s, p, d, conv.out[-len(k) :])
    return {
        first + i: _trimmed(Window(k[i], s[i], p[i], p[i], d[i], taps=taps[i]))
        for i in range(len(k))
        if not k[i] == s[i] == 1 or p[i] or taps[i]
    }


def _trimmed(window: Window) -> Window:
    """Without the taps at both ends that weigh nothing."""
    if not window.taps:
        return window
    known = [i for i, weight in enumerate(window.taps) if weight]
    some = slice(known[0], known[-1] + 1)
    axis = cut(window, some)
    assert isinstance(axis, Window)
    return replace(axis, taps=window.taps[some])


def transposed_windows(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out: Sequence[int],
) -> dict[int, Axis]:
    """The maps of a transposed convolution: output o reads input (o + padding - tap) / stride."""
    b.rigid = True
    axes: dict[int, Axis] = {}
    for i in range(len(kernel)):
        dim = len(x.dims) - len(kernel) + i
        taps = np.arange(kernel[i]) * dilation[i]
        at, rest = np.divmod(np.add.outer(np.arange(out[i]) + padding[i], -taps), stride[i])
        inside = (rest == 0) & (at >= 0) & (at < x.shape[dim])
        phases = _phases(kernel[i], stride[i], padding[i], dilation[i])
        axes[dim] = Index(np.where(inside, at, -1), phases=phases)
    return axes


def _phases(k: int, s: int, padding: int, d: int) -> tuple[tuple[int, int] | None, ...]:
    """First and last inputs of outputs 0 ... s - 1, without borders; None for one without any."""
    reads = [
        [(o + padding - t * d) // s for t in range(k) if (o + padding - t * d) % s == 0]
        for o in range(s)
    ]
    return tuple((min(r), max(r)) if r else None for r in reads)


def _unfolded(b: Builder, x: Value, dim: int, groups: int) -> tuple[Value, int]:
    """Positions that a space-to-depth put among the channels become channels or a window first.

    Returns the tensor and how many of the convolution's weights each of its channels has.
    """
    x = solid(x, dim)
    if all(f.axis == "c" for f in x.dims[dim]):
        return x, 1
    if groups > 1:
        return positions_to_channels(b, x, dim), 1
    factors, shape = x.dims[dim], x.shape
    x = view(x, (*shape[:dim], *(f.size for f in factors), *shape[dim + 1 :]))
    x = b.contract(x, [dim + i for i, f in enumerate(factors) if f.axis in SPATIAL], "sum")
    n = channels(tidy(list(factors)))
    return view(x, (*shape[:dim], n, *shape[dim + 1 :])), shape[dim] // n


def _over_channels(x: Value, windows: dict[int, Axis]) -> tuple[np.ndarray, Value, dict[int, Axis]]:
    """Windows over channels instead of positions (pixels of a patch, ECA across channels).

    Returns the labels with a last axis of taps for each, the tensor as such a window leaves it, and
    the windows over positions.
    """
    rows, kept = x.labels, {}
    for dim, window in windows.items():
        if not x.dims[dim] or any(f.axis in SPATIAL for f in x.dims[dim]):
            kept[dim] = window
            continue
        if isinstance(window, Window) and window.taps:
            raise Scrambled("a fixed kernel runs across channels")
        at = window.matrix(x.shape[dim])
        rows = solid(Value(x.dims, rows), dim).labels
        rows = windows_over(rows, dim, at)
        x = Value((*x.dims[:dim], tidy([Factor("c", len(at))]), *x.dims[dim + 1 :]), x.labels)
    return rows, x, kept


def gated(b: Builder, out: Value, gate: Value) -> Value:
    """A convolution whose weights depend on the input (CondConv): a context."""
    if gate.spatial:
        raise Scrambled("the weights of a convolution depend on the position")
    gate = b.contract(gate, list(range(len(gate.dims))), "pool")
    return b.combine([out, gate], "product")


def _fixed_taps(weight: Tensor | None, groups: int) -> tuple[tuple[Fraction, ...], ...] | None:
    """One-dimensional taps, an axis each, of a depthwise fixed kernel such as BlurPool's binomial.

    None: every tap counts one, as in a learned kernel.
    """
    if weight is None:
        return None
    alike = weight.shape[:2] == (groups, 1) and (weight == weight[:1]).all()
    if alike and (weight >= 0).all() and bool(weight.any()):
        kernel = weight[0, 0].double()
        axes, whole = range(kernel.dim()), kernel.sum()
        first, *more = (kernel.sum([a for a in axes if a != i]) for i in axes)
        product = first
        for taps in more:
            product = product.unsqueeze(-1) * taps / whole
        if torch.allclose(product, kernel, rtol=1e-6):
            return _fractions(first), *(_fractions(taps / whole) for taps in more)
    return None


def _fractions(values: torch.Tensor) -> tuple[Fraction, ...]:
    """Weights of a fixed kernel as the simple fractions that they stand for."""
    return tuple(Fraction(float(v)).limit_denominator(10**6) for v in values)


@register_op(*(f"torchvision::{p}roi_{how}" for p in ("", "ps_") for how in ("align", "pool")))
def pooled_boxes(b: Builder, *_: object) -> Opaque:
    return b.opaque(Reach.UNSUPPORTED, "it reads boxes, wherever they lie")


@register_op("torchvision::deform_conv2d")
def deformable(
    b: Builder,
    x: Value | Constant,
    weight: Constant,
    offsets: Value | Constant,
    mask: Value | Constant,
    _bias: object,
    *steps: int,
) -> Value | Opaque:
    """With offsets that are a table of zeros: a convolution, times a mask of its taps."""
    known = offsets.values if isinstance(offsets, Constant) else None
    if isinstance(offsets, Value) or known is None or bool((known != 0).any()):
        values = "depend on the values of the image"
        fixed = "are not known" if known is None else "move its taps"
        where = values if isinstance(offsets, Value) else fixed
        return b.opaque(Reach.UNSUPPORTED, f"its offsets {where}")
    used = steps[8]  # whether there is a mask; else it is an empty one
    if isinstance(x, Constant) or (
        used and isinstance(mask, Constant) and mask.nonzero is not None
    ):
        raise Scrambled("a mask takes some of its taps away")
    stride, padding, dilation = (list(steps[i : i + 2]) for i in (0, 2, 4))
    out = convolution(b, x, weight, None, stride, padding, dilation, False, None, steps[6])
    if not used or not isinstance(mask, Value):
        return out
    gate = b.contract(mask, [1], "pool")
    return b.combine([out, widen(gate, 1, b.out_shape[1])], "product")
