"""Pools: what a changed convolution samples its input with.

A pool is a factory (channels, axes) -> nn.Module, called once for each convolution that changes;
axes is the number of spatial axes, 1, 2 or 3. The module takes (N, C, H, W), or as many axes as it
was made for, and returns one of two things:

- a map of half the size, rounded up: the convolution then runs at stride 1;
- a map of the same size: the convolution keeps its stride.

It stores no tensor, neither a parameter nor a buffer nor an attribute: state-dict keys stay those
of the plain network, and `to_empty` with a strict load leaves nothing unset. A module with an
attribute `level` is told which map its convolution reads: 0 for the finest that any changed
convolution reads, 1 for the next coarser, ...; -1 where evaluation does not reach it.
"""

from collections.abc import Callable

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn


def average(channels: int, axes: int) -> nn.Module:
    """The paper's: the mean of 2 pixels along every axis."""
    make = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
    # odd maps: a last window of one pixel, averaged over what it holds, keeps the size ceil(H / 2)
    return make(2, 2, ceil_mode=True, count_include_pad=False)


def maximum(channels: int, axes: int) -> nn.Module:
    """The largest of 2 pixels along every axis."""
    return (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1](2, 2, ceil_mode=True)


@torch.fx.wrap  # or symbolic tracing would stop at the `if`
def _binomial(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 as `x` has its numbers, and where."""
    # on the meta device too, those who follow shapes alone can learn the values
    device = torch.device("cpu") if x.is_meta else x.device
    # computed there: a copy from the CPU would wait for the GPU
    return (2 - (torch.arange(3, dtype=x.dtype, device=device) - 1).abs()) / 4


class Blur(nn.Module):
    """BlurPool (Zhang, 2019): [1, 2, 1] / 4 along every axis, then every second pixel.

    As `timm.layers.BlurPool2d(pad_mode="replicate")`, but for any number of axes and without its
    buffer, which is not in the state dict: after `to_empty` and a strict load it holds anything.
    """

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.channels = channels
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)); with 1 or 3 axes alike."""
        row = _binomial(x)
        # replicate, not reflect: a map of one pixel has nothing to reflect
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
    """Nothing pooled: at every second level the odd pixels are sampled instead of the even ones.

    So the shifts of one level cancel those of the next.
    """

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.level = -1

    def forward(self, x: Tensor) -> Tensor:
        """The map as it is or, at even levels, moved by one pixel up and left; of the same size."""
        return F.pad(x, [-1, 1] * self.axes) if self.level % 2 == 0 else x

    def extra_repr(self) -> str:
        return f"level={self.level}"


# A new pool is one entry here; the list of variants, and with it every command and test, follows.
POOLS: dict[str, Callable[[int, int], nn.Module]] = {
    "avg": average,
    "blur": Blur,
    "max": maximum,
    "alt": Alternate,
}
