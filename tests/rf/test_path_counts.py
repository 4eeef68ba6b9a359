"""Path counts of linear networks against one-hot images that are sent forward."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Net, conv
from tests.spatial_graph.oracle import Size, forward_counts, graph_counts

CASES: dict[str, tuple[Net, Size, str]] = {}


def case(size: Size = (13, 16), only: str = "", **layers: nn.Module) -> Callable:
    """A linear network; `only`: the one value of `pool` that one-hot images tell."""

    def add(run: Callable) -> Callable:
        CASES[run.__name__] = (Net(run, **layers), size, only)
        return run

    return add


@case(a=conv(), b=conv(4, 4, 3, 2), c=conv(4, 6, 5, 2))
def chain(n: Net, x: Tensor) -> Tensor:
    return n.c(n.b(n.a(x).relu()).relu())


@case(a=conv(3, 4), b=conv(4, 2), c=conv(6, 3, 5), d=conv(9, 2, 1), e=conv(11, 5, 3, 2))
def dense_block(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    for layer in (n.b, n.c, n.d):
        x = torch.cat([x, layer(x)], 1)
    return n.e(x)


@case(a=conv(3, 4), b=conv(4, 2), c=conv(6, 3, 5))
def dense_block_left_open(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    for layer in (n.b, n.c):
        x = torch.cat([x, layer(x)], 1)
    return x


@case(
    a=conv(), b=conv(3, 8, 1), c=conv(12, 12, 3, groups=4), d=conv(12, 6, 3, groups=3),
    e=conv(6, 6, 3, groups=6),
)  # fmt: skip
def grouped_over_classes(n: Net, x: Tensor) -> Tensor:
    return n.e(n.d(n.c(torch.cat([n.a(x), n.b(x)], 1))))


@case(a=conv(3, 4, 5), b=conv(3, 4, 1), c=conv(8, 8, 3, groups=2))
def shuffled(n: Net, x: Tensor) -> Tensor:
    y = torch.cat([n.a(x), n.b(x)], 1)
    y = y.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
    return n.c(y)


@case(a=conv(), b=nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), c=conv(6, 4))
def transposed(n: Net, x: Tensor) -> Tensor:
    return n.c(n.b(n.a(x)))


@case(a=conv(3, 4, 4, 2, 1), b=nn.Conv2d(4, 4, (2, 5), (2, 1), (0, 2), dilation=(2, 1)))
def even_and_dilated(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x))


@case(a=conv(), b=conv(4, 4))
def residual(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return y + n.b(y) + y


@case(size=(12, 16), a=conv(), b=conv(16, 3), c=conv(16, 16, 3, groups=8))
def space_to_depth(n: Net, x: Tensor) -> Tensor:
    y = F.pixel_unshuffle(n.a(x), 2)
    return n.b(y) + n.b(n.c(y))


@case(size=(12, 16), a=conv(), b=conv(16, 3))
def focus(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(torch.cat([y[..., i::2, j::2] for j in (0, 1) for i in (0, 1)], 1))


@case(a=conv(3, 8), b=conv(2, 3))
def depth_to_space(n: Net, x: Tensor) -> Tensor:
    return n.b(F.pixel_shuffle(n.a(x), 2))


@case(a=conv(), b=conv(36, 4, 1))
def unfolded(n: Net, x: Tensor) -> Tensor:
    return n.b(F.unfold(n.a(x), 3, padding=1).view(-1, 36, 13, 16))


@case(size=(12, 16), a=conv())
def unfolded_and_folded(n: Net, x: Tensor) -> Tensor:
    return F.fold(F.unfold(n.a(x), 4, stride=2, padding=1), (12, 16), 4, stride=2, padding=1)


for _mode in ("reflect", "replicate", "circular"):

    @case(a=conv(), b=conv(4, 4, 3, 2))
    def padded(n: Net, x: Tensor, mode: str = _mode) -> Tensor:
        return n.b(F.pad(n.a(x), (3, 2, 1, 4), mode=mode))

    CASES[f"padded_{_mode}"] = CASES.pop("padded")


@case(a=conv(), b=conv(12, 4), c=conv(3, 4, 1))
def copies(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    same = y.unsqueeze(1).expand(-1, 3, -1, -1, -1)
    return n.b(same.flatten(1, 2)) + same.sum(1) + same.mean(1) + y.repeat(1, 2, 1, 1)[:, 2:6]


@case(a=conv(), c=conv(3, 4, 1))
def stacked(n: Net, x: Tensor) -> Tensor:
    y, z = n.a(x), n.c(x)
    return torch.stack([y, z]).sum(0) + torch.stack([y, z], 1).sum(1) + torch.stack([z, y]).mean(0)


@case(a=conv(), b=conv(4, 4), c=conv(3, 2, 1), d=conv(1, 4))
def mean_of_channels(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y) + n.d(torch.cat([y, n.c(x)], 1).mean(1, keepdim=True))


@case(a=conv(), b=conv(4, 4))
def written_to_slices(n: Net, x: Tensor) -> Tensor:
    y, out = n.b(n.a(x)), n.a(x)
    out[:, 1:3, 2:9, ::2] += y[:, :2, 3:10, 1::2]
    out[:, 0].zero_()
    return n.b(out)


@case(a=conv(), b=conv(4, 4))
def joined_rows(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    z = n.b(y)
    return n.b(torch.cat([y, z], 2) + torch.cat([z[:, :, 5:], y, z[:, :, :5]], 2))


@case(a=conv(), b=conv(4, 4))
def pooled_by_view(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)[:, :, :12, :15]
    return n.b(y.unflatten(2, (6, 2)).unflatten(4, (5, 3)).sum((3, 5)))


@case(a=conv(), linear=nn.Linear(4, 6), b=conv(6, 3))
def channels_last(n: Net, x: Tensor) -> Tensor:
    return n.b(n.linear(n.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@case(size=(12, 16), linear=nn.Linear(48, 6))
def patches(n: Net, x: Tensor) -> Tensor:
    x = x.unflatten(2, (3, 4)).unflatten(4, (4, 4)).permute(0, 2, 4, 3, 5, 1)
    return n.linear(x.flatten(3)).permute(0, 3, 1, 2)


@case(a=conv(), b=nn.Conv3d(1, 2, 3, padding=1), c=conv(3, 4, 1))
def across_channels(n: Net, x: Tensor) -> Tensor:
    return n.b(torch.cat([n.a(x), n.c(x)], 1)[:, None]).flatten(1, 2)


@case(a=conv(), b=conv(4, 4, 3, 2), c=conv(4, 4, 3, 2))
def upsampled(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return y + F.interpolate(n.c(n.b(y)), y.shape[2:])


for _i, (_k, _s, _p, _ceil, _include) in enumerate(
    [
        (3, 2, 1, True, True), (3, 2, 1, True, False), (2, 2, 0, True, True),
        (2, 2, 0, False, True), (3, 3, 0, True, False), ((2, 3), (2, 1), (1, 0), True, False),
        (5, 1, 2, False, False), (2, 3, 1, True, True), (2, 3, 1, True, False),
    ]
):  # fmt: skip
    for _size in ((12, 14), (13, 15)):

        @case(size=_size, a=conv(), b=conv(4, 4, 3, 2))
        def averaged(n: Net, x: Tensor, args: tuple = (_k, _s, _p, _ceil, _include)) -> Tensor:
            return n.b(F.avg_pool2d(n.a(x), *args))

        @case(size=_size, a=conv(), b=conv(4, 4, 3, 2))
        def maximal(n: Net, x: Tensor, args: tuple = (_k, _s, _p, 1, _ceil)) -> Tensor:
            return n.b(F.max_pool2d(n.a(x), *args))

        for _name in ("averaged", "maximal"):
            CASES[f"{_name}_{_i}_{_size[0]}"] = CASES.pop(_name)


@case(only="mean", a=conv(), b=timm.layers.BlurPool2d(4), c=conv(4, 4))
def blurred(n: Net, x: Tensor) -> Tensor:
    return n.c(n.b(n.a(x)))


class Scaled(nn.Module):
    """A fixed 1x1 kernel: a buffer, not a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.full((4, 1, 1, 1), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, groups=4)


@case(only="mean", a=conv(), b=Scaled(), c=conv(4, 4))
def scaled_by_a_fixed_kernel(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return n.c(n.b(x)) + x


@case(only="mean", a=conv(), b=conv(4, 4, 3, 2))
def interpolated(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return y + F.interpolate(n.b(y), y.shape[2:], mode="bilinear")


@case(only="mean", a=conv(), b=conv(4, 4), d=conv(4, 4, 1))
def pooled_and_resized(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    pooled = F.interpolate(n.d(x.mean((2, 3), keepdim=True)), x.shape[2:], mode="nearest")
    return x + n.b(pooled) + F.interpolate(F.adaptive_avg_pool2d(x, (4, 5)), x.shape[2:])


@case(only="mean", a=conv(), b=nn.Conv1d(1, 1, 3, padding=1))
def eca(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return x + n.b(x.mean((2, 3)).unsqueeze(1)).squeeze(1)[..., None, None]


@case(only="mean", a=conv(), b=conv(4, 4))
def means_of_blocks(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)[:, :, :12, :15]
    blocks = y.unflatten(2, (3, 4)).unflatten(4, (5, 3)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    blocks = F.avg_pool2d(blocks, 3, 2, 1, False, False)
    blocks = blocks.unflatten(0, (-1, 3, 5)).permute(0, 3, 1, 4, 2, 5)
    return n.b(blocks.flatten(2, 3).flatten(3, 4)) + y.unflatten(2, (2, 6)).mean(2)[..., :10]


@case(only="mean", a=conv())
def divisor(n: Net, x: Tensor) -> Tensor:
    return F.avg_pool2d(n.a(x), 3, 2, divisor_override=4)


@pytest.mark.parametrize("name", CASES)
def test_forward_counts(name: str) -> None:
    module, size, only = CASES[name]
    graph = spatial_graph(module, size)
    height, width = graph.map_size(graph.output)
    for pool in [only] if only else ["count", "mean"]:
        for channels in ("single", "real"):
            for unit in ((0, 0), (height - 1, width - 1), (height // 2, width // 2)):
                truth = forward_counts(module, size, unit, channels, pool)
                found = graph_counts(graph, unit, channels, pool=pool, gates="count")
                np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-12 * truth.max())


@pytest.mark.parametrize(
    "name", ["dense_block", "averaged_1_13", "interpolated", "blurred", "copies"]
)
@pytest.mark.parametrize("pool", ["count", "mean"])
@pytest.mark.parametrize("channels", ["single", "real"])
def test_exact_and_float_agree(name: str, pool: str, channels: str) -> None:
    module, size, _ = CASES[name]
    graph = spatial_graph(module, size)
    rule = Convention(channels, pool)
    exact = Target(graph).counts((3, 3), rule, exact=True).counts
    assert all(isinstance(n, int | Fraction) for n in exact.flat)
    quick = Target(graph).counts((3, 3), rule).counts
    assert np.abs(exact.astype(float) - quick).max() <= 1e-12 * quick.max()
