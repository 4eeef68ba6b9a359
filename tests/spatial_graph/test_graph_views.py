"""The spatial graph is right, or refuses by name: resizes, crops, views, joins.

Every network is compared with autograd on the real module: the pixels that reach one unit are
those with a gradient (see oracle.py).
"""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.rf.core.target import Target
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import DEPTHWISE, STRIDED, TWO, A, Cases, Net, classes, conv

CASES = Cases()


# -- resizes, pads and crops -----------------------------------------------------------------------


@CASES.each(
    {
        "nearest": {"scale_factor": 2},
        "nearest_2.5": {"scale_factor": 2.5},
        "nearest_size": {"size": (13, 5)},
        "exact": {"size": (13, 5), "mode": "nearest-exact"},
        "bilinear": {"scale_factor": 2, "mode": "bilinear"},
        "corners": {"scale_factor": (0.7, 2), "mode": "bilinear", "align_corners": True},
        "mixed": {"size": (7, 30), "mode": "bilinear"},
        "bicubic": {"scale_factor": 1.7, "mode": "bicubic"},
        "recomputed": {"scale_factor": 1.7, "mode": "bicubic", "recompute_scale_factor": True},
        "antialias": {"size": (4, 5), "mode": "bilinear", "antialias": True},
        "antialias_bicubic": {"size": (20, 5), "mode": "bicubic", "antialias": True},
        "area": {"size": (4, 5), "mode": "area"},
    },
    size=(9, 12),
    **STRIDED,
)
def resized(n: Net, x: Tensor, how: dict) -> Tensor:
    return n.b(F.interpolate(n.a(x), **how))


@CASES.each({m: m for m in ("reflect", "replicate", "circular")}, **STRIDED)
def padded(n: Net, x: Tensor, mode: str) -> Tensor:
    return n.b(F.pad(n.a(x), (3, 2, 1, 4), mode=mode))


@CASES.add(a=conv(3, 4, 3, 2, padding_mode="circular"), b=conv(4, 4, padding_mode="reflect"))
def padding_modes(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x))


@CASES.each({"one axis": (-2, 3, 1, -1), "all around": (9, 9, 0, -7)}, **STRIDED)
def wrapped_and_cropped(n: Net, x: Tensor, amounts: tuple) -> Tensor:
    return n.b(F.pad(n.a(x), amounts, mode="circular"))


@CASES.add(**STRIDED)
def padded_and_cropped(n: Net, x: Tensor) -> Tensor:
    return n.b(F.pad(n.a(x), (3, -2, -1, 4), value=1.0))


@CASES.add(a=conv(), b=conv(6, 6, 3, groups=6))
def padded_channels(n: Net, x: Tensor) -> Tensor:
    return n.b(F.pad(n.a(x), (0, 0, 0, 0, 1, 1)))


@CASES.add(**STRIDED)
def slices(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y[:, :, 1:-1, 2:][..., ::2, 1::2]) + n.b(y[:, :, 2:15:2, 1::2])[:, :, :4, :5]


@CASES.add(**A)
def halves(n: Net, x: Tensor) -> Tensor:
    (p, q), (r, s, t) = n.a(x).chunk(2, 2), n.a(x).tensor_split(3, 3)
    return n.b(p)[..., :7] + n.b(q)[..., 7:14] + (n.b(r) + n.b(s) * t)[:, :, :9]


@CASES.each({"rows": 2, "columns": 3}, **A)
def joined_positions(n: Net, x: Tensor, dim: int) -> Tensor:
    y = n.a(x)
    z = n.b(y)
    return n.b(torch.cat([y.narrow(dim, 9, 8), z, y.narrow(dim, 0, 1), z.narrow(dim, 4, 2)], dim))


@CASES.add(a=conv(), b=conv(4, 4, 5))
def times_zero(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return (
        n.a(x)
        + 0 * torch.cat([y[:, :, 2:], 0.0 * y[:, :, :2]], 2)
        + torch.cat([y[:, :, 4:], y[:, :, :4].mul(0)], 2)
    )


@CASES.add(a=conv())
def none_of_a_term(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    near, far = y[..., :10], y[..., 5:15]
    added = torch.add(near, far, alpha=0) + torch.sub(near, far, alpha=0)
    return added + torch.addcmul(near, far, far, value=0)


@CASES.each({"down": False, "and_up": True}, size=(16, 18), channels=3, a=conv(12, 12))
def blocks_stacked(n: Net, x: Tensor, up: bool) -> Tensor:
    """How i-RevNet moves blocks of 2x2 pixels into the channels, and back."""
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    cut = [c.reshape(1, rows, -1) for c in x.permute(0, 2, 3, 1).split(2, 2)]
    x = n.a(torch.stack(cut, 1).permute(0, 3, 2, 1))
    if not up:
        return x
    lines = x.permute(0, 2, 3, 1).reshape(1, rows, columns, 4, 3).split(2, 3)
    wide = torch.stack([line.reshape(1, rows, 2 * columns, 3) for line in lines], 2)
    return wide.reshape(1, 2 * rows, 2 * columns, 3).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "stride"), [("down", 2), ("and_up", 1)])
def test_blocks_stacked_are_strides(name: str, stride: int) -> None:
    graph = spatial_graph(CASES[f"blocks_stacked_{name}"].module, (16, 18), 3)
    fields = Target(graph).fields
    assert [None if f is None else float(f.stride) for f in fields] == [stride, stride]


# -- selections ----------------------------------------------------------------------------------


@CASES.add(**STRIDED)
def rolls_and_flips(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(torch.roll(y, (3, -2), (2, 3))) + n.b(y.flip(-1)) + torch.rot90(n.b(y), 2, (2, 3))


@CASES.add(a=conv(), b=conv(4, 4, (1, 5)))
def quarter_turn(n: Net, x: Tensor) -> Tensor:
    return n.b(torch.rot90(n.a(x), 1, (2, 3)))


@CASES.add(Reach.UNSUPPORTED, "aten.roll", **A)
def rolled_into_other_rows(n: Net, x: Tensor) -> Tensor:
    return n.b(torch.roll(n.a(x), 5))


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("at", torch.tensor([4, 3, 0, 1, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.at].index_select(3, torch.tensor([5, 0, 7, 1, 1]))


@CASES.add(**A, table=Table())
def picked_by_a_known_table(n: Net, x: Tensor) -> Tensor:
    return n.b(n.table(n.a(x)))


@CASES.add(Reach.UNSUPPORTED, "aten.index.", **A)
def picked_by_a_list(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x)[:, :, [0, 2, 4]])


# -- views -----------------------------------------------------------------------------------------


@CASES.add(a=conv(3, 8), b=conv(2, 3))
def pixel_shuffle(n: Net, x: Tensor) -> Tensor:
    return n.b(F.pixel_shuffle(n.a(x), 2))


@CASES.add(**TWO, b=conv(2, 3))
def pixel_shuffle_of_classes(n: Net, x: Tensor) -> Tensor:
    return n.b(F.pixel_shuffle(classes(n, x), 2))


@CASES.add(**TWO)
def pixel_shuffle_of_mixed_classes(n: Net, x: Tensor) -> Tensor:
    return F.pixel_shuffle(torch.stack([n.a(x), n.c(x)], 2).flatten(1, 2), 2)


@CASES.each({"1": 1, "2": 2, "4": 4, "16": 16}, size=(18, 20), a=conv(), b=conv(16, 16))
def pixel_unshuffle(n: Net, x: Tensor, groups: int) -> Tensor:
    y, weight = F.pixel_unshuffle(n.a(x), 2), n.b.weight[:, : 16 // groups]
    return F.conv2d(y, weight, padding=1, groups=groups)


@CASES.add(size=(18, 20), a=conv(), b=conv(16, 3), c=conv(16, 16, 3, groups=4))
def focus(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    y = torch.cat([y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)
    return n.b(n.c(y))


@CASES.add(a=conv(), b=conv(36, 4, 1), c=conv(24, 24, 3, groups=24))
def im2col(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    wide = F.unfold(y, (2, 3), padding=(1, 0), stride=(2, 3), dilation=(1, 2)).view(1, 24, 10, 6)
    return n.b(F.unfold(y, 3, padding=1).view(1, 36, 18, 21))[..., :10, :6] + n.c(wide)[:, :4]


@CASES.add(size=(16, 20), a=conv(), b=nn.Linear(64, 64))
def im2col_and_back(n: Net, x: Tensor) -> Tensor:
    y = F.unfold(n.a(x), 4, stride=2, padding=1)
    y = n.b(y.transpose(1, 2)).transpose(1, 2)
    return F.fold(y, (16, 20), 4, stride=2, padding=1)


@CASES.add(size=(9, 11), a=conv(), b=conv(4, 4))
def sliding_views(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    pooled = y.unfold(2, 3, 2).unfold(3, 3, 2).mean((-1, -2))
    # as many windows as each is wide: the two factors of the axis look alike
    return n.b(pooled) + n.b(y.unfold(2, 5, 1)[..., 1:4].mean(-1))[:, :, :4, :5]


@CASES.add(Reach.UNSUPPORTED, "aten.mul", size=(9, 9), a=conv())
def overlapping_views_meet_positions(n: Net, x: Tensor) -> Tensor:
    y = F.pad(n.a(x), (0, 0, 1, 1)).unfold(2, 3, 1)
    return (y * n.a(x)[..., None]).sum(-1)


@CASES.add(**A)
def pooled_by_view(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    blocks = y.unflatten(2, (9, 2)).unflatten(4, (7, 3))
    return (
        n.b(blocks.mean((3, 5)) + blocks.amax(5).amax(3))
        + y.unflatten(2, (2, 9)).mean(2)[..., 7:14]
    )


@CASES.add(**A)
def space_to_batch(n: Net, x: Tensor) -> Tensor:
    y = n.a(x).unflatten(2, (9, 2)).unflatten(4, (7, 3)).permute(0, 3, 5, 1, 2, 4)
    z = n.b(y.flatten(0, 2)).view(y.shape)
    return z.permute(0, 3, 4, 1, 5, 2).reshape(1, 4, 18, 21)


@CASES.add(a=conv(), b=conv(4, 4, (1, 5)))
def rows_and_columns_swapped(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y) + n.b(y.transpose(2, 3)).transpose(2, 3)


@CASES.each(
    {"add": torch.add, "cat": lambda x, y: torch.cat([x, y], 1)},
    reach=Reach.UNSUPPORTED,
    size=(16, 16),
    **A,
)
def rows_meet_columns(n: Net, x: Tensor, join: Any) -> Tensor:
    y = n.a(x)
    return join(y, y.transpose(2, 3))


@CASES.add(Reach.UNSUPPORTED, "aten.view", size=(16, 20), **A)
def cut_in_the_wrong_place(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).reshape(1, 4, 20, 16))


@CASES.add(Reach.UNSUPPORTED, "aten.convolution", size=(16, 16), a=conv(), b=conv(2, 4))
def channels_become_rows(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).reshape(1, 2, 32, 16))


@CASES.add(a=conv(), linear=nn.Linear(4, 5), norm=nn.LayerNorm(5), b=conv(5, 4))
def channels_last(n: Net, x: Tensor) -> Tensor:
    y = n.norm(n.linear(n.a(x).permute(0, 2, 3, 1)))
    return n.b(y.permute(0, 3, 1, 2))


@CASES.add(**DEPTHWISE, d=conv(16, 16, 1, groups=16))
def stacks_and_repeats(n: Net, x: Tensor) -> Tensor:
    y, z = n.a(x), n.c(x)
    stacked = n.b(torch.stack([y, z], 2).flatten(1, 2)) + n.b(
        torch.cat([y, z], 0).view(1, 8, 18, 21)
    )
    both = torch.cat([y, z], 1)
    copies = n.d(both.repeat(1, 2, 1, 1)) + n.d(both.repeat_interleave(2, 1))
    return torch.cat([stacked, copies], 1)


@CASES.add(**DEPTHWISE)
def copies_by_expanding(n: Net, x: Tensor) -> Tensor:
    y = n.a(x).unsqueeze(1).expand(-1, 2, -1, -1, -1)
    return n.b(y.reshape(1, 8, 18, 21)) + y.sum(1).repeat(1, 2, 1, 1)


@CASES.add(**A)
def resized_by_expanding(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)[:, :, :, None, :, None].expand(1, 4, 18, 2, 21, 2)
    return n.b(y.reshape(1, 4, 36, 42))


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: padding='same' with even kernels copies
        CASES[name].check()
