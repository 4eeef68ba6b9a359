"""`rfbench visualize-rf` as a user types it: files, figures, and one line for every bad input."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from torch import nn

from rfbench.cli import main
from rfbench.config import load
from rfbench.rf.questions.maps import maps
from rfbench.schemas.rf import RfConfig

OWN = """
import torch
from torch import nn

def down():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1))

def deep():
    return nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1),
                         *[nn.Conv2d(1, 1, 5, padding=2) for _ in range(14)])

class Renorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return torch.renorm(self.first(x), 2, 2, 1.0)

def broken():
    raise ValueError("no such thing")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with own networks, from which the commands run."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["visualize-rf", *args])


def test_writes_figure_maps_configuration_and_record(place: Path) -> None:
    result = run("resnet18", "--from", "maxpool", "--output", "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert {p.name for p in (place / "out").iterdir()} - {".rfbench.json"} == {
        "maps.png", "maps.pdf", "maps.npz", "config.yaml", "result.json",
    }  # fmt: skip
    record = json.loads(result.stdout)
    assert record == json.loads((place / "out/result.json").read_text())
    panels = {p["variant"]: p for p in record["panels"]}
    assert list(panels) == ["baseline", "1x1", "3x3", "1x1+3x3"]
    assert panels["baseline"]["metrics"]["shift"] == pytest.approx([-3.5, -3.5])
    assert panels["1x1+3x3"]["metrics"]["shift"] == pytest.approx([0, 0], abs=1e-9)
    assert panels["1x1"]["replaced"] == [f"layer{i}.0.downsample.0" for i in (2, 3, 4)]
    assert not panels["baseline"]["metrics"]["cut"]
    assert panels["baseline"]["at_own_size"]["input_size"] == [224, 224]
    assert panels["baseline"]["metrics"]["convention"] == {
        "channels": "single", "pool": "count", "gates": "ignore",
    }  # fmt: skip
    maps = np.load(place / "out/maps.npz")
    counts = maps["torchvision:resnet18 baseline"]
    assert (counts > 0).sum() == 107**2


def test_the_record_s_configuration_runs_the_same_again(place: Path) -> None:
    assert run("own.py:down", "--size", "40", "--output", "a").exit_code == 0
    assert run("a/config.yaml", "--output", "b").exit_code == 0
    first, second = (json.loads((place / n / "result.json").read_text()) for n in "ab")
    assert first["panels"] == second["panels"]
    assert (place / "a/maps.png").read_bytes() == (place / "b/maps.png").read_bytes()


def test_both_engines_draw_the_same_map(place: Path) -> None:
    for engine in ("graph", "autograd"):
        args = ("resnet18", "--variant", "1x1", "--unit", "3,3", "--engine", engine)
        assert run(*args, "--output", engine).exit_code == 0
    graph, autograd = (
        np.load(place / e / "maps.npz")["torchvision:resnet18 1x1"] for e in ("graph", "autograd")
    )
    assert ((graph > 0) == (autograd > 0)).all()
    np.testing.assert_allclose(graph, autograd, rtol=1e-12)


def test_exact_counts_go_beyond_floats(place: Path) -> None:
    result = run("own.py:deep", "--variant", "baseline", "--size", "40", "--exact", "--output", "x")
    assert result.exit_code == 0, result.stderr
    counts = np.load(place / "x/maps.npz")["own.py:deep baseline"]
    most = max(int(c) for c in counts.flat)
    assert most > 2**53
    assert sum(int(c) for c in counts.flat) == 9 * 25**14  # every path, on an uncut input


def test_own_size_is_a_second_line_of_the_table(place: Path) -> None:
    lines = run("own.py:deep", "--variant", "baseline", "--size", "33").stdout.splitlines()
    assert lines[0].split()[:3] == ["model", "variant", "input"]
    assert "33x33 (cut)" in lines[2] and "(cut)" not in lines[1]


def test_lists_layers(place: Path) -> None:
    lines = run("resnet18", "--list-layers").stdout.splitlines()
    assert "maxpool                56x56  stride 4".split() in [line.split() for line in lines]
    assert not any(line.startswith("fc") for line in lines)
    assert list(place.iterdir()) == [place / "own.py"]


def test_dry_run_tells_and_writes_nothing(place: Path) -> None:
    result = run("resnet18", "--dry-run")
    assert "torchvision:resnet18 / 3x3: 3 changed\n  layer2.0.conv1\n" in result.stdout
    assert list(place.iterdir()) == [place / "own.py"]


def test_variants_that_change_nothing_are_left_out_by_default(place: Path) -> None:
    result = run("mobilenet_v2", "--dry-run")
    assert "left out 1x1, 1x1+3x3" in result.stderr
    assert "/ 3x3: 5 changed" in result.stdout


def test_shift_by_layer(place: Path) -> None:
    result = run("resnet18", "--by-layer", "--variant", "baseline", "--output", "out", "--json")
    rows = dict(json.loads(result.stdout)["shift_by_layer"]["baseline"])
    found = [rows[name] for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")]
    assert found == pytest.approx([-0.5, -1.5, -1.5, -3.5, -7.5, -15.5])
    assert (place / "out/shift_by_layer.png").exists()


def test_weights_must_fit_and_name_their_variant(place: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    held = {"format": "rfbench-checkpoint/1", "model": "torchvision:resnet18", "variant": "3x3"}
    torch.save({**held, "classes": ["a"], "state_dict": state}, "held.pth")
    assert "/ 3x3:" in run("resnet18", "--weights", "held.pth", "--dry-run").stdout
    other = run("resnet18", "--weights", "held.pth", "--variant", "1x1")
    assert other.exit_code == 1
    assert "holds resnet18 / 3x3; this run is resnet18 / 1x1" in other.stderr


BAD = [
    (["restnet50"], 2, "unknown model 'restnet50'. Did you mean: resnet50"),
    (["resnet18", "--to", "layer44"], 2, "unknown layer 'layer44'. Did you mean: layer4"),
    (["resnet18", "--from", "layer4", "--to", "layer1"], 2, "no path leads from 'layer4'"),
    (["resnet18", "--from", "fc"], 2, "layer 'fc' has no positions"),
    (["resnet18", "--unit", "9,9"], 2, "its map is 7x7, units are 0,0 to 6,6"),
    (["resnet18", "--unit", "1"], 2, "unit 1: layer 'layer4': its map is 7x7, so a unit is y,x"),
    (["resnet18", "--size", "0"], 2, ": must be 1 or more"),
    (["resnet18", "--size", "-5"], 2, ": must be 1 or more"),
    (["resnet18", "--size", "big"], 2, "--size big: expected N, HxW or DxHxW"),
    (["vgg16", "--size", "20"], 2, "an input of 20x20 is too small"),
    (["vgg16", "--variant", "1x1"], 2, "variant '1x1' replaces no convolution in vgg16"),
    (["inception_v3", "--variant", "3x3"], 2, "cannot keep the output size"),
    (["resnet18", "--variant", "nothing"], 2, "unknown variant 'nothing'"),
    (["own.py:Renorm"], 1, "this one is unsupported: aten.renorm.default"),
    (["own.py:broken"], 1, "own.py, line 21: ValueError: no such thing"),
    (["own.py:nothing"], 2, "own.py has no function 'nothing'"),
    (["vit_b_16"], 1, "aten.bmm.default in layer encoder.layers.encoder_layer_0"),
    (["swin_t"], 1, "path counts need a convolutional network; this one is global"),
    (["broken.yaml"], 2, "broken.yaml: not valid YAML"),
    (["keys.yaml"], 2, "unknown key 'variantz'; did you mean 'variants'?"),
    (["keys.yaml"], 2, "'size': must be a valid integer"),
    (["none.yaml"], 2, "none.yaml: no such file"),
    (["resnet18", "-o", "pool=none"], 2, "'pool': must be 'count' or 'mean'"),
    (["resnet18", "--output", "full"], 2, "full exists already"),
    (["resnet18", "--output", "full/file"], 2, "full/file is a file"),
    (["resnet18", "--output", "/proc/rfbench"], 2, "cannot write to /proc/rfbench"),
    (["resnet18", "--weights", "other.pth"], 1, "other.pth does not fit torchvision:resnet18"),
    (["resnet18", "--weights", "text.pth"], 1, "text.pth is not a checkpoint"),
    (["resnet18", "--weights", "evil.pth"], 1, "nothing in it was run"),
    (["resnet18", "--weights", "none.pth"], 2, "no such file: none.pth"),
    (["resnet18", "--exact", "--engine", "autograd"], 2, "leave out --engine autograd"),
]


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(("args", "code", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_one_line(place: Path, args: list[str], code: int, message: str) -> None:
    (place / "broken.yaml").write_text("model: [resnet18")
    (place / "keys.yaml").write_text("model: resnet18\nvariantz: [1x1]\nsize: abc\n")
    (place / "full").mkdir()
    (place / "full/file").touch()
    torch.save(nn.Linear(2, 2).state_dict(), "other.pth")
    (place / "text.pth").write_text("not a checkpoint")
    (place / "evil.pth").write_bytes(pickle.dumps({"weight": Evil()}))
    before = sorted(place.rglob("*"))
    result = run(*args)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output and "internal error" not in result.output
    assert sorted(place.rglob("*")) == before  # nothing executed, nothing left behind


def test_a_failed_run_leaves_the_earlier_result(place: Path) -> None:
    assert run("own.py:down", "--output", "out").exit_code == 0
    before = (place / "out/result.json").read_text()
    assert run("own.py:down", "--to", "9", "--output", "out", "--overwrite").exit_code == 2
    assert (place / "out/result.json").read_text() == before


def test_what_the_border_adds_to_a_shift_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 3, 8, 8), "
    Path("own.py").write_text(code + "nn.Conv2d(3, 3, 7, 1, 3), nn.Conv2d(3, 3, 5, 1, 2))\n")
    args = ["own.py:net", "--size", "64", "--variant", "baseline"]
    shown = CliRunner().invoke(main, ["visualize-rf", *args, "--output", "out"])
    whole, cut = (line.split("  ") for line in shown.stdout.splitlines()[1:3])
    (panel,) = json.loads(Path("out/result.json").read_text())["panels"]
    own = panel["at_own_size"]
    # symmetric: whatever shift there is, the border made
    assert panel["metrics"]["shift"] == pytest.approx([0, 0], abs=1e-9)
    assert own["cut"] and own["shift"][0] > 0.5
    assert own["shift_by_border"] == pytest.approx(own["shift"])
    assert "shift_by_border" not in panel["metrics"]
    text = f"{own['shift'][0]:+.2f}"
    assert any(f"{text}, {text} (border {text}, {text})" in cell for cell in cut)
    assert not any("border" in cell for cell in whole)
    one = CliRunner().invoke(main, ["visualize-rf", *args, "--unit", "0,0", "--output", "one"])
    (panel,) = json.loads(Path("one/result.json").read_text())["panels"]
    assert panel["metrics"]["shift_by_border"] == pytest.approx(panel["metrics"]["shift"])
    assert "(border" in one.stdout
    # and an audit judges what the network does
    audit = ["rf", "audit", "own.py:net", "--size", "64", "--fail-on", "shift>0.1"]
    judged = CliRunner().invoke(main, audit)
    assert judged.exit_code == 0 and f"which adds {text}, {text})" in judged.stdout


def test_the_folder_says_what_sets_a_map_apart() -> None:
    given = {"from": "a.b", "unit": (1, 2), "inputs": [(3, 8, 8), (1, 16)], "by_layer": True}
    config = RfConfig.model_validate({"model": "dir/own.py:net", "variants": ["blur:3x3"], **given})
    folder = maps.choose_folder(config, None, False)
    name = "rf-own.py-net-blur-3x3-from-a.b-unit-1x2-inputs-3x8x8-1x16-by_layer"
    assert folder == Path("results") / name
    plain = RfConfig.model_validate({"model": "resnet18", "title": "T", "scale": "linear"})
    assert maps.choose_folder(plain, None, False) == Path("results/rf-resnet18")


@pytest.mark.parametrize(
    ("source", "options", "name"),
    [
        ("rf/fig5_modules", [], "rf-fig5_modules"),
        ("rf/fig5_modules", ["size=16"], "rf-rfbench.models.paper_modules-conv1x1-"),
        ("rf-resnet18/config.yaml", [], "rf-resnet18"),
    ],
)
def test_a_folder_is_named_after_a_configuration_that_is_taken_as_it_is(
    source: str, options: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after config.yaml, which is of any run."""
    monkeypatch.chdir(tmp_path)
    Path("rf-resnet18").mkdir()
    Path("rf-resnet18/config.yaml").write_text("model: resnet18\n")
    config = load(RfConfig, source, options)
    assert maps.choose_folder(config, None, False, source).name.startswith(name)
