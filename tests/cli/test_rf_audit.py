"""`rfbench rf audit` as a user types it: text, JSON, figures, exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main

OWN = """
import torch
from torch import nn

def down():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1))

def even():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2))

def skipping():
    return nn.Sequential(nn.Conv2d(3, 8, 1, stride=2), nn.Conv2d(8, 8, 3, padding=1))

def broken():
    raise ValueError("no such thing")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with own networks, from which the commands run."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["rf", "audit", *args])


def test_text_of_one_s_own_network(place: Path) -> None:
    result = run("own.py:down", "--size", "64", "--sizes", "60:70")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "own.py:down / baseline to 1 at 64x64 px, 3 channels: local",
        "  shift y, x  -0.50, -0.50 px",
        "  gridding    0.1576",
        "  read        100.0%",
        "  misaligned  0",
        "  coverage    100.0% of the input; the central unit's box 0.6%",
        "  after fixing only this layer    shift y, x    gridding  read    misaligned",
        "    1 (convolution 3x3 stride 2)  +0.00, +0.00  0.0000    100.0%  0",
        "    all of them                   +0.00, +0.00  0.0000    100.0%  0",
        "  variant  layers  shift y, x    gridding  read    misaligned  MACs   activations",
        "  3x3      1       +0.00, +0.00  0.0000    100.0%  0           +0.0%  +20.0%",
        "  variant '1x1' replaces no convolution in down (no strided 1x1 convolution).",
        '  best: rfbench.fix(model, "3x3")',
        "  free of shift as it is: 63x63 px, the closest size from 60x60 to 70x70 px",
    ]


def test_nothing_to_fix(place: Path) -> None:
    result = run("own.py:even", "--size", "64")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[6:] == [
        "  nothing to fix: centred, without grid or holes, all branches aligned"
    ]


def test_coverage_has_a_column_where_pixels_are_skipped(place: Path) -> None:
    text = run("pkg.models:skipping", "--size", "64").stdout
    assert "coverage    25.0% of the input" in text
    line = next(line for line in text.splitlines() if line.startswith("    0 (conv"))
    assert line.endswith("100.0%")


def test_fail_on_is_1_and_says_why(place: Path) -> None:
    good = run("own.py:even", "--size", "64", "--fail-on", "shift>0.4,gridding>0.05")
    assert (good.exit_code, good.stderr) == (0, "")
    bad = run("own.py:down", "own.py:even", "--size", "64", "--fail-on", "shift>0.4,gridding>0.05")
    assert bad.exit_code == 1
    assert bad.stderr.splitlines() == [
        "own.py:down / baseline: shift 0.5 > 0.4",
        "own.py:down / baseline: gridding 0.1576 > 0.05",
    ]
    assert "own.py:even / baseline" in bad.stdout


def test_one_network_s_failure_does_not_hide_the_others(place: Path) -> None:
    result = run("own.py:broken", "vit_b_16", "own.py:even", "--json")
    assert result.exit_code == 1
    assert "own.py, line 15: ValueError: no such thing" in result.stderr
    assert "vit_b_16: path counts need a convolutional network" in result.stderr
    assert [record["model"] for record in json.loads(result.stdout)] == ["own.py:even"]
    assert run("own.py:nothing", "own.py:even").exit_code == 2


def test_json_has_everything(place: Path) -> None:
    args = ("own.py:down", "--size", "64", "--sizes", "64:65", "--fail-on", "shift>0.4", "--json")
    (record,) = json.loads(run(*args).stdout)
    assert record["broken"] == ["shift 0.5 > 0.4"]
    assert record["sizes"] == {
        "rows": [
            {"size": [64, 64], "shift": [-0.5, -0.5]},
            {"size": [65, 65], "shift": [0, 0]},
        ],
        "symmetric": [65, 65],
    }
    assert record["fixes"][0]["refused"].startswith("variant '1x1' replaces no convolution")


def test_heights_and_widths(place: Path) -> None:
    text = run("own.py:down", "--size", "64x128", "--sizes", "63:64x127:130").stdout
    assert text.endswith(
        "free of shift as it is: 63x127 px, the closest size from 63x127 to 64x130 px\n"
    )


def test_sizes_that_the_network_refuses(place: Path) -> None:
    (place / "own.py").write_text(
        OWN + "\ndef head():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.Flatten(), nn.Linear(2048, 5))\n"
    )
    result = run("own.py:head", "--size", "64", "--to", "0", "--sizes", "63:66")
    assert "free of shift as it is: 63x63 px" in result.stdout  # this layer runs at any size
    lines = run("own.py:head", "--size", "64", "--sizes", "63:66").stdout.splitlines()
    # 63 px leave as many units as 64 do
    near = "  free of shift as it is: 63x63 px, the closest size from 63x63 to 66x66 px"
    assert lines[-2] == near
    assert lines[-1].startswith("  not judged: 2 sizes, 65x65 the first: the network refuses it: ")


def test_a_variant_is_audited_without_further_fixes(place: Path) -> None:
    text = run("resnet18", "--variant", "baseline", "--variant", "1x1+3x3").stdout
    plain, changed = text.split("\n\n")
    assert "shift y, x  -15.50, -15.50 px" in plain and "best:" in plain
    assert "shift y, x  -1.50, -1.50 px" in changed and "best:" not in changed


def test_writes_a_picture_a_network_and_a_record(place: Path) -> None:
    args = ("own.py:down", "own.py:even", "--size", "64", "--sizes", "60:70", "--output", "out")
    assert run(*args).exit_code == 0
    names = {p.name for p in (place / "out").iterdir()} - {".rfbench.json"}
    assert names == {
        "own.py-down-baseline.png", "own.py-down-baseline.pdf", "own.py-even-baseline.png",
        "own.py-even-baseline.pdf", "result.json",
    }  # fmt: skip
    record = json.loads((place / "out/result.json").read_text())
    assert record["kind"] == "rf-audit" and len(record["audits"]) == 2
    again = run(*args)
    assert again.exit_code == 2 and "out exists already" in again.stderr
    assert run(*args, "--overwrite").exit_code == 0


BAD = [
    (["restnet50"], 2, "unknown model 'restnet50'. Did you mean: resnet50"),
    (["resnet18", "--to", "layer44"], 2, "unknown layer 'layer44'. Did you mean: layer4"),
    (["resnet18", "--from", "layer4", "--to", "layer1"], 2, "no path leads from 'layer4'"),
    (["resnet18", "--size", "0"], 2, "Error: --size 0: must be 1 or more"),
    (["vgg16", "--size", "20"], 2, "an input of 20x20 is too small"),
    (["vgg16", "--variant", "1x1"], 2, "variant '1x1' replaces no convolution in vgg16"),
    (["resnet18", "--variant", "nothing"], 2, "unknown variant 'nothing'"),
    (["resnet18", "--sizes", "10"], 2, "--sizes 10: expected A:B"),
    (["resnet18", "--sizes", "a:b"], 2, "--sizes a:b: expected A:B"),
    (["resnet18", "--sizes", "9:3"], 2, "--sizes 9:3: expected A:B with 0 < A <= B"),
    (["resnet18", "--sizes", "0:3"], 2, "--sizes 0:3: expected A:B with 0 < A <= B"),
    (["resnet18", "--sizes", "4:5x9"], 2, "--sizes 4:5x9: expected A:B"),
    (["resnet18", "--sizes", "1:2x1:2x1:2"], 2, "sizes such as 1x1x1 have 3 axes, the input has 2"),
    (["resnet18", "--sizes", "1:999x1:999"], 2, "expected A:B, or A:BxC:D"),
    (["resnet18", "--fail-on", "shift"], 2, "--fail-on 'shift': expected e.g. shift>1"),
    (["resnet18", "--output", "own.py"], 2, "own.py is a file"),
    (["own.py:broken"], 1, "own.py, line 15: ValueError: no such thing"),
    (["swin_t"], 1, "path counts need a convolutional network; this one is global"),
]


@pytest.mark.parametrize(("args", "code", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_one_line(place: Path, args: list[str], code: int, message: str) -> None:
    result = run(*args)
    assert result.exit_code == code
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert result.stdout == "" and "internal error" not in result.stderr


def test_lists_layers_and_plans(place: Path) -> None:
    assert "maxpool" in run("resnet18", "--list-layers").stdout
    assert "/ baseline: 0 changed" in run("resnet18", "--dry-run").stdout
