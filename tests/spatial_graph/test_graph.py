"""The spatial graph is right, or refuses by name: writes to views, windows.

Every network is compared with autograd on the real module: the pixels that reach one unit are
those with a gradient (see oracle.py).
"""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.spatial_graph.node import Reach
from tests.spatial_graph.cases import STRIDED, TWO, A, Cases, Net, classes, conv, same

CASES = Cases()


# -- writes to views -------------------------------------------------------------------------------


@CASES.add(**A)
def add_to_a_slice(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    x[:, :2].add_(n.b(x.clone())[:, :2])
    return x


@CASES.add(a=conv(), b=conv(4, 4, 1))
def rectify_a_slice(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    x[:, :2].relu_()
    return n.b(x)


@CASES.add(a=conv(3, 6), b=conv(3, 3, 5))
def write_through_a_named_view(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    y = x[:, ::2]
    y += n.b(y.clone())
    return x


@CASES.add(a=conv(3, 4), b=conv(4, 4, 3, groups=4))
def ghost_module(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return torch.cat([y, n.b(y)], 1)[:, :7]


@CASES.add(a=conv(), b=conv(4, 2))
def copy_into_channels(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, 1:3].copy_(n.b(y.clone()))
    return y


@CASES.each({"in_place": 3, "moved": 4}, **A)
def copy_into_rows(n: Net, x: Tensor, start: int) -> Tensor:
    y = n.a(x)
    z, y = n.b(y), y.clone()
    y[:, :, 3:9].copy_(z[:, :, start : start + 6])
    return y


@CASES.add(**A)
def one_channel_from_another(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, 1] = n.b(y.clone())[:, 2]
    return y


@CASES.add(**A)
def zeros_in_places(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, :, 3:9] = 0
    y[:, 1].zero_()
    return n.b(y)


@CASES.add(a=conv(), b=conv(4, 4, groups=4))
def filled_step_by_step(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    out = torch.empty_like(y)
    out[:, ::2], out[:, 1::2] = y[:, 2:], n.b(y)[:, :2]
    return n.b(out)


@CASES.add(a=conv(), b=conv(4, 4, groups=4))
def temporal_shift(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    out = torch.zeros_like(y)
    out[:, :1, 1:], out[:, 1:2, :-1], out[:, 2:] = y[:, :1, :-1], y[:, 1:2, 1:], y[:, 2:]
    return n.b(out)


@CASES.each({"rows": (20, 23, 1), "stride": (36, 42, 2)}, a=conv(), b=conv(4, 4, groups=4))
def laid_into_zeros(n: Net, x: Tensor, form: tuple[int, int, int]) -> Tensor:
    y, (h, w, step) = n.a(x), form
    out = y.new_zeros(1, 4, h, w)
    out[:, :, 1 : 18 * step + 1 : step, 1 : 21 * step + 1 : step][:, :, :18, :21] = y
    return n.b(out)


@CASES.add(Reach.UNSUPPORTED, "aten.index_put", **A)
def index_put(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, [0, 2]] = n.b(y.clone())[:, :2]
    return y


class Raw(torch.nn.Module):
    """A composite operation of torch that writes to views out of functionalisation's sight."""

    def forward(self, x: Tensor) -> Tensor:
        return torch._C._nn.pad(x, [1, 1, 1, 1], "circular", None)


@CASES.add(Reach.UNSUPPORTED, "aten.copy_", a=conv(), raw=Raw(), b=conv(4, 4))
def unseen_writes(n: Net, x: Tensor) -> Tensor:
    return n.b(n.raw(n.a(x)))


# -- windows ---------------------------------------------------------------------------------------


@CASES.add(size=(17, 20), a=same(3, 4, 3, stride=2), b=same(4, 4, 5, stride=2))
def tf_same(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x))


@CASES.add(a=same(3, 4, 4, stride=3, dilation=2), b=nn.Conv2d(4, 4, 5, padding="same"))
def tf_same_dilated(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x))


@CASES.add(a=conv(3, 4, 3, 1, 2, dilation=2), b=conv(4, 4, 3, 2, 3, dilation=3))
def dilated(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x))


@CASES.add(a=conv(3, 4, 2, 2, 0), b=conv(4, 4, 4, 2, 1))
def even_kernels(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x))


@CASES.add(a=conv(3, 4, (1, 7)), b=conv(4, 4, (7, 1)), c=conv(4, 4, (2, 3), (2, 1), (1, 0)))
def asymmetric_kernels(n: Net, x: Tensor) -> Tensor:
    return n.c(n.b(n.a(x)))


@CASES.add(**TWO, d=conv(8, 8, 3, groups=4), e=conv(8, 8, 3, groups=8))
def grouped_over_classes(n: Net, x: Tensor) -> Tensor:
    return n.e(n.d(classes(n, x)))


@CASES.add(**TWO, shuffle=nn.ChannelShuffle(2), d=conv(8, 8, 5, groups=2))
def channel_shuffle(n: Net, x: Tensor) -> Tensor:
    y = classes(n, x)
    by_hand = y.view(1, 2, 4, 18, 21).transpose(1, 2).reshape(1, 8, 18, 21)
    return n.d(by_hand) + n.d(n.shuffle(y))


for _i, _args in enumerate(
    [
        (4, 4, 2, 2), (4, 4, 3, 2, 1, 1, 2), (4, 4, 4, 2, 1), (4, 4, 3, 3, 0, 2),
        (4, 4, 5, 2, 2, 0, 4), (4, 4, 1, 2, 0, 1),
        (4, 4, (3, 4), (2, 3), (0, 1), (1, 0), 1, True, (2, 1)),
    ]
):  # fmt: skip

    @CASES.add(size=(7, 9), a=conv(), b=nn.ConvTranspose2d(*_args))
    def transposed(n: Net, x: Tensor) -> Tensor:
        return n.b(n.a(x))

    CASES[f"transposed_{_i}"] = CASES.pop("transposed")


@CASES.add(a=conv(), b=nn.ConvTranspose1d(4, 4, 3, 2), c=nn.Conv1d(4, 4, 3, padding=1))
def one_dimension(n: Net, x: Tensor) -> Tensor:
    return n.b(n.c(n.a(x).mean(2)))


@CASES.add(a=conv(), b=nn.Conv1d(4, 4, 3, padding=1))
def rows_one_by_one(n: Net, x: Tensor) -> Tensor:
    y = n.a(x).permute(0, 2, 1, 3).flatten(0, 1)
    return n.b(y).unflatten(0, (1, 18)).permute(0, 2, 1, 3)


@CASES.add(a=conv(), b=nn.Conv1d(18, 18, 3, padding=1))
def rows_as_channels(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x)[:, 0])


@CASES.add(Reach.UNSUPPORTED, "aten.convolution", a=conv(), b=nn.Conv1d(4, 4, 3, padding=1))
def across_the_ends_of_rows(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).flatten(2))


@CASES.add(**TWO, b=nn.Conv3d(1, 2, 3, padding=1))
def across_channels(n: Net, x: Tensor) -> Tensor:
    return n.b(classes(n, x)[:, None])


@CASES.each({"windows": (6, 7), "pairs": (9, 7)}, **A)
def inside_of_windows(n: Net, x: Tensor, window: tuple[int, int]) -> Tensor:
    p, q = window
    y = n.a(x).unflatten(2, (-1, p)).unflatten(4, (-1, q))
    form = y.shape
    y = y.permute(0, 2, 4, 1, 3, 5)
    z = n.b(y.flatten(0, 2)).view(y.shape).permute(0, 3, 1, 4, 2, 5)
    assert z.shape == form
    return z.flatten(2, 3).flatten(3, 4)


@CASES.add(Reach.UNSUPPORTED, "aten.convolution", a=conv(), b=conv(8, 4, 2, 1, 1))
def over_two_parts_of_one_axis(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).transpose(1, 2)[:, :8, 0].unflatten(2, (3, 7)))


POOLS = {
    "3s2p1_ceil": (3, 2, 1, True), "2_ceil": (2, 2, 0, True), "3_ceil": (3, 3, 0, True),
    "5s1p2": (5, 1, 2, False), "23": ((2, 3), (2, 1), (1, 0), True), "2s3p1": (2, 3, 1, True),
}  # fmt: skip


@CASES.each(POOLS, **STRIDED)
def pools(n: Net, x: Tensor, args: tuple) -> Tensor:
    k, s, p, ceil = args
    y = n.a(x)
    averages = F.avg_pool2d(y, k, s, p, ceil, False) + F.avg_pool2d(y, k, s, p, ceil, True)
    return n.b(averages + F.max_pool2d(y, k, s, p, 1, ceil))


@CASES.add(**A, lp=nn.LPPool2d(2, 3, 2, ceil_mode=True))
def other_pools(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    y = F.max_pool2d(y, (2, 3), 1, (0, 1), dilation=(3, 2))
    return n.b(n.lp(y))


@CASES.add(size=(18, 22), **A)
def unpooled(n: Net, x: Tensor) -> Tensor:
    return n.b(F.max_unpool2d(*F.max_pool2d(n.a(x), 2, return_indices=True), 2))


@CASES.each(
    {
        f"{h}x{w}": (h, w)
        for h, w in [(2, 3), (5, 4), (1, 7), (7, 1), (18, 21), (25, 30), (None, 1), (1, 1)]
    },
    **A,
)
def adaptive_pools(n: Net, x: Tensor, size: tuple) -> Tensor:
    y = n.a(x)
    return n.b(F.adaptive_avg_pool2d(y, size)) + n.b(F.adaptive_max_pool2d(y, size))


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: padding='same' with even kernels copies
        CASES[name].check()
