"""Pools: how a changed convolution samples its input.

A pool is a factory (channels, axes) -> nn.Module, called once for each changed convolution; axes is
the number of spatial axes, 1, 2 or 3. One that also takes `stride=`, a number for each axis, serves
other strides than 2 too; the others are refused for those. The module takes (N, C, H, W), or as
many axes as it was made for, and returns one of two things:

- a map of 1 / stride of the size, rounded up: the convolution then runs at stride 1;
- a map of the same size: the convolution keeps its stride.

A module whose attribute `after` is true samples what the convolution at stride 1 returns; channels
are then the convolution's outputs.

It stores no tensor, neither as parameter nor as buffer nor as attribute: state-dict keys stay those
of the plain network, and `to_empty` with a strict load leaves nothing unset. The attribute `level`
of a module that has one is set to the level that its convolution reads: 0 for the finest map that
any changed convolution reads, 1 for the next coarser, ...; -1 if evaluation does not reach it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

Stride = tuple[int, ...] | None  # None: 2 along every axis


def average(channels: int, axes: int, stride: Stride = None) -> nn.Module:
    """The paper's pool: the mean of 2 pixels along every axis, or of as many as the stride."""
    if axes == 3:
        return Average3d(stride or (2, 2, 2))
    make = (nn.AvgPool1d, nn.AvgPool2d)[axes - 1]
    window: Any = stride or 2
    # for odd maps the last window averages a single pixel, which keeps the size ceil(H / 2)
    return make(window, window, ceil_mode=True, count_include_pad=False)


@torch.fx.wrap  # symbolic tracing would fail at the `if`
def _average3d(x: Tensor, window: list[int]) -> Tensor:
    d, h, w = window
    if x.shape[2] >= d and x.shape[3] >= h and x.shape[4] >= w:
        return F.avg_pool3d(x, window, window, ceil_mode=True, count_include_pad=False)
    # torch refuses volumes smaller than the window, but not images: first along depth
    flat = F.avg_pool2d(x.flatten(3), [d, 1], [d, 1], 0, True, False)
    rows = flat.reshape(x.shape[0], -1, x.shape[3], x.shape[4])
    rows = F.avg_pool2d(rows, [h, w], [h, w], 0, True, False)
    return rows.reshape(x.shape[0], x.shape[1], -1, rows.shape[2], rows.shape[3])


class Average3d(nn.AvgPool3d):
    """nn.AvgPool3d of its stride that takes a volume of one frame too."""

    def __init__(self, window: tuple[int, ...]) -> None:
        super().__init__(window, window, ceil_mode=True, count_include_pad=False)  # type: ignore
        self.window = list(window)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, D, H, W) to a map of 1 / stride of the size, rounded up."""
        return _average3d(input, self.window)


def maximum(channels: int, axes: int, stride: Stride = None) -> nn.Module:
    """The maximum of 2 pixels along every axis, or of as many as the stride."""
    make = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    window: Any = stride or 2
    return make(window, window, ceil_mode=True)


@torch.fx.wrap  # symbolic tracing would fail at the `if`
def _triangle(x: Tensor, stride: int) -> Tensor:
    """[1, 2, 1] / 4 for a stride of 2, in the dtype and on the device of `x`.

    In general the mean of `stride` pixels twice over.
    """
    # real values for a meta tensor too, so that the spatial graph can read them
    device = torch.device("cpu") if x.is_meta else x.device
    # computed on the device, since a copy from the CPU would wait for the GPU
    place = torch.arange(2 * stride - 1, dtype=x.dtype, device=device)
    return (stride - (place - (stride - 1)).abs()) / (stride * stride)


class Blur(nn.Module):
    """BlurPool (Zhang, 2019) before the convolution: [1, 2, 1] / 4 along every axis, then every
    second pixel; at a stride of s the triangle of 2 s - 1 pixels, whose phases weigh the same.

    As `timm.layers.BlurPool2d(pad_mode="replicate")`, but for any number of axes and without its
    buffer, which is not in the state dict and would be undefined after `to_empty` and a load.
    """

    after = False

    def __init__(self, channels: int, axes: int, stride: Stride = None) -> None:
        super().__init__()
        self.channels = channels
        self.axes = axes
        self.stride = list(stride or (2,) * axes)
        self.pads = [s - 1 for s in reversed(self.stride) for _ in (0, 1)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)); with 1 or 3 axes alike."""
        row = _triangle(x, self.stride[0])
        # replicate, since a map of one pixel cannot be reflected
        x = F.pad(x, self.pads, mode="replicate")
        if self.axes == 1:
            kernel = row.repeat(self.channels, 1, 1)
            return F.conv1d(x, kernel, stride=self.stride, groups=self.channels)
        plane = row[:, None] * _triangle(x, self.stride[1])
        if self.axes == 2:
            kernel = plane.repeat(self.channels, 1, 1, 1)
            return F.conv2d(x, kernel, stride=self.stride, groups=self.channels)
        kernel = plane[:, :, None] * _triangle(x, self.stride[2])
        kernel = kernel.repeat(self.channels, 1, 1, 1, 1)
        return F.conv3d(x, kernel, stride=self.stride, groups=self.channels)

    def extra_repr(self) -> str:
        strides = "" if set(self.stride) == {2} else f", stride={self.stride}"
        return f"{self.channels}, axes={self.axes}{strides}"


class BlurAfter(Blur):
    """BlurPool behind the convolution, as Zhang has it: behind its activation where one follows."""

    after = True


class Alternate(nn.Module):
    """No pooling: every second level samples the odd pixels instead of the even ones.

    The shifts of one level then cancel those of the next. At a stride of s: the last of s pixels
    instead of the first.
    """

    def __init__(self, channels: int, axes: int, stride: Stride = None) -> None:
        super().__init__()
        self.axes = axes
        self.level = -1
        last = [s - 1 for s in reversed(stride or (2,) * axes)]
        self.more = [n for s in last for n in (0, s)]
        self.less = [-n for s in last for n in (s, 0)]

    def forward(self, x: Tensor) -> Tensor:
        """The map unchanged or, at even levels, shifted by one pixel up and left; same size."""
        # first wider, then narrower: a map may be smaller than the stride
        return F.pad(F.pad(x, self.more), self.less) if self.level % 2 == 0 else x

    def extra_repr(self) -> str:
        return f"level={self.level}"


# To add a pool, add one entry; variants, commands and tests follow.
POOLS: dict[str, Callable[..., nn.Module]] = {
    "avg": average,
    "blur": Blur,
    "max": maximum,
    "alt": Alternate,
    "blur_after": BlurAfter,
}
