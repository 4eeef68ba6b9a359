"""Pools, paddings, resizes, transposed windows: operations with a window along both axes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from rfbench.spatial_graph.axis import Axis, Full, Index, Window, from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import Factor, Scrambled, Value, permute, shape, tidy, view
from rfbench.spatial_graph.ops.slide import along, slide, whole_axis
from rfbench.spatial_graph.ops.views import cat, copies, pick, select


def _pair(v: Any, rank: int = 2) -> list[int]:
    values = [v] if isinstance(v, int) else list(v)
    return values * rank if len(values) == 1 else values


def pool(
    b: Builder,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil: bool = False,
    divide: str = "",
    divisor: int | None = None,
) -> Value:
    """Max- and average pooling over the last two dimensions. divisor: in place of the window's."""
    k, p, d = _pair(kernel), _pair(padding), _pair(dilation)
    s = _pair(stride) if stride else k
    first = len(x.dims) - 2
    b.rigid = list(shape(x)[first:]) == k  # the size of the map may be where the kernel's is from
    taps = None
    if divisor:
        divide, taps = "", (Fraction(1, divisor),) * k[0]
    y = Window(k[0], s[0], p[0], p[0], d[0], ceil, taps, divide)
    return slide(
        b,
        x,
        {first: y, first + 1: Window(k[1], s[1], p[1], p[1], d[1], ceil, None, divide)},
        "pool",
    )


def adaptive(b: Builder, x: Value, size: list[int], divide: str) -> Value:
    """Adaptive pooling: a window where the input divides evenly, else torch's uneven bins."""
    axes: dict[int, Axis] = {}
    for i, m in enumerate(size):
        dim = len(x.dims) - 2 + i
        n = shape(x)[dim]
        if m == 1:
            axes[dim] = Full(divide and "valid")
        elif n % m == 0:
            axes[dim] = Window(n // m, n // m, divide=divide)
        else:
            bins = [(j * n // m, -(-(j + 1) * n // m)) for j in range(m)]
            most = max(hi - lo for lo, hi in bins)
            at = np.array([[*range(lo, hi), *[-1] * (most - hi + lo)] for lo, hi in bins])
            axes[dim] = Index(at, (at >= 0) / (at >= 0).sum(1, keepdims=True))
    if list(size) == [1, 1]:
        return slide(b, x, axes, "pool")
    b.rigid = True
    return slide(b, x, axes, "adaptive")


def pad(b: Builder, x: Value, amounts: list[int], value: Any = 0) -> Value | None:
    """Constant padding or cropping of channels or of whole axes."""
    windows: dict[int, Axis] = {}
    for i in range(0, len(amounts), 2):
        dim, before, after = len(x.dims) - 1 - i // 2, amounts[i], amounts[i + 1]
        if not (before or after):
            continue
        factors, n = x.dims[dim], shape(x)[dim]
        is_axis = whole_axis(b, x, dim, i // 2 + 1)[0] is not None if not factors else False
        if is_axis or any(f.axis in "hw" for f in factors):
            windows[dim] = Window(1, 1, before, after)
            continue
        middle = pick(b, x, dim, np.arange(n)[max(-before, 0) : n + min(after, 0)])
        joined = cat(
            b, [None, middle, None], dim, [max(before, 0), shape(middle)[dim], max(after, 0)]
        )
        if joined is None:
            return None
        x = joined
    b.rigid = True
    return slide(b, x, windows, "structure") if windows else x


def tabled(
    b: Builder,
    x: Value,
    run: Callable[[torch.Tensor, int], torch.Tensor],
    inner: Sequence[Window | None] = (None, None),
) -> Value:
    """A map along each of the last two axes as torch itself tells it: `run` on one-hot columns.

    run: takes (1, n, n, 2) and the axis, returns (1, n, m, 2). inner: see axis.Index.
    """
    b.rigid = True
    axes: dict[int, Axis] = {}
    for i in (0, 1):
        dim = len(x.dims) - 2 + i
        n = shape(x)[dim]
        # two columns alike: torch 2.15 resizes maps of width 1 wrongly with antialiasing
        columns = torch.eye(n, dtype=torch.float64).view(1, n, n, 1).repeat(1, 1, 1, 2)
        table = run(columns, i)[0, :, :, 0].T.numpy()
        most = int((table != 0).sum(1).max())
        at = np.argsort(table == 0, axis=1, kind="stable")[:, :most]
        weights = np.take_along_axis(table, at, axis=1)
        at = np.where(weights != 0, at, -1)
        whole = (weights == 1).all()
        made = from_matrix(at, n, None if whole else weights)
        axes[dim] = replace(made, inner=inner[i]) if isinstance(made, Index) else made
    return slide(b, x, axes, "structure")


def resize(b: Builder, func: Any, x: Value, size: list[int], *more: Any) -> Value:
    """Interpolation; of a single position, copies."""
    if not x.spatial:
        return copies(b.same(x), (*shape(x)[:-2], *size))
    align = [m for m in more if isinstance(m, bool)]
    scales = [m for m in more if not isinstance(m, bool)] or [None, None]
    return tabled(b, x, lambda t, i: func(t, [size[i], 2], *align, scales[i], None))


def spread(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out: Sequence[int],
) -> dict[int, Axis]:
    """The maps of a transposed convolution: output o hears input (o + padding - tap) / stride."""
    b.rigid = True
    axes: dict[int, Axis] = {}
    for i in range(len(kernel)):
        dim = len(x.dims) - len(kernel) + i
        taps = np.arange(kernel[i]) * dilation[i]
        there = np.add.outer(np.arange(out[i]) + padding[i], -taps)
        at, rest = np.divmod(there, stride[i])
        inside = (rest == 0) & (at >= 0) & (at < shape(x)[dim])
        axes[dim] = Index(np.where(inside, at, -1))
    return axes


def im2col(
    b: Builder,
    x: Value,
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """Every tap of a window as channels of its own: (1, C k k, h w)."""
    b.rigid = True
    dims = x.dims
    taps = []
    for ty in range(kernel[0]):
        for tx in range(kernel[1]):
            windows: dict[int, Axis] = {}
            for i, tap in enumerate((ty, tx)):
                n, before = shape(x)[2 + i], padding[i] - tap * dilation[i]
                out = Window(kernel[i], stride[i], padding[i], padding[i], dilation[i]).out_size(n)
                after = (out - 1) * stride[i] + 1 - n - before
                windows[2 + i] = Window(1, stride[i], before, after)
            axes, dims = along(b, x, windows)
            taps.append(b.moved(x, axes, dims).labels)
    labels = np.concatenate([t.reshape(1, -1, 1, 1) for t in taps], axis=2).reshape(1, -1, 1)
    return Value(((), tidy([Factor("c", labels.shape[1])]), tidy([*dims[2], *dims[3]])), labels)


def col2im(
    b: Builder,
    x: Value,
    out: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """Sum taps back to where they came from: the transpose of im2col."""
    k = kernel[0] * kernel[1]
    sizes = [
        Window(kernel[i], stride[i], padding[i], padding[i], dilation[i]).out_size(out[i])
        for i in (0, 1)
    ]
    x = view(x, (1, shape(x)[1] // k, k, *sizes))
    taps = []
    for tap, (ty, tx) in enumerate(np.ndindex(*kernel)):
        part = select(b, x, 2, tap)
        shift = [padding[0] - ty * dilation[0], padding[1] - tx * dilation[1]]
        axes = spread(b, part, [1, 1], stride, shift, [1, 1], out)
        taps.append(slide(b, part, axes, "structure"))
    return b.combine(taps)


def pixel_unshuffle(b: Builder, x: Value, r: int) -> Value:
    _, c, h, w = shape(x)
    x = permute(view(x, (1, c, h // r, r, w // r, r)), [0, 1, 3, 5, 2, 4])
    return view(x, (1, c * r * r, h // r, w // r))


def pixel_shuffle(b: Builder, x: Value, r: int) -> Value:
    _, c, h, w = shape(x)
    x = view(x, (1, c // r**2, r * r, h, w))
    if (x.labels != x.labels[:, :, :1]).any() or any(f.axis in "hw" for f in x.dims[2]):
        raise Scrambled("channels of different history become positions")
    x = select(b, x, 2, 0)
    return tabled(b, x, lambda t, i: t.repeat_interleave(r, 2))
