"""`rfbench rf theory` as a user types it: figures, notes, and one line for every bad input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main

OWN = """
import torch
import torch.nn.functional as F
from torch import nn

def down():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, (3, 5), stride=2))

class Up(nn.Module):
    def __init__(self, *size, **how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3, 2, 1), how

    def forward(self, x):
        return F.interpolate(self.conv(x), mode="bilinear", **self.how)

def up():
    return Up(scale_factor=2)

def uneven():
    return Up(size=(19, 19))

class UNet(nn.Module):  # its skips meet where the input is a multiple of 4
    def __init__(self):
        super().__init__()
        self.first, self.low = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x):
        top = self.first(x)
        middle = F.max_pool2d(top, 2)
        y = self.up(self.low(F.max_pool2d(middle, 2))) + middle
        return self.up(y) + top

class Sides(UNet):  # U-Net++ with deep supervision: every level has an output
    def forward(self, x):
        return [super().forward(x), F.interpolate(F.max_pool2d(self.first(x), 2), scale_factor=2)]

class Rolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 1, 1)

    def forward(self, x):
        return self.conv(x).roll(3, -1)

def rolled():
    return Rolled()

class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 1, 1)

    def forward(self, x):
        x = self.conv(x)
        return x * x.mean((2, 3), keepdim=True).sigmoid()

def gate():
    return Gate()

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return torch.cat([self.conv(x), F.avg_pool2d(x, 2)], 1)

def both():
    return Both()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with own networks, from which the commands run."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["rf", "theory", *args])


def record(*args: str) -> dict:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    return found


def test_what_stands_outside_all_layers_is_the_network_s(place: Path) -> None:
    said = "Without the global context of the network; with it: y 0 to 31, x 0 to 31."
    assert said in run("own.py:gate", "--size", "32").stdout
    lines = run("own.py:both", "--size", "32").stdout.splitlines()
    at = lines.index("  Misaligned: 1 addition or concatenation.")
    assert lines[at + 1] == "    the network (cat) along y, x:"
    assert [line.split("  ")[3] for line in lines[at + 2 :]] == ["conv", "the network"]


def test_text_of_a_clean_network() -> None:
    assert run("resnet18").stdout.splitlines() == [
        "torchvision:resnet18 / baseline to layer4, 7x7 units at 224x224 px, 3 channels: local",
        "  axis  size  stride  padding  centre of unit 3,3  its region",
        "  y, x  435   32      217      96                  -121 to 313",
        "  The same for every input size.",
        "  Aligned: no branches disagree.",
    ]


def test_text_names_who_disagrees_with_both_sides_numbers() -> None:
    lines = run("resnet18", "--variant", "baseline", "--variant", "1x1").stdout.splitlines()
    assert lines[5:7] == ["", lines[6]] and "/ 1x1 to layer4" in lines[6]
    assert lines[10:14] == [
        "  Misaligned: 3 additions or concatenations.",
        "    layer2.0 (add) along y, x:",
        "      layer2.0.bn2           size 67  stride 8  padding 33  centre of unit 0 0",
        "      layer2.0.downsample.1  size 47  stride 8  padding 21  centre of unit 0 2",
    ]


def test_regions_of_units_and_units_of_pixels() -> None:
    found = record("resnet18", "--to", "layer1", "--unit", "0,55", "--pixel", "0,111")
    # r 43, S 4, P 21
    assert found["y"]["region"] == [-21, 21] and found["x"]["region"] == [199, 241]
    assert (found["y"]["center"], found["x"]["center"]) == (0, 220)
    assert found["pixel"] == {"at": [0, 111], "units": {"y": [0, 5], "x": [23, 33]}}
    assert "Pixel 0,111 is in the receptive field of units y 0 to 5, x 23 to 33." in (
        run("resnet18", "--to", "layer1", "--pixel", "0,111").stdout
    )


def test_layers_from_a_layer() -> None:
    found = record("resnet18", "--from", "maxpool", "--to", "layer2", "--per-layer")
    rows = {row["layer"]: row for row in found["layers"]}
    assert next(iter(rows)) == "maxpool" and list(rows)[-1] == "layer2" and "conv1" not in rows
    sizes = [(rows[n]["y"]["size"], rows[n]["y"]["stride"]) for n in ("maxpool", "layer1")]
    assert sizes == [(1, 1), (9, 1)]
    assert (found["y"]["size"], found["y"]["stride"], found["source_size"]) == (23, 2, [56, 56])
    text = run("resnet18", "--from", "maxpool", "--to", "layer2", "--per-layer").stdout
    assert "  layer1.0.conv1         56x56  y, x  3     1       1        0\n" in text


def test_axes_are_apart(place: Path) -> None:
    text = run("own.py:down", "--size", "32x48", "--unit", "1,1").stdout
    assert "  y     5     2       1        3                   1 to 5\n" in text
    assert "  x     7     2       1        4                   1 to 7\n" in text
    assert run("package.nets:down", "--size", "32x48", "--unit", "1,1").stdout.endswith(
        text.partition("\n")[2]
    )


def test_gates_with_and_without_the_global_context() -> None:
    found = record("timm:efficientnet_b0")
    assert found["status"] == "local + global context" and found["y"]["size"] == 851
    assert len(found["context"]["layers"]) == 16
    assert found["context"]["region"] == {"y": [0, 223], "x": [0, 223]}
    assert "Without the global context of blocks.0.0.se and 15 more; with it: y 0 to 223" in (
        run("timm:efficientnet_b0").stdout
    )


def test_padding_that_depends_on_the_size_is_told_for_others() -> None:
    found = record("timm:tf_mobilenetv3_small_minimal_100")["depends_on_input_size"]
    assert [other["input_size"][0] for other in found["other_at"]] == [225, 226, 228, 232, 240]
    assert {other["y"]["padding"] for other in found["other_at"]} == {167, 166, 164, 160, 152}
    assert "  Depends on the input size; size, stride and padding\n" in (
        run("timm:tf_mobilenetv3_small_minimal_100").stdout
    )
    assert record("resnet18")["depends_on_input_size"] is None


def test_a_decoder_is_measured_at_another_size_that_it_accepts(place: Path) -> None:
    """Units of stride 1, of a network that halves its input twice: 65 and 66 px do not run."""
    found = record("own.py:UNet", "--size", "64")
    assert found["y"]["stride"] == 1
    assert found["depends_on_input_size"] == {"same_at": [[68, 68]], "other_at": []}
    assert "The same at 68x68 px." in run("own.py:UNet", "--size", "64").stdout


def test_an_output_beside_a_coarser_one_is_measured_where_both_run(place: Path) -> None:
    """output.1 halves its input once; with output.0 the network takes multiples of 4 alone."""
    found = record("own.py:Sides", "--size", "64", "--to", "output.1")
    assert found["depends_on_input_size"] == {"same_at": [[68, 68]], "other_at": []}


def test_resized_axes(place: Path) -> None:
    found = record("own.py:up", "--size", "64", "--unit", "10,11")
    # bilinear from 32 to 64: units 10 and 11 hear 4, 5 and 5, 6 of the convolution's
    assert found["y"]["region"] == [7, 11] and found["x"]["region"] == [9, 13]
    assert (found["y"]["size"], found["y"]["stride"], found["y"]["padding"]) == (5, 1, None)
    assert "Units take turns" in run("own.py:up", "--size", "64").stdout
    uneven = record("own.py:uneven", "--size", "33", "--unit", "9,9")
    # 17 to 19: at unit 9, and there alone, one tap has no weight
    assert (uneven["y"]["size"], uneven["y"]["stride"]) == ([3, 5], 34 / 19)
    assert uneven["y"]["region"] == [15, 17] and "irregular" not in uneven


def test_axes_without_a_stride(place: Path) -> None:
    rolled = record("own.py:rolled", "--size", "33", "--unit", "9,9")
    assert (rolled["y"]["size"], rolled["x"]["size"]) == (3, None)
    assert rolled["irregular"]["op"] == "aten.roll.default"
    assert rolled["irregular"]["region"] == {"y": [8, 10], "x": [5, 7]}
    text = run("own.py:rolled", "--size", "33", "--unit", "9,9").stdout
    assert "Unit 9,9 sees y 8 to 10, x 5 to 7 (by its paths, border included)." in text


BAD = [
    (["restnet50"], 2, "unknown model 'restnet50'. Did you mean: resnet50"),
    (["resnet18", "--to", "layer44"], 2, "unknown layer 'layer44'. Did you mean: layer4"),
    (["resnet18", "--from", "layer4", "--to", "layer1"], 2, "no path leads from 'layer4'"),
    (["resnet18", "--from", "fc"], 2, "layer 'fc' has no positions"),
    (["resnet18", "--unit", "9,9"], 2, "its map is 7x7, units are 0,0 to 6,6"),
    (["resnet18", "--unit", "1"], 2, "unit 1: layer 'layer4': its map is 7x7, so a unit is y,x"),
    (["resnet18", "--pixel", "1"], 2, "pixel 1: the source: it is 224x224, so a pixel is y,x"),
    (["resnet18", "--pixel", "0,224"], 2, "pixel 0,224 is outside the source: it is 224x224"),
    (["resnet18", "--pixel", "-1,0"], 2, "pixel -1,0 is outside the source"),
    (["own.py:rolled", "--pixel", "0,0"], 1, "no common field here: ask for one with --unit"),
    (["resnet18", "--size", "0"], 2, ": must be 1 or more"),
    (["resnet18", "--size", "-5"], 2, ": must be 1 or more"),
    (["resnet18", "--size", "big"], 2, "--size big: expected N, HxW or DxHxW"),
    (["vgg16", "--size", "20"], 2, "an input of 20x20 is too small"),
    (["vgg16", "--variant", "1x1"], 2, "variant '1x1' replaces no convolution in vgg16"),
    (["resnet18", "--variant", "nothing"], 2, "unknown variant 'nothing'"),
    (["own.py:nothing"], 2, "own.py has no function 'nothing'"),
    (["swin_t"], 1, "receptive-field arithmetic needs a convolutional network; this one is global"),
    (["none.yaml"], 2, "none.yaml: no such file"),
]


@pytest.mark.parametrize(("args", "code", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_one_line(place: Path, args: list[str], code: int, message: str) -> None:
    result = run(*args)
    assert result.exit_code == code
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert result.stdout == "" and "internal error" not in result.stderr


def test_lists_layers_and_plans(place: Path) -> None:
    assert "maxpool" in run("resnet18", "--list-layers").stdout
    assert "/ 3x3: 3 changed" in run("resnet18", "--variant", "3x3", "--dry-run").stdout
