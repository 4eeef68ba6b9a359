"""Kernels with zeros, masks on weights: support and counts are those of full-channel gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from rfbench import rf
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.ops.masked import boxes
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import A, Net, conv, examine
from tests.spatial_graph.oracle import graph_counts

SIZE = (11, 13)


class Masked(nn.Conv2d):
    """A convolution whose weight is multiplied by a buffer, in one of the ways people do it."""

    def __init__(self, mask: Tensor, how: str, transposed: bool = False, **more: Any) -> None:
        out, each = mask.shape[:2]
        groups = more.get("groups", 1)
        super().__init__(each * groups, out, tuple(mask.shape[2:]), bias=False, **more)  # type: ignore
        self.how, self.transposed = how, transposed
        self.register_buffer("mask", mask)

    def kernel(self) -> Tensor:
        mask = self.get_buffer("mask")
        if self.how == "where":
            return torch.where(mask > 0, self.weight, torch.zeros_like(self.weight))
        if self.how == "fill":
            return self.weight.masked_fill(mask == 0, 0)
        if self.how == "data":
            self.weight.data *= mask
            return self.weight
        return self.weight * mask

    def forward(self, x: Tensor) -> Tensor:
        if self.transposed:
            return F.conv_transpose2d(x, self.kernel(), None, self.stride, self.padding)
        return self._conv_forward(x, self.kernel(), None)


def drawn(seed: int, *form: int, share: float = 0.6) -> Tensor:
    return (torch.rand(form, generator=torch.Generator().manual_seed(seed)) < share).float()


def raster(channels: int, inputs: int, k: int, center: bool) -> Tensor:
    """What comes before a pixel in reading order."""
    mask = torch.ones(channels, inputs, k * k)
    mask[..., k * k // 2 + center :] = 0
    return mask.view(channels, inputs, k, k)


def triples(k: int) -> Tensor:
    """Three groups of channels, each of which also sees the groups before it at its own place."""
    mask = torch.zeros(6, 6, k, k)
    for o in range(6):
        mask[o, :, : k // 2] = 1
        mask[o, :, k // 2, : k // 2] = 1
        mask[o, : o // 2 * 2, k // 2, k // 2] = 1
    return mask


NETS: dict[str, Callable[[], nn.Module]] = {
    "reading_order": lambda: nn.Sequential(
        Masked(raster(4, 3, 5, False), "times", padding=2), Masked(raster(2, 4, 3, True), "where",
        padding=1),
    ),
    "channel_groups": lambda: nn.Sequential(
        conv(3, 6, 1), Masked(triples(3), "fill", padding=1), Masked(triples(3), "times", padding=1)
    ),
    "random": lambda: nn.Sequential(
        Masked(drawn(0, 4, 3, 3, 3), "times", padding=1, stride=2),
        Masked(drawn(1, 3, 4, 3, 2), "data", padding=1, dilation=2),
    ),
    "grouped": lambda: nn.Sequential(
        conv(3, 4), Masked(drawn(2, 6, 2, 3, 3), "times", groups=2, padding=(1, 0), stride=(1, 2))
    ),
    "transposed": lambda: nn.Sequential(
        conv(3, 4, 3, 2), Masked(drawn(3, 4, 4, 3, 3), "times", True, stride=2, padding=1)
    ),
    "crosses": lambda: nn.Sequential(
        conv(), Masked(drawn(4, 4, 4, 3, 3) * torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]),
        "times", padding=1),
    ),
    "channels_only": lambda: nn.Sequential(
        conv(), Masked(drawn(5, 4, 4, 1, 1), "times"), conv(4, 4)
    ),
    "dead_channels": lambda: nn.Sequential(
        conv(), Masked(torch.tensor([1.0, 0, 1, 0]).view(4, 1, 1, 1).repeat(1, 4, 3, 3), "times",
        padding=1), conv(4, 4),
    ),
    "padded_kernel": lambda: Net(
        lambda n, x: F.conv2d(n.a(x), F.pad(n.b.weight, (2, 0, 0, 2)), padding=2), **A
    ),
    "fixed": lambda: Net(lambda n, x: F.conv2d(n.a(x), sobel(x), padding=1, groups=4), **A),
}  # fmt: skip


def sobel(x: Tensor) -> Tensor:
    edge = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=x.dtype, device="cpu")
    return torch.stack([edge, edge.T, edge, edge.T]).unsqueeze(1)


@pytest.mark.parametrize("name", NETS)
def test_support(name: str) -> None:
    module = NETS[name]()
    verdict = examine(module, SIZE, 3)
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, (verdict.witness, verdict.wrong)


@pytest.mark.parametrize("name", [n for n in NETS if n != "fixed"])
def test_counts_are_gradients_with_weights_of_one(name: str) -> None:
    module = NETS[name]().double()
    for p in module.parameters():
        with torch.no_grad():
            p.fill_(1 if p.dim() > 1 else 0)
    graph = spatial_graph(module, SIZE, 3)
    x = torch.ones(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    out = module(x)
    for unit in ((1, 1), (2, 3), (out.shape[2] - 1, out.shape[3] - 1)):
        (grad,) = torch.autograd.grad(out[0, :, unit[0], unit[1]].sum(), x, retain_graph=True)
        found = graph_counts(graph, unit, "real")
        assert np.allclose(found, grad[0].sum(0).numpy(), rtol=1e-12), unit


def test_a_tap_weighs_its_share_of_channel_pairs() -> None:
    mask = torch.ones(4, 3, 3, 3)
    mask[0, :, 0, 0] = 0  # 3 of 12 pairs
    counts, _ = rf.path_counts(rf.record(Masked(mask, "times", padding=1), 9))
    taps = counts[counts > 0].reshape(3, 3)
    assert np.allclose(taps / taps[1, 1], [[0.75, 1, 1], [1, 1, 1], [1, 1, 1]])


def test_where_a_raster_scan_looks() -> None:
    """39 pixels, 4 rows up and none below; counted by hand."""
    net = nn.Sequential(
        Masked(raster(8, 1, 7, False), "times", padding=3), nn.ReLU(),
        Masked(raster(8, 8, 3, True), "times", padding=1),
    )  # fmt: skip
    graph = spatial_graph(net, (32, 32), 1)
    target = Target(graph)
    y, x = np.nonzero(target.counts((15, 15)).counts)
    assert len(y) == 39 and (y.min(), y.max()) == (11, 15) and (x.min(), x.max()) == (11, 19)
    assert [f and f.phases[0] for f in target.fields] == [(-4, 0), (-4, 4)]


def test_many_channels_are_one_class() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(conv(3, 64, 3, 2), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64))
    for layer in (module[0], module[2], module[4]):
        prune.random_unstructured(layer, "weight", 0.5)
    graph = rf.record(module, 32)
    assert len(graph.nodes) < 2000
    counts, figures = rf.path_counts(graph)
    assert (counts > 0).sum() == 11 * 11 and figures["size"] == [11, 11]


def test_pruned_weights() -> None:
    module = nn.Sequential(conv(3, 4, 3, 2), nn.ReLU(), conv(4, 4))
    for layer in (module[0], module[2]):
        prune.random_unstructured(layer, "weight", 0.7)
        layer.weight = layer.weight.detach()  # else torch refuses the oracle's copy
    verdict = examine(module, SIZE, 3)
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, (verdict.witness, verdict.wrong)


def part_of_the_weight(w: Tensor) -> Tensor:
    w.data[:, :, 2:] = 0
    return w


def rows_and_columns_exchanged(w: Tensor) -> Tensor:
    turned = w.data.transpose(2, 3)
    turned *= torch.tensor([1.0, 1.0, 0.0], device=w.device)
    return w


def part_of_a_copy(w: Tensor) -> Tensor:
    w = w.clone()
    w[:, :, 0, 0] = 0
    w[..., 2] = 0
    return w


def part_of_a_mask(w: Tensor) -> Tensor:
    mask = torch.ones_like(w)
    mask[:, :, 1, 2:] = 0
    mask[:2, :, 2] = 0
    return w * mask


def twice(w: Tensor) -> Tensor:
    """What is written last counts."""
    mask = torch.zeros_like(w)
    mask[:, :, 1:] = 1
    mask[:, :, 1, 1].zero_()
    return w * mask


def by_a_loop(w: Tensor) -> Tensor:
    mask = torch.zeros_like(w)
    for i in range(3):
        for j in range(3 - i):
            mask[:, :, i, j] = 1
    return w * mask


WRITES: list[Callable[[Tensor], Tensor]] = [
    part_of_the_weight, rows_and_columns_exchanged, part_of_a_copy, part_of_a_mask, twice, by_a_loop
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_zeros_that_are_written_into_a_part(write: Callable[[Tensor], Tensor]) -> None:
    verdict = examine(Net(lambda n, x: F.conv2d(n.a(x), write(n.b.weight)), **A), SIZE)
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, (verdict.witness, verdict.wrong)
    assert (write(torch.ones(4, 4, 3, 3)) == 0).any()


def test_zeros_that_depend_on_the_weights_are_refused() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        w = n.b.weight
        return F.conv2d(n.a(x), torch.where(w > 0, w, torch.zeros_like(w)))

    verdict = examine(Net(run, **A), SIZE)
    assert verdict.reach == Reach.UNSUPPORTED
    assert "depends on the weights" in verdict.witness.reason


def test_zeros_at_the_ends_of_a_fixed_kernel() -> None:
    taps = torch.tensor([0.0, 0, 1, 2, 1, 0, 0])
    kernel = torch.outer(taps, taps).repeat(4, 1, 1, 1)
    net = Net(lambda n, x: F.conv2d(n.a(x), kernel, padding=3, groups=4), a=conv(3, 4, 1))
    figures = rf.theory(rf.record(net, 32))["y"]
    assert (figures["size"], figures["padding"]) == (3, 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_table_is_the_sum_of_its_boxes(seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, 4, (5, 4))
    total = np.zeros_like(table)
    for where, count in boxes(table):
        total[where] += count
    assert np.array_equal(total, table)


class Chosen(nn.Module):
    """A masked linear layer over channels of different history: its halves see one branch each."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 5, padding=2)
        self.mix = nn.Linear(4, 4)
        self.register_buffer("mask", torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.near(x), self.far(x)], 1).movedim(1, 3)
        # of a moved tensor, torch 2.11 makes a product for each image, which is refused
        return F.linear(y.contiguous(), self.mix.weight * self.mask).movedim(3, 1)


def test_a_masked_matrix_chooses_among_channels() -> None:
    class First(Chosen):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :2]

    for net, pixels in ((First(), 1), (Chosen(), 25)):
        graph = spatial_graph(net, (12, 12), 1)
        counts = Target(graph).counts((5, 5)).counts
        assert int((counts > 0).sum()) == pixels
        x = torch.rand(1, 1, 12, 12, requires_grad=True)
        net(x)[0, :, 5, 5].sum().backward()
        assert x.grad is not None and int((x.grad != 0).sum()) == pixels
