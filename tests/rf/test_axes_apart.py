"""Every axis is answered by itself: a stride along one of them is enough for its figures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target


class Rows(nn.Module):
    """Strided, then mixed along x by a learned matrix."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 2, 1)
        self.columns = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.columns(self.a(x))


class RolledAlongX(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).roll(5, -1)


class Pyramid(nn.Module):
    """Windows of a pyramid pooling that are not alike, resized and joined to the map."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(4, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        pooled = F.interpolate(F.adaptive_avg_pool2d(y, (3, 4)), size=y.shape[-2:], mode="bilinear")
        return self.b(torch.cat([y, pooled], 1))


@pytest.mark.parametrize("net", [Rows(), RolledAlongX()], ids=["mixed", "rolled"])
def test_the_other_axis_keeps_its_figures(net: nn.Module) -> None:
    counts, figures = rf.path_counts(rf.record(net, 48), unit=(12, 12))
    rows = counts.sum(1)
    middle = float(rows @ np.arange(48) / rows.sum())
    assert figures["shift"] == (pytest.approx(middle - ((12 - 23 / 2) * 2 + 47 / 2)), None)
    assert figures["shift"][0] == -0.5
    assert figures["gridding_by_period"] == {"2x1": pytest.approx(1 / 3)}  # 1 and 2 of 3 rows
    assert figures["stride"] == [2, None] and "along x" in figures["why_none"]
    assert figures["size"][0] == 3 and figures["padding"] == [1, None]


def test_an_audit_judges_the_axis_that_has_a_stride() -> None:
    record = rf.audit(Rows(), size=48)
    assert record["shift"] == [-0.5, None] and record["no_stride_along"] == "x"
    assert record["status"] == "local, global along x"
    fixed = next(row for row in record["fixes"] if row["variant"] == "3x3")
    assert fixed["shift"] == [0, None] and fixed["gridding"] == pytest.approx(0)
    assert record["best"] == "3x3"


def test_an_input_grows_along_the_axis_that_has_a_stride() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 31, 2, 15), nn.Linear(8, 8))
    network = Network(net, (16, 16))
    small = network.target((16, 16))
    assert small.is_cut
    large = network.uncut(small)
    assert not large.is_cut and large.graph.size[0] > 31 and large.graph.size[1] == 16


@pytest.mark.parametrize("unit", [(0, 0), (5, 6), (18, 20), (2, 9)])
def test_the_field_of_a_unit_alone_is_what_its_gradient_reaches(unit: tuple[int, int]) -> None:
    net = Pyramid()
    target = Target(rf.record(net, (38, 42), in_channels=1))
    assert target.geometry.field == (None, None)
    reached = reached_by(net, (38, 42), unit)
    ends = [(int(at.min()), int(at.max())) for at in np.nonzero(reached)]
    assert list(target.geometry.box(unit)) == ends
    figures = rf.path_counts(target.graph, unit=unit)[1]
    assert figures["shift"] is None and figures["read"] == reached[np.ix_(*map(span, ends))].mean()


def span(ends: tuple[int, int]) -> range:
    return range(ends[0], ends[1] + 1)


def reached_by(net: nn.Module, size: tuple[int, int], unit: tuple[int, int]) -> np.ndarray:
    """Where the gradient of a unit is not zero, all weights being positive."""
    net = net.double()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    image = torch.rand(1, 1, *size, dtype=torch.double, requires_grad=True)
    net(image)[0, :, unit[0], unit[1]].sum().backward()
    assert image.grad is not None
    return (image.grad[0, 0] != 0).numpy()


def test_an_audit_needs_a_stride_along_some_axis() -> None:
    with pytest.raises(RfbenchError, match="no effective stride"):
        rf.audit(Pyramid(), size=(38, 42), in_channels=1)


class Stripes(nn.Module):
    """A row's mean laid over the row by resizing, as strip pooling does (Hou et al., CVPR 2020)."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.a, self.b = nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(2, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        size = y.shape[-2:]
        row = F.adaptive_avg_pool2d(y, (size[0], 1))
        row = (
            row.expand_as(y) if self.mode == "expand" else F.interpolate(row, size, mode=self.mode)
        )
        return self.b(y + row)


@pytest.mark.parametrize("mode", ["expand", "nearest", "bilinear", "bicubic"])
def test_what_has_one_position_is_repeated_along_an_axis_by_resizing(mode: str) -> None:
    net, size = Stripes(mode), (14, 18)
    target = Target(rf.record(net, size, in_channels=1))
    assert str(target.witness.reach) == "local + global context"
    counts = target.counts((6, 8), Convention(gates="count")).counts
    assert np.array_equal(counts > 0, reached_by(net, size, (6, 8)))
    record = rf.audit(net, size, in_channels=1)
    assert record["measured_at"] == size and record["shift"] == [0, 0]


class EvenPyramid(nn.Module):
    """Windows that are quarters of a map, resized without weights: its units take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(4, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        pooled = F.interpolate(F.adaptive_avg_pool2d(y, 2), size=y.shape[-2:])
        return self.b(torch.cat([y, pooled], 1))


def test_an_input_does_not_grow_for_fields_that_grow_with_it() -> None:
    network = Network(EvenPyramid(), (32, 32), 1)
    target = network.target((32, 32))
    assert target.is_cut and network.uncut(target) is target
    seen = reached_by(network.module, (32, 32), (7, 7))
    assert np.array_equal(target.counts((7, 7)).counts > 0, seen)
    with pytest.raises(RfbenchError, match="adaptive pooling grow with the image"):
        rf.audit(EvenPyramid(), size=32, in_channels=1)
    (panel,) = rf.visualize(EvenPyramid(), ["baseline"], 32, in_channels=1)["panels"]
    assert panel["metrics"]["input_size"] == (32, 32) and panel["metrics"]["cut"]


class Rearranged(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b = how, nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.cumsum(3) if self.how == "cumsum" else y.roll(3, 3))


def test_running_sums_have_no_shift_at_any_size() -> None:
    record = rf.audit(Rearranged("cumsum"), 32, in_channels=1)
    assert record["shift"] == [0, None] and record["no_stride_along"] == "x"
    assert record["measured_at"] == (32, 32)
    counts = rf.path_counts(rf.record(Rearranged("cumsum"), 32, in_channels=1), unit=(9, 20))[0]
    assert np.array_equal(counts > 0, reached_by(Rearranged("cumsum"), (32, 32), (9, 20)))


@pytest.mark.parametrize("how", ["cumsum", "roll"])
def test_the_step_that_leaves_no_stride_is_named(how: str) -> None:
    graph = rf.record(Rearranged(how), 32, in_channels=1)
    why = rf.path_counts(graph)[1]["why_none"]
    assert f" behind aten.{how}.default. " in why and "resized" not in why
    with pytest.raises(RfbenchError, match=f"behind aten.{how}.default[.]|wrap around"):
        rf.tiles(Rearranged(how), 32, in_channels=1)
