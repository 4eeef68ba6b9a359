"""One period of every map tells what whole maps tell, of units that no border cuts."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfbench.rf.core.forward import all_units
from rfbench.rf.core.interior import Interior, interior
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.reader import spatial_graph

SIDE = 96


class Up(nn.Module):
    """Down by 4 and up by what is given, beside a shorter way."""

    def __init__(self, up: Callable[[Tensor], Tensor], axes: int = 2) -> None:
        super().__init__()
        conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][axes - 1]
        self.a, self.b, self.c = conv(1, 2, 3, 2, 1), conv(2, 2, 4, 2, 1), conv(2, 1, 3, 1, 1)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        skip = self.a(x)
        y = self.up(self.b(skip))
        return self.c(y + skip if y.shape == skip.shape else y)


class Rows(nn.Module):
    """Rows of two branches in turn: as wide, but one has more paths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 5, padding=2), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(1, 2, 2 * x.shape[2], x.shape[3])
        y[:, :, ::2], y[:, :, 1::2] = self.a(x), self.b(self.b(x))
        return y


def mask(keep: slice) -> Callable[[Tensor], Tensor]:
    def masked(x: Tensor) -> Tensor:
        kept = torch.zeros(SIDE // 4)
        kept[keep] = 1
        return F.interpolate(x * kept, scale_factor=2)

    return masked


UPS: dict[str, nn.Module] = {
    "nearest": Up(nn.Upsample(scale_factor=2)),
    "nearest 3/2": Up(nn.Upsample(scale_factor=1.5)),
    "bilinear": Up(nn.Upsample(scale_factor=4, mode="bilinear")),
    "bicubic": Up(nn.Upsample(scale_factor=2, mode="bicubic")),
    "3/2": Up(nn.ConvTranspose2d(2, 2, 3, 2, 1, 1)),
    "4/2": Up(nn.ConvTranspose2d(2, 2, 4, 2, 1)),
    "5/3": Up(nn.ConvTranspose2d(2, 2, 5, 3, 1)),
    "shuffled": Up(nn.Sequential(nn.Conv2d(2, 8, 1), nn.PixelShuffle(2))),
    "reflected": Up(nn.Sequential(nn.ReflectionPad2d(2), nn.Upsample(scale_factor=2))),
    "averaged": Up(nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(3, 1, 1))),
    "rows": Up(Rows()),
    "every third column": Up(mask(slice(0, None, 3))),
    "1-D": Up(nn.Upsample(scale_factor=8), 1),
    "3-D": Up(nn.ConvTranspose3d(2, 2, 3, 2, 1, 1), 3),
}
CONVENTIONS = [Convention(), Convention(pool="mean"), Convention(channels="real")]


def middle(module: nn.Module, axes: int) -> tuple[Target, tuple[slice, ...]]:
    """A target, and units in the middle of its map, of several periods."""
    side = SIDE if axes < 3 else 48
    target = Target(spatial_graph(module, (side,) * axes, 1))
    return target, tuple(slice(n // 2 - 5, n // 2 + 4) for n in target.units)


@pytest.mark.parametrize(("name", "convention"), product(UPS, CONVENTIONS), ids=str)
def test_one_period_is_that_of_whole_maps(name: str, convention: Convention) -> None:
    axes = 1 if name == "1-D" else 3 if name == "3-D" else 2
    target, where = middle(UPS[name], axes)
    given = target.graph, target.value, None
    short = interior(*given, target.theory, convention)
    assert isinstance(short, Interior)
    here, there = short.period(where), all_units(*given, convention).period(where)
    assert here.first == there.first
    np.testing.assert_allclose(here.centroids, there.centroids, atol=1e-9)
    # both up to a common factor
    np.testing.assert_allclose(
        here.totals / here.totals.mean(), there.totals / there.totals.mean(), rtol=1e-12
    )


@pytest.mark.parametrize("keep", [slice(0, 12), slice(1, None)], ids=str)
def test_a_mask_over_places_has_no_period(keep: slice) -> None:
    """Fields may stay as they are, while paths are lost."""
    target, _ = middle(Up(mask(keep)), 2)
    assert interior(target.graph, target.value, None, target.theory, Convention()) is None


@pytest.mark.parametrize(
    "up",
    [
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.AdaptiveAvgPool2d(7),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=4)),
        nn.Upsample(size=(31, 31)),
    ],
    ids=str,
)
def test_maps_without_a_period_have_none(up: nn.Module) -> None:
    target, _ = middle(Up(up), 2)
    assert interior(target.graph, target.value, None, target.theory, Convention()) is None


class Beside(nn.Module):
    """Channels that do not come from layer b lie before those that do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.a(x)
        return torch.cat([skip, F.interpolate(self.b(skip), scale_factor=2)], 1)


def test_channels_that_see_nothing_of_the_source_add_nothing() -> None:
    target = Target(spatial_graph(Beside(), (SIDE, SIDE), 1), None, "b")
    given = target.graph, target.value, target.origin
    short = interior(*given, target.theory, Convention())
    assert isinstance(short, Interior)
    where = (slice(20, 24), slice(20, 24))
    there = all_units(*given, Convention()).period(where)
    np.testing.assert_allclose(short.period(where).centroids, there.centroids, atol=1e-9)
