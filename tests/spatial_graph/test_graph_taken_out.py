"""Constants that take entries out of a map: what is multiplied by zero depends on nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.ops.masks import blocks
from tests.spatial_graph.cases import TWO, A, Cases, Net, classes, conv, examine

CASES = Cases()


def grid() -> tuple[Tensor, Tensor]:
    i, j = torch.meshgrid(torch.arange(18), torch.arange(21), indexing="ij")
    return i, j


def ones(x: Tensor, *form: int) -> Tensor:
    return torch.ones(form, dtype=x.dtype, device=x.device)


@CASES.add(**A)
def columns(n: Net, x: Tensor) -> Tensor:
    mask = ones(x, 18, 21)
    mask[:, 10:] = 0
    return n.b(n.a(x) * mask)


@CASES.add(**A)
def circle(n: Net, x: Tensor) -> Tensor:
    i, j = grid()
    return n.b(n.a(x) * ((i - 8) ** 2 + (j - 9) ** 2 < 40).to(x))


@CASES.add(**A)
def chessboard(n: Net, x: Tensor) -> Tensor:
    i, j = grid()
    y = n.a(x)
    return n.b(torch.where(((i + j) % 2 == 0).to(x.device), y, n.b(y)))


@CASES.add(**A)
def channels(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x) * torch.tensor([1.0, 0, 0, 1]).to(x)[:, None, None])


@CASES.add(**TWO, b=conv(8, 8, groups=8))
def channels_and_positions(n: Net, x: Tensor) -> Tensor:
    mask = ones(x, 8, 18, 21)
    mask[:3, :5] = 0
    mask[5:, :, 7:] = 0
    return n.b(classes(n, x) * mask)


@CASES.add(**A)
def filled(n: Net, x: Tensor) -> Tensor:
    mask = torch.zeros(18, 21, dtype=torch.bool, device=x.device)
    mask[4] = True
    return n.b(n.a(x).masked_fill(mask, 0.0))


@CASES.add(**A)
def chosen(n: Net, x: Tensor) -> Tensor:
    right = torch.arange(21, device=x.device) > 10
    return n.b(torch.where(right, n.a(x), torch.zeros((), dtype=x.dtype, device=x.device)))


@CASES.add(**A)
def like_the_image(n: Net, x: Tensor) -> Tensor:
    mask = torch.ones_like(x[:1, :1])
    mask[..., ::2] = 0
    return n.b(n.a(x * mask))


@CASES.add(size=(5, 6, 7), channels=2, a=nn.Conv3d(2, 2, 3, 1, 1))
def a_volume(n: Net, x: Tensor) -> Tensor:
    mask = ones(x, 5, 6, 7)
    mask[1, 2:] = 0
    mask[:, :, 3] = 0
    return n.a(n.a(x) * mask)


@CASES.add(size=(30,), channels=2, a=nn.Conv1d(2, 2, 3, 1, 1))
def a_window_of_time(n: Net, x: Tensor) -> Tensor:
    return n.a(n.a(x) * torch.hann_window(30, dtype=x.dtype, device=x.device))


@CASES.add(Reach.UNSUPPORTED, "aten.mul", a=conv())
def inside_windows(n: Net, x: Tensor) -> Tensor:
    mask = ones(x, 3, 1, 3)
    mask[0] = 0
    return (n.a(x).view(1, 4, 6, 3, 7, 3) * mask).reshape(1, 4, 18, 21)


@CASES.add(Reach.UNSUPPORTED, "aten.mul", a=conv())
def of_a_gate(n: Net, x: Tensor) -> Tensor:
    mask, y = ones(x, 18, 21), n.a(x)
    mask[0] = 0
    return y * (y.mean((2, 3), keepdim=True) * mask)


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()


def test_attention_with_a_mask_is_what_it_is_without() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        t = n.a(x).flatten(2).transpose(1, 2)
        later = torch.ones(12, 12, dtype=torch.bool, device=x.device).triu(1)
        return (t @ t.transpose(1, 2)).masked_fill(later, -1e9).softmax(-1) @ t

    assert examine(Net(run, a=conv()), (3, 4), 3).reach == Reach.GLOBAL


def test_blocks_cover_a_mask_once() -> None:
    mask = np.random.default_rng(0).random((4, 5, 6)) < 0.5
    total = np.zeros(mask.shape, int)
    for depth, rows, columns in blocks(mask):
        total += depth[:, None, None] & rows[:, None] & columns
    assert np.array_equal(total, mask)
