"""Several fields side by side at full resolution: what the chains lack.

Without resizing, whatever joins two branches joins two fields. widths and in_chans: as in `chains`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.classify.nets.chains import DILATIONS, WIDTHS, check_widths, layer


class Skips(nn.Module):
    """A chain of dilated layers whose classifier reads every layer."""

    def __init__(self, classes: int, in_chans: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = (in_chans, *widths[:-1])
        self.features = nn.ModuleList(
            layer(a, b, dilation=d) for a, b, d in zip(inputs, widths, DILATIONS, strict=True)
        )
        self.join = Join()
        self.head = nn.Linear(sum(widths), classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) to scores (N, classes)."""
        maps = []
        for part in self.features:
            x = part(x)
            maps.append(x)
        return self.head(self.join(maps).mean((2, 3)))


class Forked(nn.Module):
    """A trunk of dilated layers that forks into branches of different fields, a head's each."""

    def __init__(
        self, classes: int, in_chans: int, widths: Sequence[int], forks: Sequence[int]
    ) -> None:
        super().__init__()
        *trunk, width = widths
        inputs = (in_chans, *trunk[:-1])
        self.trunk = nn.Sequential(
            *(layer(a, b, dilation=d) for a, b, d in zip(inputs, trunk, (1, 2, 4), strict=True))
        )
        self.branches = nn.ModuleList(layer(trunk[-1], width, dilation=d) for d in forks)
        self.join = Join()
        self.head = nn.Linear(width * len(forks), classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) to scores (N, classes)."""
        x = self.trunk(x)
        return self.head(self.join([branch(x) for branch in self.branches]).mean((2, 3)))


class HRNet(nn.Module):
    """HRNet (Wang et al., 2020) with dilations in place of resolutions: branch i has 2^i.

    A stage is a layer in every branch and an exchange between them; behind each but the last a
    branch is added.
    """

    def __init__(self, classes: int, in_chans: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = layer(in_chans, widths[0])
        counts = range(1, len(widths) + 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(layer(widths[i], widths[i], dilation=2**i) for i in range(n))
            for n in counts
        )
        self.exchanges = nn.ModuleList(Exchange(widths[:n]) for n in counts)
        self.added = nn.ModuleList(
            layer(widths[i - 1], widths[i], dilation=2**i) for i in range(1, len(widths))
        )
        self.join = Join()
        self.head = nn.Linear(sum(widths), classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) to scores (N, classes)."""
        maps = [self.stem(x)]
        stages: Any = zip(self.layers, self.exchanges, strict=True)
        for stage, (branches, exchange) in enumerate(stages):
            maps = exchange([part(m) for part, m in zip(branches, maps, strict=True)])
            if stage < len(self.added):
                maps.append(self.added[stage](maps[-1]))
        return self.head(self.join(maps).mean((2, 3)))


class Exchange(nn.Module):
    """Every branch becomes the sum of all, through 1x1 convolutions where the widths differ."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if i == j else nn.Sequential(
                    nn.Conv2d(widths[j], widths[i], 1, bias=False), nn.BatchNorm2d(widths[i])
                )
                for j in range(len(widths))
            )
            for i in range(len(widths))
        )  # fmt: skip

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, widths[i], H, W) to as many of the same shapes."""
        rows: Any = self.paths
        return [F.relu(sum(path(m) for path, m in zip(row, maps, strict=True))) for row in rows]


class Join(nn.Module):
    """Maps of one size, one behind the other: the last map of a network, by name."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Several (N, C, H, W) to (N, sum of C, H, W)."""
        return torch.cat(list(maps), 1)


def skips(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """`dilated` with a head that reads all four layers, fields of 3, 7, 15 and 31 px."""
    check_widths(widths, len(DILATIONS))
    return Skips(classes, in_chans, widths)


def three_fields(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """Three layers to 15 px, then three branches of dilation 2, 4 and 8: 19, 23 and 31 px.

    For a detector with a head each for small, medium and large objects, all at full resolution
    (rfbench/detect/fields.py); TridentNet (Li et al., 2019) forks at stride 16.
    """
    check_widths(widths, 4)
    return Forked(classes, in_chans, widths, (2, 4, 8))


def hrnet(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = (16, 24, 32)) -> nn.Module:
    """Three branches of dilation 1, 2 and 4 that exchange what they see, all at full resolution."""
    check_widths(widths, len(widths) or 1)
    return HRNet(classes, in_chans, widths)
