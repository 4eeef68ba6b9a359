"""Pools: how a changed convolution samples its input.

A pool is a factory (channels, axes) -> nn.Module, called once for each changed convolution; axes is
the number of spatial axes, 1, 2 or 3. The module takes (N, C, H, W), or as many axes as it was made
for, and returns one of two things:

- a map of half the size, rounded up: the convolution then runs at stride 1;
- a map of the same size: the convolution keeps its stride.

It stores no tensor, neither as parameter nor as buffer nor as attribute: state-dict keys stay those
of the plain network, and `to_empty` with a strict load leaves nothing unset. The attribute `level`
of a module that has one is set to the level that its convolution reads: 0 for the finest map that
any changed convolution reads, 1 for the next coarser, ...; -1 if evaluation does not reach it.
"""

from collections.abc import Callable

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn


def average(channels: int, axes: int) -> nn.Module:
    """The paper's pool: the mean of 2 pixels along every axis."""
    make = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
    # for odd maps the last window averages a single pixel, which keeps the size ceil(H / 2)
    return make(2, 2, ceil_mode=True, count_include_pad=False)


def maximum(channels: int, axes: int) -> nn.Module:
    """The maximum of 2 pixels along every axis."""
    return (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1](2, 2, ceil_mode=True)


@torch.fx.wrap  # symbolic tracing would fail at the `if`
def _binomial(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 in the dtype and on the device of `x`."""
    # real values for a meta tensor too, so that the spatial graph can read them
    device = torch.device("cpu") if x.is_meta else x.device
    # computed on the device, since a copy from the CPU would wait for the GPU
    return (2 - (torch.arange(3, dtype=x.dtype, device=device) - 1).abs()) / 4


class Blur(nn.Module):
    """BlurPool (Zhang, 2019): [1, 2, 1] / 4 along every axis, then every second pixel.

    As `timm.layers.BlurPool2d(pad_mode="replicate")`, but for any number of axes and without its
    buffer, which is not in the state dict and would be undefined after `to_empty` and a load.
    """

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.channels = channels
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)); with 1 or 3 axes alike."""
        row = _binomial(x)
        # replicate, since a map of one pixel cannot be reflected
        x = F.pad(x, [1, 1] * self.axes, mode="replicate")
        if self.axes == 1:
            return F.conv1d(x, row.repeat(self.channels, 1, 1), stride=2, groups=self.channels)
        plane = row[:, None] * row
        if self.axes == 2:
            kernel = plane.repeat(self.channels, 1, 1, 1)
            return F.conv2d(x, kernel, stride=2, groups=self.channels)
        kernel = (row[:, None, None] * plane).repeat(self.channels, 1, 1, 1, 1)
        return F.conv3d(x, kernel, stride=2, groups=self.channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, axes={self.axes}"


class Alternate(nn.Module):
    """No pooling: every second level samples the odd pixels instead of the even ones.

    The shifts of one level then cancel those of the next.
    """

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.level = -1

    def forward(self, x: Tensor) -> Tensor:
        """The map unchanged or, at even levels, shifted by one pixel up and left; same size."""
        return F.pad(x, [-1, 1] * self.axes) if self.level % 2 == 0 else x

    def extra_repr(self) -> str:
        return f"level={self.level}"


# To add a pool, add one entry; variants, commands and tests follow.
POOLS: dict[str, Callable[[int, int], nn.Module]] = {
    "avg": average,
    "blur": Blur,
    "max": maximum,
    "alt": Alternate,
}
