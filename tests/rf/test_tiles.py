"""Tiles: halo, alignment and smallest crop against torch, run on whole images and on crops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.layers
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from tests.spatial_graph.cases import Net, conv


def unet(n: Net, x: Tensor) -> Tensor:
    a = n.a(x)
    b = n.b(a)
    return n.c(torch.cat([a, n.up(b + n.across(n.d(b)))], 1))


def parts(up: nn.Module) -> dict[str, nn.Module]:
    return {
        "a": conv(3, 4), "b": conv(4, 6, 3, 2), "d": conv(6, 6, 3, 2),
        "across": nn.ConvTranspose2d(6, 6, 2, 2), "up": up, "c": conv(10, 3),
    }  # fmt: skip


def valid_unet(n: Net, x: Tensor) -> Tensor:
    """As the original: no padding, and the skip connection is cropped in the middle."""
    a = n.a(x)
    u = n.up(n.b(F.max_pool2d(a, 2)))
    dy, dx = ((m - k) // 2 for m, k in zip(a.shape[2:], u.shape[2:], strict=True))
    return n.c(torch.cat([a[:, :, dy : dy + u.shape[2], dx : dx + u.shape[3]], u], 1))


def padded(n: Net, x: Tensor) -> Tensor:
    h, w = x.shape[2:]
    return n.b(n.a(F.pad(x, (0, -w % 16, 0, -h % 16))))


def pooled(n: Net, x: Tensor) -> Tensor:
    """A pyramid pooling: always 8 x 8 means."""
    a = n.a(x)
    return n.b(a + F.interpolate(F.adaptive_avg_pool2d(a, 8), size=a.shape[2:]))


def blurred(n: Net, x: Tensor) -> Tensor:
    return n.c(n.pool(n.a(x)))


MAKE: dict[str, Callable[[], nn.Module]] = {
    "strided": lambda: nn.Sequential(conv(3, 4, 7, 2), nn.MaxPool2d(3, 2, 1), conv(4, 4, 3, 2)),
    "valid": lambda: nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 3, 2)),
    "dilated": lambda: nn.Sequential(conv(3, 4, 3, 1, 2, dilation=2), conv(4, 4, (1, 5), (2, 1))),
    "nearest": lambda: Net(unet, **parts(nn.Upsample(scale_factor=2))),
    "bilinear": lambda: Net(unet, **parts(nn.Upsample(scale_factor=2, mode="bilinear"))),
    "transposed": lambda: Net(unet, **parts(nn.ConvTranspose2d(6, 6, 4, 2, 1))),
    "shuffle": lambda: nn.Sequential(conv(3, 12), nn.PixelShuffle(2), conv(3, 2, 3)),
    "valid_unet": lambda: Net(
        valid_unet, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 4, 3),
        up=nn.ConvTranspose2d(4, 4, 2, 2), c=nn.Conv2d(8, 2, 3),
    ),
    "reflect": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect"), conv(4, 4, 3)
    ),
    "same": lambda: nn.Sequential(
        timm.layers.create_conv2d(3, 4, 3, stride=2, padding="same"), conv(4, 4, 3, 2)
    ),
    "pads": lambda: Net(padded, a=conv(3, 4, 3, 2), b=conv(4, 4, 3, 2)),
    "averages": lambda: Net(
        blurred, a=conv(3, 4), pool=nn.AvgPool2d(3, 2, 1, count_include_pad=False), c=conv(4, 4)
    ),
    "ceil": lambda: nn.Sequential(conv(3, 4), nn.MaxPool2d(2, 2, ceil_mode=True), conv(4, 4)),
}  # fmt: skip
SIZES = [(64, 64), (61, 70)]


def map_of(net: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return net(x)[0].numpy()


def drawn(name: str) -> nn.Module:
    torch.manual_seed(1)
    net = MAKE[name]().double().eval()
    for p in net.parameters():
        nn.init.normal_(p, 0.1, 0.3)
    return net


MEETING = ("nearest", "bilinear", "transposed", "valid_unet")  # branches, at some sizes only
SIZED = ("same", "pads")  # at odd sizes their padding is another
CASES = [(n, s) for n in MAKE for s in SIZES if n not in MEETING + SIZED or s == (64, 64)]


@pytest.mark.parametrize(("name", "size"), CASES, ids=str)
def test_crops_make_up_the_whole(name: str, size: tuple[int, int]) -> None:
    """Cut, run and put together here, by the figures of the record alone."""
    found = rf.tiles(MAKE[name](), size)
    assert found["shown"]["difference"] < 1e-12
    net = drawn(name)
    for row in found["crops"][:3:2]:
        x = torch.randn(1, 3, *(n + 64 for n in size), dtype=torch.float64)
        whole = map_of(net, x)
        out = np.full_like(whole, np.nan)
        sides = zip(x.shape[2:], row["crop"], row["used"], strict=True)
        grid = [range(0, n - c + s, s) for n, c, s in sides]
        lost = [first for first, _ in found["lost"]]
        for y in grid[0]:
            for z in grid[1]:
                part = map_of(net, x[:, :, y : y + row["crop"][0], z : z + row["crop"][1]])
                own, there = [], []
                for k, start in enumerate((y, z)):
                    step = row["used"][k] / found["stride"][k]
                    first = round(start / found["stride"][k])
                    begin = 0 if start == 0 else lost[k]
                    last = start == grid[k][-1]
                    end = part.shape[k + 1] if last else round(lost[k] + step)
                    own.append(slice(begin, end))
                    there.append(slice(first + begin, first + end))
                assert np.isnan(out[:, there[0], there[1]]).all()
                out[:, there[0], there[1]] = part[:, own[0], own[1]]
        assert np.abs(out - whole).max() < 1e-12 * max(1, np.abs(whole).max())


@pytest.mark.parametrize("name", [n for n in MAKE if n != "pads"])
def test_no_smaller_crop_will_do(name: str) -> None:
    """A crop that is smaller by one step has less of use than one step, whatever its place."""
    found = rf.tiles(MAKE[name](), 64)
    net, align = drawn(name), found["align"]
    x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    whole = map_of(net, x)
    for axis in (0, 1):
        for less in (0, align[axis]):
            crop = [n + 2 * a for n, a in zip(found["smallest"], align, strict=True)]
            crop[axis] = found["smallest"][axis] - less
            try:
                part = map_of(net, x[:, :, 32 : 32 + crop[0], 32 : 32 + crop[1]])
            except RuntimeError:
                assert less  # too small for torch
                continue
            offsets = [round(32 / s) for s in found["stride"]]
            view = whole[:, offsets[0] :, offsets[1] :][:, : part.shape[1], : part.shape[2]]
            same = np.isclose(part, view, rtol=0, atol=1e-12).all(0)
            first, gone = found["lost"][1 - axis]  # across, only what is the same in any case
            across = slice(first, same.shape[1 - axis] - (gone - first))
            best = (same[:, across] if axis == 0 else same[across]).all(1 - axis).sum()
            enough = best * found["stride"][axis] >= align[axis]
            assert enough == (not less), (axis, less, best)


def test_what_is_known_of_a_network() -> None:
    found = rf.tiles(MAKE["strided"](), 64)
    assert found["align"] == [8, 8] and found["stride"] == [8, 8]
    # -P before and r - P - S after, of a field of 19 px that begins 9 px before its unit
    field = rf.theory(rf.record(MAKE["strided"](), size=64))["y"]
    before = field["padding"]
    assert found["halo"] == [(before, field["size"] - before - 8)] * 2
    assert rf.tiles(MAKE["valid"](), 64)["halo"] == [(0, 5)] * 2


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "attention": (
        lambda: nn.Sequential(conv(3, 8), timm.layers.NonLocalAttn(8)),
        "it is global: .* in layer 1",
    ),
    "gate": (
        lambda: nn.Sequential(conv(3, 8), timm.layers.SqueezeExcite(8)),
        "local \\+ global context: .* in layer 1",
    ),
    "group": (lambda: nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8)), "in layer 1: its statistics"),
    "instance": (
        lambda: nn.Sequential(conv(3, 8), nn.InstanceNorm2d(8), conv(8, 4)),
        "in layer 1: its statistics are of the whole image",
    ),
    "untracked": (
        lambda: nn.Sequential(conv(3, 8), nn.BatchNorm2d(8, track_running_stats=False)),
        "in layer 1: its statistics are of the whole image",
    ),
    "layer": (
        lambda: nn.Sequential(conv(3, 8), nn.LayerNorm([8, 64, 64])),
        "in layer 1: its statistics are of the whole image",
    ),
    "align_corners": (
        lambda: Net(unet, **parts(nn.UpsamplingBilinear2d(scale_factor=2))),
        "in layer up: align_corners stretches by the size of the image",
    ),
    "size": (
        lambda: Net(lambda n, x: F.interpolate(n.a(x), size=(40, 40)), a=conv(3, 4)),
        "upsample_nearest2d.*: its positions depend on the size of the image|no stride in common",
    ),
    "irregular": (
        lambda: Net(lambda n, x: F.interpolate(n.a(x), size=(77, 77)), a=conv(3, 4, 3, 2)),
        "upsample_nearest2d.*: its positions depend on the size of the image|multiples of",
    ),
    "places": (
        lambda: Net(
            lambda n, x: n.a(x + torch.linspace(0, 1, x.shape[3]).to(x)), a=conv(3, 4), b=conv()
        ),
        "first in layer a: something there depends on the place",
    ),
    "adaptive": (
        lambda: Net(pooled, a=conv(3, 4), b=conv(4, 4)),
        "adaptive_avg_pool2d.*: its positions depend on the size of the image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(RfbenchError, match=message) as error:
        rf.tiles(make(), 64)
    assert str(error.value).startswith("tiles cannot equal the whole image: ")


@pytest.mark.parametrize("name", SIZED)
def test_a_size_at_which_crops_are_padded_as_the_whole_is_proposed(name: str) -> None:
    with pytest.raises(UsageError, match="at 61x70 px .* at 64x(72|80) px: choose another --size"):
        rf.tiles(MAKE[name](), (61, 70))


@pytest.mark.parametrize("wrap", [lambda t: {"out": t}, lambda t: [t]], ids=["dict", "list"])
def test_the_one_tensor_of_a_dict_or_list_is_the_output(wrap: Callable[[Tensor], Any]) -> None:
    """As torchvision's segmenters return theirs."""
    plain = Net(lambda n, x: F.interpolate(n.a(x), scale_factor=2), a=conv(3, 4, 3, 2))
    held = Net(lambda n, x: wrap(plain(x)), a=plain)
    tiles = [rf.tiles(net, 64) for net in (plain, held)]
    assert tiles[1]["shown"]["difference"] < 1e-12
    assert {**tiles[0], "shown": 0, "to": 0} == {**tiles[1], "shown": 0, "to": 0}
    mirrors = [rf.mirror(net, 64)["axes"]["y"]["off"] for net in (plain, held)]
    assert mirrors[0] == mirrors[1]


def test_an_earlier_layer_may_have_tiles() -> None:
    net = nn.Sequential(conv(3, 8, 3, 2), nn.GroupNorm(2, 8), conv(8, 4))
    assert rf.tiles(net, 64, layer="0")["shown"]["difference"] < 1e-12
    # batch norms in evaluation and norms over channels alone are no matter
    fine = nn.Sequential(conv(3, 8, 3, 2), nn.BatchNorm2d(8), timm.layers.LayerNorm2d(8))
    assert rf.tiles(fine, 64)["shown"]["difference"] < 1e-12


def test_zero_weights_hide_nothing() -> None:
    """Weights are drawn for the run: a last norm of zero would make tiles of anything."""
    net = Net(lambda n, x: n.a(x) + n.b(x) * torch.linspace(0, 1, x.shape[3]).to(x),
              a=conv(3, 4), b=conv(3, 4))  # fmt: skip
    nn.init.zeros_(net.b.weight)
    nn.init.zeros_(net.b.bias)
    with pytest.raises(RfbenchError, match="depends on the place"):
        rf.tiles(net, 64)
    assert not net.b.weight.any()  # the network is left as it is


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (8, "--tile 8: the smallest crop is 16 px"),
        (42, "--tile 42: crops are 16 px and 4 more each; the nearest is 40"),
        ((16, 18), "--tile 18: crops are 16 px and 4 more each"),
        ((16, 16, 16), "--tile: one number, or 2; these are 3"),
    ],
)
def test_crops_that_will_not_do(tile: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rf.tiles(MAKE["nearest"](), 64, tile)


OWN = """
from torch import nn
def down():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
def normed():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.GroupNorm(2, 4))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["rf", "tiles", *args])


def test_the_command(place: Path) -> None:
    result = run("own.py:down", "--size", "48x64", "--tile", "24")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:8] == [
        "own.py:down / baseline to 2 at 48x64 px",
        "  halo y, x      3 before, 0 after (px that a tile's units read beyond it)",
        "  alignment      crops start at multiples of 4x4 px",
        "  smallest crop  8x8 px",
        "  crop   of which is used  px computed for one",
        "  8x8    4x4               4.00",
        "  12x12  8x8               2.25",
        "  16x16  12x12             1.78",
    ]
    assert "whole and in 9 of 6 crops" not in result.stdout
    assert "largest difference" in result.stdout and "without the halo" in result.stdout


def test_record_and_figure(place: Path) -> None:
    result = run("own.py:down", "--size", "64", "--json", "--output", "out")
    (record,) = json.loads(result.stdout)
    assert record["halo"] == [[3, 0], [3, 0]] and record["shown"]["difference"] < 1e-12
    held = json.loads((place / "out/result.json").read_text())
    assert held["kind"] == "rf-tiles" and held["tiles"] == [record]
    assert {p.name for p in (place / "out").iterdir()} == {
        ".rfbench.json",
        "own.py-down-baseline.png", "own.py-down-baseline.pdf", "result.json",
    }  # fmt: skip
    assert run("own.py:down", "--output", "out").exit_code == 2


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["own.py:normed"], 1, "Error: tiles cannot equal the whole image: aten.native_group_norm"),
        (["own.py:down", "--tile", "4"], 2, "Error: --tile 4: the smallest crop is 8 px"),
        (["own.py:down", "--tile", "a"], 2, "Error: --tile a: expected N or HxW"),
        (["own.py:down", "--to", "9"], 2, "Error: unknown layer '9'"),
    ],
)
def test_bad_input_is_one_line(place: Path, args: list[str], code: int, message: str) -> None:
    result = run(*args)
    assert result.exit_code == code and message in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ") and not result.stdout


class Pair(nn.Module):
    """Two inputs of equal size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4, 3, 2), conv(1, 4, 5, 2), conv(8, 4, 3, 2)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(depth)], 1))


def test_several_inputs_are_cut_alike() -> None:
    shapes = [torch.zeros(1, 3, 64, 48), torch.zeros(1, 1, 64, 48)]
    found = rf.tiles(Pair(), inputs=shapes)
    # the wider of both: 2 px and a unit of 2 px before, 2 px and none after the last pixel read
    assert found["halo"] == [(4, 1)] * 2 and found["align"] == [4, 4]
    assert found["shown"]["difference"] < 1e-12


class Halves(nn.Module):
    """An image, and a depth map of half its size; `swapped`: the other way round."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.swapped = conv(3, 4, 3, 2), conv(1, 4), swapped

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = (y, x) if self.swapped else (x, y)
        return self.a(x) + self.b(y)


def test_inputs_of_different_sizes_are_cut_in_proportion() -> None:
    shapes = [torch.zeros(1, 3, 64, 48), torch.zeros(1, 1, 32, 24)]
    for net, given in ((Halves(), shapes), (Halves(swapped=True), shapes[::-1])):
        found = rf.tiles(net, inputs=given)
        # unit u, of px 2u and 2u + 1, reads depth u - 1 to u + 1: px 2u - 2 to 2u + 3
        assert found["halo"] == [(2, 2)] * 2 and found["align"] == [2, 2]
        assert found["input_size"] == (64, 48)
        assert found["shown"]["difference"] < 1e-12
        assert found["shown"]["difference_without_halo"] > 1e-3
    with pytest.raises(UsageError, match=r"\(64x48, 48x36\) are taken as one only where"):
        rf.tiles(Loose(), inputs=[shapes[0], torch.zeros(1, 1, 48, 36)])


class Loose(Halves):
    """The same for depth maps of any size."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)[..., :32, :24]


def test_figures_of_sequences_and_volumes(place: Path) -> None:
    (place / "seq.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Conv1d(2, 4, 3, 2, 1)\n"
        "def volume():\n    return nn.Conv3d(2, 4, 3, 2, 1)\n"
    )
    result = run("seq.py:net", "--size", "64", "--output", "out")
    assert result.exit_code == 0, result.stderr
    assert {".pdf", ".png"} <= {path.suffix for path in (place / "out").iterdir()}
    result = run("seq.py:volume", "--size", "16", "--output", "out3")
    assert result.exit_code == 0, result.stderr
    assert {".pdf", ".png"} <= {path.suffix for path in (place / "out3").iterdir()}


def test_the_figure_of_a_volume_has_a_section_along_each_axis() -> None:
    net = nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv3d(4, 4, (1, 3, 3), padding=1))
    found = rf.tiles(net, inputs=[torch.zeros(1, 1, 24, 36, 48)], tile=(8, 12, 16), layer="0")
    figure = found.plot()
    above, below = figure.axes[:3], [a for a in figure.axes if a.images][:3]
    assert [a.get_xlim() for a in above] == [(0, 48), (0, 48), (0, 36)]
    assert [a.get_ylim() for a in above] == [(36, 0), (24, 0), (24, 0)]
    for axes, crop in zip(below, [(12, 16), (8, 16), (8, 12)], strict=True):
        shown = np.asarray(axes.images[0].get_array()) > -10
        # a unit of stride 2 reads 1 voxel before its own: the first behind each edge differs
        rows, columns = ((np.arange(n) * 2 % c == 0) & (np.arange(n) > 0)
                         for n, c in zip(shown.shape, crop, strict=True))  # fmt: skip
        assert (shown == (rows[:, None] | columns)).all()


def test_a_figure_where_crops_do_not_fit_side_by_side(place: Path) -> None:
    (place / "valid.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Conv2d(3, 4, 3)\n"
        "def line():\n    return nn.Conv1d(3, 4, 3)\ndef body():\n    return nn.Conv3d(3, 4, 3)\n"
    )
    for name, size in (("net", "24"), ("line", "24"), ("body", "12")):
        result = run(f"valid.py:{name}", "--size", size, "--output", name)
        assert result.exit_code == 0, result.stderr
        assert "without the halo" not in result.stdout


def test_errors_count_in_the_units_of_the_axes() -> None:
    line, body = nn.Conv1d(1, 2, 3, 2, 1), nn.Conv3d(1, 2, 3, 2, 1)
    for net, unit, shape in ((line, "samples", (64,)), (body, "voxels", (16, 16, 16))):
        shown = [torch.zeros(1, 1, *shape)]
        with pytest.raises(UsageError, match=f"the smallest crop is 4 {unit}"):
            rf.tiles(nn.Sequential(net), inputs=shown, tile=2)
        with pytest.raises(
            UsageError, match=f"crops are 4 {unit} and 2 more each; the nearest is 4"
        ):
            rf.tiles(nn.Sequential(net), inputs=shown, tile=5)


def test_of_many_crops_without_a_halo_the_first_are_run() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    shown = rf.tiles(net, size=(96, 30))["shown"]
    assert shown["size"] == (96, 30) and shown["size_without_halo"] == (60, 30)
    assert shown["tiles"] == 94 * 28 and shown["difference_without_halo"] > 1e-3
    calls = []
    net.register_forward_pre_hook(lambda _module, args: calls.append(args[0].shape))
    rf.tiles(net, size=512)
    assert len(calls) < 500


class Features(nn.Module):
    """Maps on the way of a U-Net, which runs at multiples of 8 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.ModuleList(nn.Conv2d(2, 2, 3, 2, 1) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for down in self.downs:
            maps.append(down(maps[-1]))
        y = maps[-1]
        for skip in maps[-2::-1]:
            y = skip + nn.functional.interpolate(y, scale_factor=2)
        return [*maps[1:], y]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_crops_for_early_maps_are_those_at_which_the_network_runs(number: int) -> None:
    """By themselves crops of any multiple of 2, 4 and 8 would do."""
    found = rf.tiles(Features(), inputs=[torch.zeros(1, 2, 64, 64)], layer=f"output.{number}")
    assert found["crops"]
    for crop in found["crops"]:
        assert all(side % 8 == 0 for side in crop["crop"])
    assert found["shown"]["difference"] < 1e-9
