"""Layers that people bring from torch and their own code, each against gradients of the module."""

from typing import Any

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.models.meta import build_on_meta
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Cases, Net, conv

CASES = Cases()
A: dict[str, Any] = {"size": (12, 14), "a": conv(), "b": conv(4, 4, 3, 2)}


@CASES.add(**A, pool=nn.MaxPool2d(2, return_indices=True), back=nn.MaxUnpool2d(2))
def unpooled_by_modules(n: Any, x: Tensor) -> Tensor:  # SegNet
    y, where = n.pool(n.a(x))
    return n.b(n.back(y, where))


@CASES.add(**A, cell=nn.LSTMCell(4, 3))
def rows_through_a_cell(n: Any, x: Tensor) -> Tensor:
    """The last state of every column."""
    y = n.b(n.a(x))
    state = torch.zeros(y.shape[3], 3), torch.zeros(y.shape[3], 3)
    state = tuple(s.to(y) for s in state)
    for row in y.unbind(2):
        state = n.cell(row[0].t(), state)
    return state[0].t()[None, :, None]


@CASES.add(
    **A,
    pools=nn.ModuleList(
        [nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(3)]
    ),
)
def pyramid_of_pools(n: Any, x: Tensor) -> Tensor:
    y = n.b(n.a(x))
    return torch.cat([pool(y).flatten(1) for pool in n.pools], 1)


SAMPLES = torch.tensor([0.3, 0.7]).expand(1, 4, 2).contiguous()


@CASES.add(**A, pool=nn.FractionalMaxPool2d(2, output_ratio=0.7, _random_samples=SAMPLES))
def pooled_at_given_places(n: Any, x: Tensor) -> Tensor:
    """Its windows, found by an image of positions; maxima as means."""
    y = n.a(x)
    if y.is_meta:
        return n.b(n.pool(y))
    h, w = y.shape[2:]
    at = torch.arange(h * w).view(1, 1, h, w).expand_as(y).double()
    last = F.fractional_max_pool2d(at, 2, output_ratio=(0.7, 0.7), _random_samples=SAMPLES.double())
    corner = last[0, 0].long()  # the lower right one of each window
    flat = y.flatten(2)
    return n.b(sum(flat[..., corner - step] for step in (0, 1, w, w + 1)))


@CASES.add(**A, codes=nn.Embedding(6, 4))
def nearest_codes(n: Any, x: Tensor) -> Tensor:  # VQ-VAE: the gradient goes straight through
    y = n.a(x)
    rows, codes = y.permute(0, 2, 3, 1).flatten(0, 2), n.codes.weight
    chosen = codes[torch.cdist(rows, codes).argmin(1)]
    chosen = chosen.view(1, *y.shape[2:], 4).permute(0, 3, 1, 2)
    return n.b(y + (chosen - y).detach())


@CASES.add(**A)
def a_hard_choice_of_channels(n: Any, x: Tensor) -> Tensor:
    y = n.a(x).softmax(1)
    best = torch.zeros_like(y).scatter_(1, y.argmax(1, keepdim=True), 1.0)
    return n.b(best - y.detach() + y)


@CASES.add(**A)
def a_hard_choice_drawn_at_random(n: Any, x: Tensor) -> Tensor:
    return n.b(F.gumbel_softmax(n.a(x), dim=1, hard=True))


@CASES.add(Reach.WINDOWED, "aten", **A)
def a_hard_choice_of_columns(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y + torch.zeros_like(y).scatter_(3, y.argmax(3, keepdim=True), 1.0))


@CASES.add(Reach.UNSUPPORTED, "aten.scatter.src", **A)
def entries_written_one_by_one(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(torch.zeros_like(y).scatter(3, torch.zeros_like(y).long(), y))


@CASES.add(**A, c=conv(3, 4, 5))
def length_and_angle(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.polar(n.a(x), n.c(x)).real)


@CASES.add(**A, table=nn.Embedding(3, 4))
def levels_of_brightness(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    level = torch.bucketize(y.mean(1).detach(), torch.tensor([0.1, 0.5], dtype=x.dtype))
    return n.b(y + n.table(level).permute(0, 3, 1, 2))


@CASES.add(**A, k=conv(4, 36))
def reassembled(n: Any, x: Tensor) -> Tensor:  # CARAFE
    y = n.a(x)
    h, w = y.shape[2:]
    kernels = F.softmax(F.pixel_shuffle(n.k(y), 2).view(1, 9, 2 * h, 2 * w), 1)
    near = F.interpolate(F.unfold(y, 3, padding=1).view(1, 36, h, w), scale_factor=2.0)
    return n.b((near.view(1, 4, 9, 2 * h, 2 * w) * kernels[:, None]).sum(2))


@CASES.add(**A, q=conv(3, 12, 1))
def attention_in_each_neighbourhood(n: Any, x: Tensor) -> Tensor:
    q, k, v = n.q(x).chunk(3, 1)
    h, w = x.shape[2:]
    near = [F.unfold(t, 3, dilation=2, padding=2).view(1, 4, 9, h, w) for t in (k, v)]
    weights = (q[:, :, None] * near[0]).sum(1, keepdim=True).softmax(2)
    return n.b((weights * near[1]).sum(2))


@CASES.add(Reach.CONTEXT, "aten.convolution", **A, style=nn.Linear(4, 4))
def kernels_scaled_by_the_image(n: Any, x: Tensor) -> Tensor:  # StyleGAN2
    y = n.a(x)
    kernels = n.b.weight[None] * n.style(y.mean((2, 3)))[:, None, :, None, None]
    kernels = kernels * (kernels.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    return F.conv2d(y.flatten(0, 1)[None], kernels.flatten(0, 1), padding=1, groups=len(x))


@CASES.add(
    Reach.UNSUPPORTED,
    "aten.fractional_max_pool2d",
    **A,
    pool=nn.FractionalMaxPool2d(2, output_ratio=0.7),
)
def pooled_at_random_places(n: Any, x: Tensor) -> Tensor:
    return n.pool(n.a(x))


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()


@pytest.mark.parametrize("prepare", ["qat", "observed", "by hand"])
@pytest.mark.filterwarnings("ignore")
def test_rounding_for_quantisation_leaves_positions_alone(prepare: str) -> None:
    """Of networks prepared for quantisation: as the plain network."""
    plain = nn.Sequential(conv(3, 4, 3, 2), nn.ReLU(), conv(4, 4, 5, 2))
    net = nn.Sequential(quantization.QuantStub(), *plain, quantization.DeQuantStub())
    if prepare == "by hand":
        net = nn.Sequential(plain[0], quantization.FakeQuantize(), *plain[1:])
    elif prepare == "qat":
        net.train().qconfig = quantization.get_default_qat_qconfig("fbgemm")
        net = quantization.prepare_qat(net)
    else:
        net.eval().qconfig = quantization.get_default_qconfig("fbgemm")
        net = quantization.prepare(net)
    graphs = [spatial_graph(m, (20, 20)) for m in (plain, net)]
    fields = [_field(graph) for graph in graphs]
    assert fields[0] == fields[1]


def _field(graph: Any) -> Any:
    return Target(graph).fields


def test_recurrent_layers_say_what_a_unit_sees() -> None:
    def run(n: Any, x: Tensor) -> Tensor:
        return n.r(n.a(x).transpose(1, 2))[0].transpose(1, 2)

    line = nn.Conv1d(1, 4, 5, 2, 2)
    said = {
        "all positions along x": nn.GRU(4, 4, batch_first=True, bidirectional=True),
        "its own position and all before it along x": nn.LSTM(4, 4, batch_first=True),
    }
    for reason, layer in said.items():
        graph = spatial_graph(Net(run, a=line, r=layer), (40,))
        witness = graph.witness(graph.output)
        assert witness.reach == Reach.GLOBAL and reason in str(witness)


def test_a_recurrent_layer_along_rows_leaves_columns_alone() -> None:
    def run(n: Any, x: Tensor) -> Tensor:
        y = n.a(x)
        _, c, h, w = y.shape
        rows = n.r(y.permute(0, 2, 3, 1).reshape(h, w, c))[0]
        return rows.reshape(1, h, w, -1).permute(0, 3, 1, 2)

    graph = spatial_graph(Net(run, a=conv(), r=nn.GRU(4, 4, batch_first=True)), (12, 14))
    witness = graph.witness(graph.output)
    assert witness.reach == Reach.WINDOWED and witness.extent == "windowed, global along x"


class Causal(nn.Conv1d):
    """Its mask is a buffer, or an attribute made like the weight."""

    def __init__(self, registered: bool) -> None:
        super().__init__(1, 4, 7, padding=3)
        mask = torch.ones_like(self.weight.detach())
        mask[..., 4:] = 0
        if registered:
            self.register_buffer("mask", mask)
        else:
            self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight * self.mask.to(x), self.bias, padding=3)


class Table(nn.Module):
    """Every third column, by a table."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("at", torch.arange(0, 30, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.at]


@pytest.mark.parametrize("make", [lambda: Causal(True), lambda: Causal(False), Table])
def test_a_network_without_weights_is_the_same(make: Any) -> None:
    """As commands build it: masks and tables have their values."""
    graphs = [
        spatial_graph(nn.Sequential(m), (30,), 1) for m in (make(), build_on_meta(make, own=True))
    ]
    first, second = (_field(graph) for graph in graphs)
    assert first == second and first[0].size in (1, 4)


class RowsAndColumns(nn.Module):
    """As Sequencer: recurrence down the columns beside recurrence along the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.LSTM(8, 4, bidirectional=True, batch_first=True)
        self.across = nn.LSTM(8, 4, bidirectional=True, batch_first=True)
        self.mix = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = (x := self.stem(x)).shape
        down = self.down(x.permute(0, 3, 2, 1).reshape(-1, h, 8))[0]
        across = self.across(x.permute(0, 2, 3, 1).reshape(-1, w, 8))[0]
        down = down.reshape(n, w, h, 8).permute(0, 3, 2, 1)
        across = across.reshape(n, h, w, 8).permute(0, 3, 1, 2)
        return self.mix(torch.cat([down, across], 1))


def test_rows_and_columns_together_see_everything() -> None:
    graph = rf.record(RowsAndColumns(), size=16)
    witness = graph.witness(graph.output)
    assert (witness.extent, witness.layer) == ("global", "down")
