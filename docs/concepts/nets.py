"""The small networks of the pages on concepts."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def strided(layers: int = 3) -> nn.Module:
    """3x3 convolutions of stride 2, as ResNet has them."""
    return nn.Sequential(*(nn.Conv2d(1, 1, 3, 2, 1) for _ in range(layers)))


def plain(layers: int = 20, channels: int = 8) -> nn.Module:
    """3x3 convolutions of stride 1, one behind the other."""
    widths = [1, *[channels] * layers]
    convolutions = (nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairwise(widths))
    return nn.Sequential(*convolutions)


class Skip(nn.Module):
    """Two convolutions along a sequence, and a skip connection around them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv1d(1, 1, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, L) to the same."""
        return x + self.second(torch.relu(self.first(x)))


def decoder(kernel: int = 3) -> nn.Module:
    """A strided 3x3 convolution, and a transposed one that doubles the map again."""
    return nn.Sequential(
        nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, kernel, 2, 1, output_padding=kernel % 2)
    )
