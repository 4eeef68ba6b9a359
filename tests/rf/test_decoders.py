"""Maps whose units take turns: decoders. Fields and shifts by gradients of the real modules."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.rf.core.geometry import NotUniform
from rfbench.rf.core.metrics import caption, measure, measure_known
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.period import Period
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit.counterfactual import uneven_layers
from rfbench.rf.questions.maps import drawn, phases
from rfbench.spatial_graph.reader import spatial_graph


class Up(nn.Module):
    """Down by 2, and up again by what is given."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 1, 3, 2, 1)
        self.mid = nn.Conv2d(1, 1, 3, 1, 1)
        self.up = up
        self.out = nn.Conv2d(1, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.up(self.mid(self.down(x))))


class Skips(nn.Module):
    """A U-Net of valid convolutions, as the original: the encoder's maps are cropped."""

    def __init__(self, depth: int, width: int = 1) -> None:
        super().__init__()
        inside = [1, *[width] * depth]
        self.down = nn.ModuleList(self._two(i, width) for i in inside)
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, 2) for _ in range(depth))
        self.join = nn.ModuleList(self._two(2 * width, width) for _ in range(depth))

    def _two(self, inside: int, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inside, width, 3), nn.Conv2d(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for down in self.down:
            x = down(F.avg_pool2d(x, 2) if kept else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = up(x)
            m = (skip.shape[-1] - x.shape[-1]) // 2
            x = join(torch.cat([skip[..., m:-m, m:-m], x], 1))
        return x


def ones(module: nn.Module) -> nn.Module:
    """A copy in which every weight is 1: its gradients are path counts."""
    module = module.double()
    for p in module.parameters():
        p.data = torch.ones_like(p) if p.dim() > 1 else torch.zeros_like(p)
    return module


def gradient(module: nn.Module, side: int, unit: tuple[int, int]) -> np.ndarray:
    x = torch.zeros(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    module(x)[0, 0, unit[0], unit[1]].backward()
    assert x.grad is not None
    return x.grad[0, 0].numpy()


def target(module: nn.Module, side: int) -> Target:
    return Target(spatial_graph(module, (side, side), 1))


UPS = [
    nn.ConvTranspose2d(1, 1, 2, 2),
    nn.ConvTranspose2d(1, 1, 3, 2, 1, 1),
    nn.ConvTranspose2d(1, 1, 4, 2, 1),
    nn.ConvTranspose2d(1, 1, 5, 3, 1),
    nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.Upsample(scale_factor=4, mode="bilinear"),
]


@pytest.mark.parametrize("up", UPS, ids=str)
def test_every_phase_by_gradients(up: nn.Module) -> None:
    module, side = ones(Up(up)), 48
    seen = target(module, side)
    n, _ = seen.units
    field, _ = seen.geometry.fields
    (found,) = [measure(seen.counts((n // 2, n // 2)), seen.geometry)]
    p = found["phases"][0]
    assert p == len(field.phases) and seen.period() is not None
    middles = []
    for u in range(n // 2 - p // 2, n // 2 - p // 2 + p):
        unit = (u, u)
        ours = measure(seen.counts(unit), seen.geometry)
        grad = gradient(module, side, unit)
        rows = np.nonzero(grad.any(1))[0]
        assert seen.geometry.box(unit)[0] == (rows[0], rows[-1])
        if not isinstance(up, nn.Upsample) or up.mode != "bilinear":  # taps count one each there
            at = grad.sum(1) @ np.arange(side) / grad.sum()
            assert ours["centroid"][0] == pytest.approx(at)
        middles.append(ours["unit_shift"][0])
        # whichever unit of the period is asked, the mean and range are the same
        assert ours["shift"] == pytest.approx(found["shift"])
        assert ours["shift_range"][0] == pytest.approx(found["shift_range"][0])
    assert found["shift"][0] == pytest.approx(np.mean(middles))
    assert found["shift_range"][0] == pytest.approx((min(middles), max(middles)))
    assert found["stride"] == [float(field.stride)] * 2


def test_two_phases_of_a_transposed_convolution() -> None:
    seen = target(Up(nn.ConvTranspose2d(1, 1, 2, 2)), 64)
    assert seen.geometry.box((30, 31)) == ((25, 33), (27, 35))
    found = measure(seen.counts(), seen.geometry)
    assert found["size"] == [9, 9] and found["stride"] == [1, 1] and found["phases"] == (2, 2)
    assert found["shift"] == pytest.approx([-0.5, -0.5]) == found["registration"]
    assert found["shift_range"][0] == pytest.approx((-0.7, -0.3), abs=0.05)
    # all paths pass a 3x3 of stride 2: one pixel in two is read twice
    assert found["gridding"] == pytest.approx(0.4843, abs=5e-5)


def test_the_original_u_net_lies_on_its_own_grid() -> None:
    seen = target(Skips(4), 572)
    assert seen.units == (388, 388)
    found = measure(seen.counts(), seen.geometry)
    assert found["phases"] == (16, 16) and found["stride"] == [1, 1]
    assert np.abs(found["shift"]).max() < 0.1
    assert found["registration"] is None  # 388 units do not cover 572 px
    assert not found["cut"]


def test_a_border_is_found_and_left(tmp_path: object) -> None:
    network = Network(nn.Sequential(Up(nn.ConvTranspose2d(1, 1, 2, 2)), nn.Conv2d(1, 1, 31, 1, 15)))
    small = network.target((20, 20))
    assert small.is_cut
    large = network.uncut(small)
    assert not large.is_cut and large.graph.size[0] % 2 == 0
    assert large.period() is not None


class Aligned(nn.Module):
    """A U-Net that resizes with aligned corners, as many do; its strides differ from 1 and 2."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.top = nn.Conv2d(1, 1, 3, stride, 1)
        self.down, self.mid = nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 1, 1)
        self.out = nn.Conv2d(1, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        low = self.mid(self.down(top))
        return self.out(
            top + F.interpolate(low, top.shape[2:], mode="bilinear", align_corners=True)
        )


@pytest.mark.parametrize("stride", [1, 2])
def test_a_stretched_map_stands_on_a_grid_that_covers_the_image(stride: int) -> None:
    """Of pixels, or of the branch that has a stride; n units over n `stride` pixels."""
    n, module = 26, ones(Aligned(stride))
    side = n * stride
    seen = target(module, side)
    counts = seen.counts(None, Convention(pool="mean"))
    found = measure_known(counts, seen.geometry)
    assert found["stride"] is None and "a grid that covers the source" in found["why_none"]
    off = {}
    for y in range(n):
        grad = gradient(module, side, (y, n // 2)).sum(1)
        low, high = math.floor((y - 1) * 12 / 25), math.ceil((y + 1) * 12 / 25)  # of 13 rows
        first, last = min(2 * (low - 1) - 1, y - 1), max(2 * (high + 1) + 1, y + 1)  # of n rows
        if first * stride - 1 >= 0 and last * stride + 1 < side:  # the border cuts nothing off
            place = (y - (n - 1) / 2) * stride + (side - 1) / 2
            off[y] = grad @ np.arange(side) / grad.sum() - place
    assert found["phases"] == (len(off), len(off)) and counts.period.first[0] == min(off)
    assert found["shift"][0] == pytest.approx(np.mean([*off.values()]))
    assert found["shift_range"][0] == pytest.approx((min(off.values()), max(off.values())))
    assert found["unit_shift"][0] == pytest.approx(off[12])
    assert max(off.values()) - min(off.values()) > 0.3  # corners that are aligned stretch the map
    assert "units: " in plain(found) and "phases" not in plain(found)


def test_a_stretched_map_that_covers_nothing_known_has_no_shift() -> None:
    crop = nn.Sequential(Aligned(), nn.Conv2d(1, 1, 3))  # fewer units than pixels
    seen = target(ones(crop), 26)
    with pytest.raises(NotUniform, match="no effective stride"):
        measure(seen.counts(), seen.geometry)


def test_an_audit_of_a_u_net_with_aligned_corners() -> None:
    found = rf.audit(Aligned(), size=32)
    assert found["shift"][0] == pytest.approx(-0.5, abs=0.01) and found["measured_at"] == (32, 32)
    rows = {row["layer"]: row for row in found["steps"]}
    assert abs(rows["down"]["shift"][0]) < 0.05
    cut = rf.audit(Aligned(), size=12)  # an input that is large enough is found
    assert cut["at_own_size"]["cut"] and min(cut["measured_at"]) > 12


def test_a_map_resized_with_aligned_corners_alone_is_not_enlarged_without_end() -> None:
    """Its units take turns once: a larger map has a longer period."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Upsample(None, 2, "bilinear", align_corners=True)
    )
    found = rf.audit(net, size=64)
    assert max(found["measured_at"]) < 100
    seen = target(ones(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), net[1])), 64)
    counts = seen.counts(None, Convention(pool="mean"))
    off = []
    for y in range(3, 64):  # above them the border cuts
        grad = gradient(ones(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), net[1])), 64, (y, 31)).sum(1)
        off.append(float(grad @ np.arange(64) / grad.sum() - y))
    assert counts.period.first == (3, 3) and counts.period.totals.shape == (61, 61)
    assert measure_known(counts, seen.geometry)["shift"][0] == pytest.approx(np.mean(off))


def test_a_shift_of_a_larger_input_is_told_as_such() -> None:
    """An odd map, halved and resized to its size again (GhostNetV2), at a size that cuts it."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 5, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return x + F.interpolate(self.b(F.avg_pool2d(x, 2)), x.shape[2:])

    cut, whole = rf.audit(Halved(), size=14), rf.audit(Halved(), size=62)
    assert cut["stretched_along"] == whole["stretched_along"] == "yx"
    assert min(cut["measured_at"]) > 14 and whole["measured_at"] == (62, 62)
    told = "px: along y and x units have no stride in common, and inputs of other sizes have other"
    assert told in str(cut) and told not in str(whole)


def test_fields_that_grow_with_the_image_are_never_whole_and_have_no_shift() -> None:
    class Pyramid(nn.Module):
        """A pyramid pooling module: no image is large enough for its fields."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            for n in (3, 5):
                pooled = F.adaptive_avg_pool2d(a, n)
                a = a + F.interpolate(pooled, a.shape[2:], mode="bilinear", align_corners=True)
            return F.interpolate(self.b(a), x.shape[2:], mode="bilinear", align_corners=True)

    with pytest.raises(NotUniform, match="no effective stride"):
        rf.audit(Pyramid(), size=32)
    (panel,) = rf.visualize(Pyramid(), ["baseline"], size=32)["panels"]
    assert panel["metrics"]["input_size"] == (32, 32) and panel["metrics"]["shift"] is None


def test_a_gate_does_not_take_a_stretched_map_from_its_grid() -> None:
    class Gated(Aligned):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out * F.adaptive_avg_pool2d(out, 1).sigmoid()

    assert rf.audit(Gated(), size=32)["shift"] == rf.audit(Aligned(), size=32)["shift"]


def test_maps_that_are_resized_irregularly_say_so() -> None:
    seen = target(nn.Upsample(size=(77, 77), mode="bilinear", align_corners=True), 31)
    if None in seen.fields:
        with pytest.raises(Exception, match="no effective stride"):
            measure(seen.counts(), seen.geometry)


def up(*layers: nn.Module) -> Target:
    return target(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), *layers), 48)


@pytest.mark.parametrize(
    ("layers", "value"),
    [
        ([nn.ConvTranspose2d(1, 1, 3, 2, 1, 1)], 0.4843),
        ([nn.ConvTranspose2d(1, 1, 4, 2, 1)], 0),
        ([nn.ConvTranspose2d(1, 1, 3, 2, 1, 1), nn.Conv2d(1, 1, 2)], 0),
        ([nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, 1, 1)], 0),
        ([nn.Upsample(scale_factor=3, mode="bilinear"), nn.Conv2d(1, 1, 5, 1, 2)], 0),
    ],
    ids=str,
)
def test_checkerboards_of_transposed_convolutions(layers: list[nn.Module], value: float) -> None:
    seen = up(*layers)
    found = measure(seen.counts(), seen.geometry)["checkerboard"]
    assert found == pytest.approx(value, abs=5e-5)
    # a constant image through weights of ones, away from the border
    module = ones(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), *layers))
    out = module(torch.ones(1, 1, 48, 48, dtype=torch.float64))[0, 0, 12:24, 12:24].detach().numpy()
    assert found == pytest.approx(out.std() / out.mean(), abs=1e-9)


def test_an_audit_names_who_makes_a_checkerboard() -> None:
    uneven, even = nn.ConvTranspose2d(1, 1, 3, 2, 1, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1)
    assert uneven_layers(up(uneven, even)) == ["1"]


def test_figures_of_the_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of 3 at stride 2 reaches positions by 1 and 2 taps in turn, along either axis."""
    lines = ["from torch import nn", "down = lambda: nn.Conv2d(3, 4, 3, 2, 1)"]
    ups = {"uneven": "nn.ConvTranspose2d(4, 4, 3, 2)", "even": "nn.ConvTranspose2d(4, 4, 4, 2)"}
    for name, up in {**ups, "plain": "nn.ReLU()"}.items():
        lines.append(f"def {name}(): return nn.Sequential(down(), {up})")
    (tmp_path / "own.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    given = {"uneven": {"phases", "checkerboard"}, "even": {"phases"}, "plain": set()}
    for name, more in given.items():
        args = ["visualize-rf", f"own.py:{name}", "--size", "64", "--variant", "baseline"]
        done = CliRunner().invoke(main, [*args, "--output", name])
        assert done.exit_code == 0, done.stderr
        assert {file.stem for file in Path(name).glob("*.png")} == {"maps", *more}
    target = Target(spatial_graph(Up(nn.ConvTranspose2d(1, 1, 3, 2)).up, (20, 20)))
    period = target.period()
    assert len(phases.chosen_units(period)) == 4 and phases.is_uneven(period)
    seen = np.unique(np.round(phases._board(period) * 2.25 + 2.25, 9))
    assert seen.tolist() == [1, 2, 4]  # of a mean of 2.25


@pytest.mark.parametrize("sides", [(2, 32), (12, 12), (5, 7)])
def test_a_checkerboard_shows_a_whole_period_at_least(sides: tuple[int, int]) -> None:
    totals = np.random.default_rng(0).random(sides)
    board = phases._board(Period((0, 0), np.zeros((2, *sides)), totals))
    assert board.shape == tuple(max(12, n) for n in sides)
    assert np.allclose(board[: sides[0], : sides[1]], totals / totals.mean() - 1)


@pytest.mark.parametrize("up", UPS[:3], ids=str)
def test_each_panel_of_the_phases_tells_the_shift_and_the_size_of_its_own_unit(
    up: nn.Module,
) -> None:
    module, side = ones(Up(up)), 48
    seen = target(module, side)
    (n, _), centre = seen.units, (side - 1) / 2
    period = seen.period()
    assert period is not None
    told = set()
    for unit in phases.chosen_units(period):
        found = drawn._of_this_unit(seen.counts(unit), seen)
        grad = gradient(module, side, unit)
        for axis, u in enumerate(unit):
            line = grad.sum(1 - axis)
            at, rows = line @ np.arange(side) / line.sum(), np.nonzero(line)[0]
            stride = float(seen.geometry.strides[axis])
            assert found["shift"][axis] == pytest.approx(at - (u - (n - 1) / 2) * stride - centre)
            assert found["size"][axis] == rows[-1] - rows[0] + 1
        told.add(caption(found))
        assert "mean of" not in caption(found)
    assert len(told) > 1
    whole = measure(seen.counts(), seen.geometry)
    own = f"{whole['unit_shift'][0]:.2f}".replace("-", "−")
    assert f"phases: {whole['shift_range'][0][0]:.2f}".replace("-", "−") in plain(whole)
    assert f"this unit {own}" in plain(whole)


def plain(figures: dict[str, object]) -> str:
    """A caption, with spaces at which it may break."""
    return caption(figures).replace("\u00a0", " ")


@pytest.mark.parametrize("size", [2, 3, 4, 9])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(4, 2, 1), (3, 2, 1), (6, 4, 1), (5, 3, 1)]
)
def test_small_maps_have_the_checkerboard_of_large_ones(
    kernel: int, stride: int, padding: int, size: int
) -> None:
    """On small ones the border cuts the fields of some of the units that take turns."""
    net = nn.ConvTranspose2d(8, 3, kernel, stride, padding, stride - 2)
    small, large = (rf.audit(net, inputs=[torch.zeros(1, 8, n, n)]) for n in (size, 32))
    for figure in ("shift", "checkerboard"):
        assert small[figure] == pytest.approx(large[figure], abs=1e-9)
    if size > 2:  # of two inputs, no transposed convolution can be told
        told = [[(row["what"], row["shift"]) for row in a["steps"]] for a in (small, large)]
        assert told[0] == told[1]


def test_a_field_is_cut_where_that_of_a_unit_is_with_which_it_takes_turns() -> None:
    net = nn.ConvTranspose2d(8, 3, 4, 2, 1)
    _, figures = rf.path_counts(rf.record(net, inputs=[torch.zeros(1, 8, 2, 2)]), unit=(1, 1))
    assert figures["cut"] and figures["checkerboard"] is None
    _, figures = rf.path_counts(rf.record(net, inputs=[torch.zeros(1, 8, 3, 3)]))
    assert not figures["cut"] and figures["checkerboard"] == 0


class Squeezed(nn.Module):
    """A U-Net whose maps are weighted by their means, as those of an EfficientNet are."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.down = nn.ModuleList(nn.Conv2d(c, 2, 3, 2, 1) for c in (3, 2, 2))
        self.up = nn.ModuleList(nn.Conv2d(2, 2, 3, 1, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for layer in self.down:
            x = layer(x)
            if self.gated:
                x = x * F.avg_pool2d(x, x.shape[2:]).sigmoid()
            maps.append(x)
        for layer, skip in zip(self.up, [*maps[1::-1], None], strict=True):
            x = F.interpolate(x, scale_factor=2)
            x = layer(x if skip is None else x[..., : skip.shape[2], : skip.shape[3]] + skip)
        return x


@pytest.mark.parametrize("size", [24, 33])
def test_what_a_gate_pools_is_no_matter_of_strides_and_places(size: int) -> None:
    gated, plain = (rf.audit(Squeezed(g), size=size, sizes=[23, 32]) for g in (True, False))
    for key in (
        "shift",
        "gridding",
        "measured_at",
        "sizes",
    ):
        assert gated[key] == plain[key], key
    moved, still = (rf.mirror(Squeezed(g), size=24)["axes"] for g in (True, False))
    assert [moved[a]["off"] for a in "yx"] == [still[a]["off"] for a in "yx"]
    assert all(moved[a]["moved_image"] is None or moved[a]["confirmed"] for a in "yx")
