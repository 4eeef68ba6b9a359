"""Writes and offsets by fixed tables: against gradients of the module, or refused by name."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from rfbench.spatial_graph.node import Reach
from tests.spatial_graph.cases import Cases, conv

CASES = Cases()
A: dict[str, Any] = {"size": (12, 14), "a": conv(), "b": conv(4, 4), "w": conv(3, 4, 7)}
TABLE = torch.tensor([5, 3, 1, 0, 2, 11, 7])
ROWS, COLUMNS = TABLE.view(1, 1, 7, 1).expand(1, 4, 7, 14), TABLE.expand(1, 4, 12, 7)


@CASES.add(**A)
def scattered_rows(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(torch.zeros_like(y).scatter(2, ROWS, y[:, :, :7]))


@CASES.add(**A)
def scattered_into_another(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).scatter(3, COLUMNS, n.w(x)[..., 4:11]))


@CASES.add(**A)
def scattered_channels(n: Any, x: Tensor) -> Tensor:
    table = torch.tensor([2, 0]).view(1, 2, 1, 1).expand(1, 2, 12, 14)
    return n.a(x).scatter(1, table, n.w(x)[:, :2])


@CASES.add(**A)
def a_number_scattered(n: Any, x: Tensor) -> Tensor:
    return n.b(n.w(x).scatter(-2, ROWS, 0.0))


@CASES.add(**A)
def scattered_in_place(n: Any, x: Tensor) -> Tensor:
    y = torch.zeros(1, 4, 12, 14).to(x)
    y.scatter_(2, ROWS, n.w(x)[:, :, 2:9])
    y.index_add_(3, TABLE, n.a(x)[..., :7])
    return n.b(y)


@CASES.add(**A)
def copied_by_a_table(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).index_copy(2, TABLE, n.w(x)[:, :, 5:]))


@CASES.add(**A)
def added_by_a_table(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).index_add(2, torch.tensor([0, 0, 3, 11, 3]), n.w(x)[:, :, :5]))


@CASES.add(**A)
def added_zero_times(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).index_add(2, TABLE, n.w(x)[:, :, :7], alpha=0))


@CASES.add(**A)
def channels_added_by_a_table(n: Any, x: Tensor) -> Tensor:
    return n.a(x).index_add(1, torch.tensor([1, 1, 3, 0]), n.w(x))


@CASES.add(**A)
def pooled_by_a_table(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    pairs = (torch.arange(14) // 2).expand_as(y)
    return n.b(torch.zeros(1, 4, 12, 7).to(y).scatter_add(3, pairs, y))


@CASES.add(Reach.UNSUPPORTED, "aten.scatter.src", **A)
def scattered_into_a_part(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).scatter(2, ROWS[..., :9], n.w(x)))


@CASES.add(Reach.UNSUPPORTED, "aten.scatter.src", **A)
def several_scattered_to_one(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).scatter(2, ROWS % 5, n.w(x)[:, :, :7]))


@CASES.add(Reach.UNSUPPORTED, "aten.scatter.reduce", **A)
def scattered_and_added(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).scatter(2, ROWS, n.w(x)[:, :, :7], reduce="add"))


def offsets(x: Tensor, side: float = 0.0) -> Tensor:
    return torch.full((1, 18, *x.shape[2:]), side).to(x)


@CASES.add(**A)
def deformed_by_nothing(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return deform_conv2d(y, offsets(y[:, :, ::2, ::2]), n.b.weight, stride=2, padding=1)


@CASES.add(**A, taps=conv(3, 9, 5))
def deformed_by_nothing_and_modulated(n: Any, x: Tensor) -> Tensor:
    y, mask = n.a(x), n.taps(x).sigmoid()
    return deform_conv2d(y, offsets(y), n.b.weight, padding=2, dilation=2, mask=mask)


@CASES.add(**A)
def deformed_with_a_hole(n: Any, x: Tensor) -> Tensor:
    y, center = n.a(x), torch.ones(3, 3)
    center[1, 1] = 0
    return deform_conv2d(y, offsets(y), n.b.weight * center.to(y), padding=1)


@CASES.add(Reach.UNSUPPORTED, "torchvision.deform_conv2d", **A)
def deformed_by_one_pixel(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return deform_conv2d(y, offsets(y, 1.0), n.b.weight, padding=1)


@CASES.add(Reach.UNSUPPORTED, "torchvision.deform_conv2d", **A)
def deformed_without_some_taps(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    mask = (torch.arange(9) > 3).to(y).view(1, 9, 1, 1).expand(1, 9, *y.shape[2:])
    return deform_conv2d(y, offsets(y), n.b.weight, padding=1, mask=mask)


# -- masks whose values are known, reductions, products added to something ------------------------


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(12) % 3 == 1)

    def forward(self) -> Tensor:
        return self.mask


@CASES.add(**A, m=Masked())
def rows_chosen_by_a_buffer(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x)[:, :, n.m()])


@CASES.add(**A, m=Masked())
def channels_chosen_by_a_buffer(n: Any, x: Tensor) -> Tensor:
    y = torch.cat([n.a(x), n.b(n.a(x)), n.w(x)], 1)
    return y[:, n.m() | (torch.arange(12, device=x.device) > 6)]


@CASES.add(Reach.UNSUPPORTED, "index", **A)
def positions_chosen_one_by_one(n: Any, x: Tensor) -> Tensor:
    return n.a(x)[:, :, torch.eye(12, 14, device=x.device) > 0]


@CASES.each({how: how for how in ("sum", "mean", "amax")}, **A)
def rows_reduced(n: Any, x: Tensor, how: str) -> Tensor:
    y, table = n.a(x), (torch.arange(12) % 5).view(1, 1, 12, 1).expand(1, 4, 12, 14)
    into = torch.zeros(1, 4, 5, 14).to(x)
    # a maximum has a gradient in one place alone
    return into.scatter_reduce(2, table.to(x.device), y, how if y.is_meta else "mean")


@CASES.add(**A)
def a_batched_product_and_its_bias(n: Any, x: Tensor) -> Tensor:
    y = n.a(x).flatten(2).transpose(1, 2)
    return torch.baddbmm(n.b.bias, y, n.b.weight[None, :, :, 1, 1].mT).mT.view(1, 4, 12, 14)


@CASES.each({"map": 1.0, "nothing": 0.0}, **A)
def a_product_added_to_a_map(n: Any, x: Tensor, beta: float) -> Tensor:
    y = n.a(x).flatten(2)[0].mT
    more = n.w(x).flatten(2)[0].mT
    return torch.addmm(more, y, n.b.weight[:, :, 1, 1].mT, beta=beta).mT.view(1, 4, 12, 14)


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()
