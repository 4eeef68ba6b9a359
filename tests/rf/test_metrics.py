"""The figures of the facts table, and what each metric does on maps made by hand."""

from functools import cache

import numpy as np
import pytest
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones
from rfbench.rf.core import metrics
from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.metrics import measure
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import Convention, PathMap
from rfbench.rf.core.target import Target
from rfbench.rf.core.theory import Field
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.reader import spatial_graph


@cache
def graph_of(name: str, variant: str, side: int = 1120) -> SpatialGraph:
    return Network(backbones.build(name, variant, meta=True).module).graph((side, side))


def measured(target: Target) -> dict:
    return measure(target.counts(), target.geometry)


def figures(name: str, variant: str, source: str | None = None, side: int = 1120) -> dict:
    graph = graph_of(name, variant, side)
    return measured(Target(graph, source=source))


TABLE = [
    # network, variant, shift and CV from the input, shift and CV after the stem, misaligned
    ("resnet18", "baseline", -15.50, 0.2247, -3.50, 0.0067, 0),
    ("resnet18", "1x1", -14.84, 0.2247, -3.34, 0.0067, 3),
    ("resnet18", "3x3", -1.54, 0.2247, -0.01, 0.0001, 3),
    ("resnet18", "1x1+3x3", -1.50, 0.2247, 0.00, 0.0000, 0),
    ("resnet50", "baseline", -15.50, 0.2247, -3.50, 0.0028, 0),
    ("resnet50", "1x1", -11.19, 0.2247, -2.42, 0.0027, 3),
    ("resnet50", "3x3", -1.88, 0.2247, -0.10, 0.0004, 3),
    ("resnet50", "1x1+3x3", -1.50, 0.2247, 0.00, 0.0000, 0),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}-{row[1]}")
def test_table_of_the_papers_story(row: tuple) -> None:
    name, variant, shift, cv, stem_shift, stem_cv, apart = row
    whole, inner = figures(name, variant), figures(name, variant, "maxpool")
    for found, wanted, even in ((whole, shift, cv), (inner, stem_shift, stem_cv)):
        assert found["shift"] == pytest.approx((wanted, wanted), abs=0.006)
        assert found["gridding"] == pytest.approx(even, abs=0.00006)
        assert not found["cut"]
    assert whole["misaligned"] == apart


def test_vgg_has_neither_fault() -> None:
    found = figures("vgg16", "baseline", side=448)
    assert found["shift"] == pytest.approx((0, 0), abs=1e-9)
    assert found["gridding"] == pytest.approx(0, abs=1e-12) and found["misaligned"] == 0


@pytest.mark.parametrize(
    ("channels", "pool", "one", "three"),
    [
        ("single", "count", -11.19, -1.88),
        ("single", "mean", -14.10, -2.90),
        ("real", "count", -15.50, -1.50),
        ("real", "mean", -15.50, -1.50),
    ],
)
def test_shift_by_convention(channels: str, pool: str, one: float, three: float) -> None:
    wanted = {"1x1": one, "3x3": three, "baseline": -15.5, "1x1+3x3": -1.5}
    for variant, shift in wanted.items():
        graph = graph_of("resnet50", variant)
        found = Target(graph).counts(convention=Convention(channels, pool))
        place = Target(graph).geometry
        assert metrics.shift(found, place) == pytest.approx((shift, shift), abs=0.006)


def test_registration_depends_on_the_parity_of_the_input() -> None:
    for side, shift, registration in ((1120, -15.5, -15.5), (1121, 0, -15.5)):
        found = figures("resnet50", "baseline", side=side)
        assert found["shift"] == pytest.approx((shift, shift), abs=1e-6)
        assert found["registration"] == pytest.approx((registration,) * 2, abs=1e-6)


def test_valid_padding_registers_but_does_not_shift() -> None:
    network = Network(backbones.build("inception_v3", meta=True).module, native=(299, 299))
    target = network.uncut(network.target((299, 299)))
    found = measure(target.counts(), target.geometry)
    assert found["shift"] == pytest.approx((0, 0), abs=1e-6) and not found["cut"]
    assert found["registration"] == pytest.approx((21.5, 21.5), abs=1e-6)


def test_the_border_cuts_the_map_at_224() -> None:
    found = figures("resnet18", "baseline", side=224)
    assert found["cut"] and found["shift"][0] == pytest.approx(-11.8, abs=0.05)


# -- single metrics ------------------------------------------------------------------------------


def made(counts: np.ndarray, unit: tuple[int, int] = (0, 0)) -> PathMap:
    return PathMap(counts, 0, unit, (4, 4), Convention())


def grid(periods: tuple[list[int], list[int]], side: int = 8) -> Geometry:
    stride = [p[-1] if p else 1 for p in periods]
    return Geometry((Field(0, 1, stride[0]), Field(0, 1, stride[1])), periods, (side, side), [])


def test_centroid_shift_and_registration() -> None:
    counts = np.zeros((8, 8))
    counts[2, 3], counts[2, 5] = 3, 1
    found, place = made(counts, (1, 2)), grid(([2], [2]))
    assert found.centroid == (2.0, 3.5)
    # the grid of 4 units a stride of 2 apart is centred on 3.5: unit 1 at 2.5, unit 2 at 4.5
    assert metrics.shift(found, place) == (-0.5, -1.0)
    assert metrics.registration(found, place) == (-0.5, -1.0)


@pytest.mark.parametrize("n", [7, 8])
def test_gridding_of_a_stride_on_pixels(n: int) -> None:
    counts = np.zeros((n, n))
    counts[::2, ::2] = 1  # one phase of four has everything
    assert metrics.gridding_by_period(made(counts), grid(([2], [2]), n)) == {
        "2": pytest.approx(np.std([1, 0, 0, 0]) / 0.25)
    }
    assert metrics.gridding_by_period(made(np.ones((8, 8))), grid(([2, 4], [2, 4])))["4"] == 0


def test_gridding_with_unlike_strides() -> None:
    counts = np.zeros((8, 8))
    counts[::2] = 1
    values = metrics.gridding_by_period(made(counts), grid(([2], [2, 4])))
    assert list(values) == ["2", "2x4"] and values["2x4"] == pytest.approx(1.0)
    assert metrics.gridding_by_period(made(counts), grid(([], [2]))) == {"1x2": 0.0}


@pytest.mark.parametrize("sides", [(7, 29), (40, 5)])
@pytest.mark.parametrize("periods", [[2, 4, 8], [2, 3], [4, 6, 10]])
def test_gridding_of_periods_that_divide_each_other_or_do_not(
    sides: tuple[int, int], periods: list[int]
) -> None:
    counts = np.random.default_rng(0).integers(0, 9, sides)
    values = metrics.gridding_by_period(made(counts), grid((periods, periods), max(sides)))
    for period in periods:
        sums = np.zeros((period, period))
        for (y, x), count in np.ndenumerate(counts):
            sums[y % period, x % period] += count
        assert values[str(period)] == pytest.approx(sums.std() / sums.mean(), abs=1e-12)


def test_stride_one_never_grids() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 5, 1, 2))
    graph = spatial_graph(module, (24, 24))
    found = measured(Target(graph))
    assert found["gridding"] == 0 and found["shift"] == pytest.approx((0, 0))


@pytest.mark.parametrize(
    ("kernel", "stride", "even"), [(4, 2, True), (6, 3, True), (3, 2, False), (1, 2, False)]
)
def test_kernels_that_the_stride_divides_are_even(kernel: int, stride: int, even: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, kernel, stride), nn.Conv2d(4, 4, 7))
    graph = spatial_graph(module, (60, 60))
    found = measured(Target(graph))
    assert (found["gridding"] < 1e-12) == even


def test_support_and_cut() -> None:
    graph = spatial_graph(nn.Conv2d(3, 4, 5, 2, 2), (16, 20))
    place = Target(graph).geometry
    corner = measure(Target(graph).counts((0, 0)), place)
    assert corner["support"] == {"top": 0, "bottom": 2, "left": 0, "right": 2} and corner["cut"]
    inner = measure(Target(graph).counts((3, 4)), place)
    assert inner["support"] == {"top": 4, "bottom": 8, "left": 6, "right": 10}
    assert not inner["cut"] and inner["center"] == [6.0, 8.0]


def test_a_field_that_just_fits_is_not_cut() -> None:
    place = Target(spatial_graph(nn.Conv2d(3, 4, 3, 2), (7, 7))).geometry
    assert not any(place.is_cut((unit, unit)) for unit in range(3))
    assert place.is_cut((3, 0))
    padded = Target(spatial_graph(nn.Conv2d(3, 4, 3, 2, 1), (7, 7))).geometry
    assert [padded.is_cut((1, unit)) for unit in range(4)] == [True, False, False, True]


def test_uncut_size_holds_the_field() -> None:
    network = Network(nn.Sequential(nn.Conv2d(3, 4, 9, 4, 4), nn.Conv2d(4, 4, 9, 2, 4)), (16, 16))
    target = network.uncut(network.target((16, 16)))
    assert not target.is_cut
    reached = (target.counts().counts > 0).any(0).sum()
    assert reached == target.geometry.uniform[0].size == 41


def test_what_has_no_metrics() -> None:
    with pytest.raises(RfbenchError, match="no effective stride"):
        _ = Geometry((None, None), ([], []), (8, 8), []).uniform
    with pytest.raises(UsageError, match="no path"):
        measure(made(np.zeros((8, 8))), grid(([2], [2])))


def test_counts_near_overflow_have_a_gridding() -> None:
    field = (Field(-1, 2, 2), Field(-1, 2, 2))
    place = Geometry(field, ([2], [2]), (4, 4), [])
    small = np.arange(16.0).reshape(4, 4)
    found = [
        metrics.gridding_by_period(PathMap(counts, 0, (0, 0), (2, 2), Convention(), 0.0), place)
        for counts in (small, small * 1e300)
    ]
    assert 0 < found[0]["2"] < 1
    assert found[1]["2"] == pytest.approx(found[0]["2"])
