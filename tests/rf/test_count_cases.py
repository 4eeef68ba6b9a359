"""Path counts: to the last digit, beyond float64, by unit, source and convention."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Net, conv

# -- exact counts --------------------------------------------------------------------------------


class Deep(nn.Module):
    """Residual 5x5 convolutions around a stem and a pool: counts far beyond 2^53."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(width, width, 7, 2, 3)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 5, 1, 2) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.stem(x).relu(), 3, 2, 1, ceil_mode=True)
        for layer in self.convs:
            x = x + layer(x).relu()
        return x


def windows(x: np.ndarray, k: int, s: int, p: int, out: int) -> np.ndarray:
    """Sums of k x k windows of Python numbers; windows beyond the padding are clipped."""
    room = np.zeros([n + 2 * p + s for n in x.shape], object)
    room[p : p + x.shape[0], p : p + x.shape[1]] = x
    rows = sum(room[i : i + s * out : s][:out] for i in range(k))
    return sum(rows[:, i : i + s * out : s][:, :out] for i in range(k))


def forward_exact(pixel: tuple[int, int], side: int, depth: int, width: int) -> np.ndarray:
    """Paths of all channels from one pixel to every unit of Deep, in Python integers."""
    x = np.zeros((side, side), object)
    x[pixel] = width  # every channel of the picture
    x = windows(x, 7, 2, 3, (side + 1) // 2)
    x = windows(x, 3, 2, 1, -(-(x.shape[0] - 1) // 2) + 1)
    for _ in range(depth):
        x = x + windows(x, 5, 1, 2, x.shape[0]) * width
    return x


@pytest.mark.parametrize(("depth", "width"), [(14, 1), (12, 3)])
def test_exact_counts_equal_to_the_last_digit(depth: int, width: int) -> None:
    side, unit = 33, (4, 5)
    graph = spatial_graph(Deep(depth, width), (side, side))
    found = Target(graph).counts(unit, Convention("real"), exact=True)
    assert found.exponent == 0 and found.counts.dtype == object
    for pixel in ((16, 16), (0, 0), (32, 3), (17, 30), (9, 9), (20, 32)):
        # every channel of the unit, and every channel behind the stem, has the same count
        truth = forward_exact(pixel, side, depth, width)[unit] * width
        assert found.counts[pixel] == truth and isinstance(found.counts[pixel], int)
    assert found.counts.max() > 2**53
    single = Target(graph).counts(unit, exact=True).counts
    assert all(isinstance(n, int) for n in single.flat)
    quick = Target(graph).counts(unit)
    assert np.abs(quick.counts - single.astype(float)).max() <= 1e-12 * quick.counts.max()


# -- huge counts ---------------------------------------------------------------------------------

CONVENTIONS = [
    Convention(*rule)
    for rule in itertools.product(("single", "real"), ("count", "mean"), ("ignore", "count"))
]


@pytest.mark.parametrize(
    "name",
    ["resnetv2_152x2_bit", "densenet264d", "efficientnet_l2", "inception_resnet_v2", "dm_nfnet_f6"],
)
def test_deepest_networks_stay_finite(name: str) -> None:
    graph = spatial_graph(backbones.build(f"timm:{name}", meta=True).module, (192, 192))
    support = {}
    for rule in CONVENTIONS:
        found = Target(graph).counts((0, 0), rule)
        assert np.isfinite(found.counts).all() and found.counts.any()
        support.setdefault(rule.gates, found.counts > 0)
        assert ((found.counts > 0) == support[rule.gates]).all(), rule
    assert (support["count"] >= support["ignore"]).all()


def test_a_small_branch_stays_in_the_support_of_a_huge_one() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        return n.wide(x) + n.deep(x)

    deep = nn.Sequential(*(nn.Conv2d(64, 64, 1) for _ in range(400)))
    graph = spatial_graph(Net(run, wide=nn.Conv2d(64, 64, 5, padding=2), deep=deep), (16, 16))
    counts = Target(graph).counts((8, 8), Convention("real"))
    assert counts.exponent > 1000 and (counts.counts > 0).sum() == 25
    total = math.frexp(counts.counts[8, 8])[1] + counts.exponent
    # 64^399 paths from channel to channel, times 64 channels at either end
    assert total == 6 * 401 + 1


# -- units, sources, errors ----------------------------------------------------------------------


def branches(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y) + n.c(y) + n.d(x)


BRANCHES = Net(branches, a=conv(), b=conv(4, 4), c=conv(4, 4, 1), d=conv(3, 4, 1))


def test_paths_from_a_layer_and_what_bypasses_it() -> None:
    graph = spatial_graph(BRANCHES, (9, 9))
    found = Target(graph, source="a").counts((4, 4))
    wanted = np.zeros((9, 9))
    wanted[3:6, 3:6] = 1
    wanted[4, 4] = 2
    assert (found.counts == wanted).all()
    assert found.bypass == pytest.approx(1 / 91)  # 9 * 10 paths through a, one past it
    assert Target(graph).counts((4, 4)).bypass == 0


def test_a_layer_called_twice_has_two_names() -> None:
    def twice(n: Net, x: Tensor) -> Tensor:
        return n.b(n.b(n.a(x)))

    graph = spatial_graph(Net(twice, a=conv(), b=conv(4, 4)), (12, 12))
    assert {"a", "b", "b#2"} <= set(graph.layers)
    assert Target(graph, "b").counts((6, 6)).counts.sum() == 81
    assert Target(graph, "b#2").counts((6, 6)).counts.sum() == 729
    assert Target(graph, "b#2", source="b").counts((6, 6)).counts.sum() == 9


def test_a_unit_stands_for_all_its_channels() -> None:
    def both(n: Net, x: Tensor) -> Tensor:
        return torch.cat([n.a(x), n.b(x)], 1)

    graph = spatial_graph(Net(both, a=conv(3, 6, 1), b=conv(3, 2, 3)), (8, 8))
    found = Target(graph).counts((4, 4)).counts
    assert found[4, 4] == 1 and found[3, 3] == 0.25
    real = Target(graph).counts((4, 4), Convention("real")).counts
    assert real[4, 4] == 24 and real[3, 3] == 6


def test_gates_by_convention() -> None:
    def squeeze(n: Net, x: Tensor) -> Tensor:
        x = n.a(x)
        return x * n.b(x.mean((2, 3), keepdim=True)).sigmoid()

    graph = spatial_graph(Net(squeeze, a=conv(), b=conv(4, 4, 1)), (8, 8))
    assert (Target(graph).counts((4, 4)).counts > 0).sum() == 9
    assert (Target(graph).counts((4, 4), Convention(gates="count")).counts > 0).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layer": "e"}, "unknown layer 'e'"),
        ({"layer": "a", "unit": (9, 0)}, r"unit 9,0 is outside layer 'a': its map is 9x9"),
        ({"unit": (0, -1)}, "is outside the output"),
        ({"layer": "a", "source": "b"}, "no path leads from 'b' to 'a'"),
        ({"source": "aa"}, "unknown layer 'aa'"),
    ],
)
def test_usage_errors(kwargs: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        unit = kwargs.pop("unit", None)
        Target(spatial_graph(BRANCHES, (9, 9)), **kwargs).counts(unit)


def test_attention_is_refused_by_name() -> None:
    def attention(n: Net, x: Tensor) -> Tensor:
        t = n.a(x).flatten(2).transpose(1, 2)
        return (t @ t.transpose(1, 2)).softmax(-1) @ t

    graph = spatial_graph(Net(attention, a=conv()), (9, 9))
    with pytest.raises(RfbenchError, match=r"this one is global: aten\.bmm"):
        Target(graph).counts()
    assert Target(graph, "a").counts((4, 4)).counts.sum() == 9


class Context(nn.Module):
    """A map of which every position has the same value, of all rows, or of the whole image."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.a, self.b, self.dims = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), dims

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.logsumexp(self.dims, keepdim=True).expand_as(y))


@pytest.mark.parametrize("dims", [(2, 3), (3,)])
@pytest.mark.parametrize("gates", ["ignore", "count"])
def test_a_map_of_a_context_alone_is_refused(dims: tuple[int, ...], gates: str) -> None:
    graph = rf.record(Context(dims), size=16)
    for ask in (
        lambda: rf.theory(graph),
        lambda: Target(graph).counts(convention=Convention(gates=gates)),
        lambda: rf.audit(Context(dims), size=16),
    ):
        with pytest.raises(RfbenchError, match="'b' lead through a global context"):
            ask()
    assert rf.theory(graph, "a")["y"]["size"] == 3
