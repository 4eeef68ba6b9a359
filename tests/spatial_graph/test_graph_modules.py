"""The spatial graph of modules of all kinds: where tensors are kept, what is returned, errors."""

from collections.abc import Callable

import numpy as np
import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach, Witness
from rfbench.spatial_graph.reader import spatial_graph
from rfbench.spatial_graph.resized import resized
from tests.spatial_graph.cases import TWO, A, Net, conv, examine
from tests.spatial_graph.oracle import graph_counts


class Odds(nn.Module):
    """Tensors in all the places where a module may keep them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scalar", torch.tensor(2.0))
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.plain, self.listed, self.named = (
            torch.tensor(3.0),
            [torch.ones(4, 1, 1)],
            {"a": torch.ones(1)},
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scalar * self.gain + self.plain * x * self.listed[0] * self.named["a"]


MODULES = {
    "scalars": nn.Sequential(conv(), Odds(), conv(4, 4)),
    "one_channel": nn.Sequential(conv(1, 4), conv(4, 1, 5), conv(1, 1)),
    "shared": nn.Sequential(conv(), *[conv(4, 4)] * 3),
    "weight_norm": nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), conv(4, 4)),
    "spectral_norm": nn.Sequential(nn.utils.parametrizations.spectral_norm(conv()), conv(4, 4)),
    "dropout": nn.Sequential(conv(), nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), conv(4, 4)),
    "norms": nn.Sequential(
        conv(), nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4), nn.BatchNorm2d(4), conv(4, 4),
    ),
    "activations": nn.Sequential(
        conv(), nn.SELU(True), conv(4, 4), nn.RReLU(inplace=True), nn.Hardswish(), nn.CELU(),
        nn.LogSigmoid(), nn.Mish(), nn.PReLU(4), nn.Softplus(), nn.GELU(), nn.Hardtanh(), nn.Tanh(),
        nn.Softsign(), nn.Tanhshrink(), nn.Threshold(-9, 0), conv(4, 8), nn.GLU(1), conv(4, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    verdict = examine(MODULES[name])
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, verdict.wrong


def test_a_module_is_left_as_it_was() -> None:
    module = nn.Sequential(
        conv(), nn.BatchNorm2d(4), nn.SELU(True), nn.Dropout(), conv(4, 4)
    ).train()
    module[0].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    spatial_graph(module, (16, 16))
    assert [m.training for m in module] == [False, True, True, True, True] and module[2].inplace
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(p.requires_grad and not p.is_meta for p in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_layers_by_name_and_number_of_the_call() -> None:
    graph = spatial_graph(
        nn.Sequential(*[conv(3, 3)] * 2, nn.Sequential(conv(3, 4, 3, 2))), (16, 20)
    )
    assert list(graph.layers) == ["0", "0#2", "2.0", "2"]
    assert graph.maps()["2"] == (8, 10) and graph.target == "2"


def test_the_last_map_is_the_output_where_no_layer_returns_it() -> None:
    graph = spatial_graph(Net(lambda n, x: n.a(x) + n.c(x), **TWO), (9, 9))
    assert graph.target == ""
    graph = spatial_graph(Net(lambda n, x: n.a(x).mean((2, 3)), **TWO), (9, 9))
    assert graph.target == "a"
    # what it returns is a map, whatever pooled it
    graph = spatial_graph(Net(lambda n, x: F.adaptive_avg_pool2d(n.a(x), 3), **TWO), (9, 9))
    assert graph.target == ""
    head = nn.Linear(9 * TWO["a"].out_channels, 2)  # of vectors it is the map before they are made
    graph = spatial_graph(
        Net(lambda n, x: n.h(F.adaptive_avg_pool2d(n.a(x), 3).flatten(1)), **TWO, h=head), (9, 9)
    )
    assert graph.target == "a"


def test_errors() -> None:
    with pytest.raises(UsageError, match=r"9x9 in layer 1: .+\. Choose another --size"):
        spatial_graph(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 4, 7)), (9, 9))
    with pytest.raises(RfbenchError, match=r"Net fails on an input of 3 x 9x9 in layer a: "):
        spatial_graph(Net(lambda n, x: n.a(x[:, :2]), **A), (9, 9))
    with pytest.raises(RfbenchError, match="no map of positions"):
        spatial_graph(nn.Sequential(conv(), nn.Flatten(), nn.Flatten(0)), (18, 21)).map_size(None)


def test_nothing_depends_on_the_input() -> None:
    graph = spatial_graph(Net(lambda n, x: torch.zeros_like(n.a(x)), **A), (9, 9))
    assert graph.witness(graph.output) == Witness(
        Reach.UNSUPPORTED, "the output", "", "it does not depend on the input"
    )


# -- other input sizes -----------------------------------------------------------------------------

RESIZED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "windows": lambda n, x: n.b(F.max_pool2d(n.a(x), 3, 2, 1, ceil_mode=True)),
    "gate": lambda n, x: n.a(x) * n.b(n.a(x)).mean((2, 3), keepdim=True),
    "gate_by_pool": lambda n, x: n.a(x) * F.avg_pool2d(n.b(n.a(x)), x.shape[2:]),
    "resized": lambda n, x: n.a(x) + F.interpolate(n.b(n.a(x))[..., ::2, ::2], x.shape[2:]),
    "cropped": lambda n, x: n.b(n.a(x)[:, :, : x.shape[2] - 2]),
    "unfolded": lambda n, x: F.unfold(n.a(x), 3, stride=2).view(1, 36, -1, (x.shape[3] - 1) // 2),
    "blocks": lambda n, x: n.a(x)[..., : x.shape[2] // 2 * 2, :].unflatten(2, (-1, 2)).sum(3),
    "same": lambda n, x: n.b(timm.layers.pad_same(n.a(x), [3, 3], [2, 2])),
    "channels": lambda n, x: torch.cat([n.a(x), n.b(n.a(x))], 1).sum(1, keepdim=True),
}


@pytest.mark.parametrize("name", RESIZED)
def test_a_graph_on_another_size_is_that_of_a_new_trace(name: str) -> None:
    net = Net(RESIZED[name], **A)
    known = spatial_graph(net, (16, 20))
    for size in ((16, 27), (17, 20), (24, 40)):
        fresh = spatial_graph(net, size)
        assert isinstance(known.output, Value) and isinstance(fresh.output, Value)
        if known.is_rigid(known.output):
            continue
        graph = resized(known, size, known.output)
        assert graph.map_size(graph.output) == fresh.map_size(fresh.output)
        for unit in ((0, 0), (2, 5)):
            rule = {"channels": "real", "pool": "mean", "gates": "count"}
            assert np.array_equal(
                graph_counts(graph, unit, **rule), graph_counts(fresh, unit, **rule)
            )
    assert known.is_rigid(known.output) == (name not in ("windows", "gate", "channels"))


def test_too_small_for_another_size() -> None:
    graph = spatial_graph(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 4, 7)), (32, 32))
    with pytest.raises(UsageError, match="12x32 is too small: nothing is left in layer 1"):
        resized(graph, (12, 32), graph.layer("1"))


class OwnTensors(nn.Module):
    """Makes tensors in its forward, without saying where."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mask = torch.zeros(1, 4, 1, 1)
        mask[:, 0] = 1
        return x * mask + torch.arange(x.shape[-1])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        OwnTensors,
        lambda: OwnTensors().double(),
        lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3)), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.RReLU()),
    ],
    ids=["own tensors", "double", "scripted layer", "rrelu"],
)
def test_modules_off_the_beaten_track(make: Callable[[], nn.Module]) -> None:
    counts = Target(spatial_graph(make(), (9, 12))).counts().counts
    assert (counts > 0).sum() == 9


def test_weights_that_are_not_there_yet() -> None:
    with pytest.raises(RfbenchError, match="layer 0 that is lazy and has no weights yet. Run the"):
        spatial_graph(nn.Sequential(nn.LazyConv2d(4, 3)), (9, 12))
