"""Forms of operations on sequences and volumes: the graph's support is that of gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.spatial_graph.node import Reach
from tests.spatial_graph.cases import Net, examine


def c1(i: int = 1, o: int = 3, k: int = 3, s: int = 1, p: int = 1, **more: Any) -> nn.Conv1d:
    return nn.Conv1d(i, o, k, s, p, **more)


def c3(i: int = 1, o: int = 3, k: Any = 3, s: Any = 1, p: Any = 1, **more: Any) -> nn.Conv3d:
    return nn.Conv3d(i, o, k, s, p, **more)


def channel_attention(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    gate = n.b(y.mean(-1, keepdim=True).transpose(1, 2)).transpose(1, 2)
    return y * torch.sigmoid(gate)


def frames_in_the_batch(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    frames = n.b(y.transpose(1, 2).reshape(-1, *y.shape[1:2], *y.shape[3:]))
    return n.c(frames.view(1, -1, *frames.shape[1:]).transpose(1, 2))


def both_ways(n: Net, x: Tensor) -> Tensor:
    return n.b(torch.cat([n.a(x), n.a(x.flip(-1)).flip(-1)], 1))


def space_to_depth(n: Net, x: Tensor) -> Tensor:
    d, h, w = (side // 2 for side in x.shape[2:])
    parts = x.view(1, 1, d, 2, h, 2, w, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return n.a(parts.reshape(1, 8, d, h, w))


def sub_samples(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return y.view(1, 2, 3, -1).permute(0, 1, 3, 2).reshape(1, 2, -1)


def masked(n: Net, x: Tensor) -> Tensor:
    return F.conv3d(x, n.a.weight * n.mask, None, 1, 1)


def causal_mask() -> Net:
    """The voxels before the centre, in the order of reading."""
    net = Net(masked, a=c3())
    flat = torch.ones(27)
    flat[14:] = 0
    net.register_buffer("mask", flat.view(3, 3, 3))
    return net


SEQUENCES: dict[str, nn.Module] = {
    "max_pool_ceil": nn.Sequential(c1(2, s=2), nn.MaxPool1d(3, 2, 1, ceil_mode=True)),
    "max_pool_dilated": nn.Sequential(c1(2, s=2), nn.MaxPool1d(3, 2, 1, dilation=2)),
    "adaptive_max": nn.Sequential(c1(2, s=2), nn.AdaptiveMaxPool1d(5)),
    "adaptive_avg": nn.Sequential(c1(2, s=2), nn.AdaptiveAvgPool1d(4)),
    "norm_pool": nn.Sequential(c1(2), nn.LPPool1d(2, 3, 2)),
    "sub_samples": Net(sub_samples, a=c1(2, 6)),
    "as_an_image": Net(
        lambda n, x: n.b(n.a(x).unsqueeze(1)).mean(2), a=c1(2, 8, 8, 4, 0), b=nn.Conv2d(1, 3, 3)
    ),
    "both_ways": Net(both_ways, a=c1(2, p=0), b=c1(6, 2, 5, 2)),
    "frames": Net(lambda n, x: n.a(x).unfold(2, 8, 4).mean(-1), a=c1(2)),
    "transposed": nn.Sequential(c1(2, 4, 4, 4, 0), nn.ConvTranspose1d(4, 2, 8, 4, 2)),
    "corners": nn.Sequential(c1(2, s=2), nn.Upsample(size=29, mode="linear", align_corners=True)),
}


def pooled_in_depth(n: Net, x: Tensor) -> Tensor:
    """As of 2-D pools: rows and columns in one dimension, which a window of 1 leaves alone."""
    y = n.a(x)
    return n.b(F.avg_pool2d(y.flatten(3), (2, 1)).unflatten(3, y.shape[3:]))


VOLUMES: dict[str, nn.Module] = {
    "pooled in depth": Net(pooled_in_depth, a=c3(), b=c3(3)),
    "adaptive_avg": nn.Sequential(c3(s=2), nn.AdaptiveAvgPool3d((2, 3, None))),
    "adaptive_max": nn.Sequential(c3(s=2), nn.AdaptiveMaxPool3d((2, 3, 2))),
    "one_frame_is_left": Net(
        lambda n, x: n.b(n.a(x).squeeze(2)),
        a=c3(k=(6, 3, 3), s=(1, 2, 2), p=(0, 1, 1)),
        b=nn.Conv2d(3, 4, 3, 2, 1),
    ),
    "frames_in_the_batch": Net(
        frames_in_the_batch, a=c3(), b=nn.Conv2d(3, 4, 3, padding=1), c=c3(4, 3, (3, 1, 1), p=0)
    ),
    "rolled": Net(lambda n, x: n.a(torch.roll(x, (1, -1), (2, 4))), a=c3()),
    "circular": nn.Sequential(c3(padding_mode="circular")),
    "replicated": nn.Sequential(c3(padding_mode="replicate")),
    "corners": nn.Sequential(
        c3(s=2), nn.Upsample(size=(5, 9, 7), mode="trilinear", align_corners=True)
    ),
    "space_to_depth": Net(space_to_depth, a=c3(8)),
    "causal_mask": causal_mask(),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    verdict = examine(SEQUENCES[name], (37,), 2)
    assert verdict.reach == Reach.LOCAL, verdict.witness
    assert not verdict.wrong, verdict.wrong


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(name: str) -> None:
    verdict = examine(VOLUMES[name], (6, 8, 10), 1)
    assert verdict.reach == Reach.LOCAL, verdict.witness
    assert not verdict.wrong, verdict.wrong


def test_gates_are_a_context() -> None:
    squeeze = Net(
        lambda n, x: n.a(x) * torch.sigmoid(n.b(F.adaptive_avg_pool3d(n.a(x), 1))),
        a=c3(1, 6),
        b=c3(6, 6, 1, p=0),
    )
    for net, size in (
        (Net(channel_attention, a=c1(1, 6), b=c1(1, 1)), (20,)),
        (squeeze, (5, 6, 7)),
    ):
        verdict = examine(net, size, 1)
        assert verdict.reach == Reach.CONTEXT and not verdict.wrong, verdict.wrong
