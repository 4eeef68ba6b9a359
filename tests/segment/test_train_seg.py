"""`rfbench train-seg` as users meet it: files, records, dry runs, errors of one line."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from rfbench.cli import main
from rfbench.config import load
from rfbench.schemas.seg import SegConfig
from tests.data.segmentation import trees

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "seg").glob("*.yaml"))
SMALL = [
    *("-o", "data.options={train_scenes: 64, val_scenes: 12}"),
    *("-o", "schedule.epochs=1", "-o", "device=cpu"),
]


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["train-seg", *map(str, args)])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_opens_with_its_command(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ") and f"train-seg seg/{path.stem}" in first
    load(SegConfig, str(path))


def test_a_run_and_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    args = ("--output", folder, *SMALL, "-o", "variant=1x1+3x3")
    result = run(*args, "--visualize", 2)
    assert result.exit_code == 0, result.stderr
    assert "No configuration given: taking seg/digits, the embedded demo" in result.stderr
    assert "resnet14 / 1x1+3x3 / fpn on digits, 1 epoch, seed 0" in result.stdout
    record = json.loads((folder / "result.json").read_text())
    assert all((folder / name).exists() for name in record["files"])
    assert record["kind"] == "seg" and len(record["replaced"]) == 6
    assert [name for name in record["files"] if name.startswith("predictions/")] == [
        "predictions/001-0.png",
        "predictions/002-1.png",
    ]
    assert record["metrics"]["images"] == 12 and record["network"]["macs"] > 0
    assert record["network"]["map"]["offset"] == record["network"]["figures"]["shift"]
    again = load(SegConfig, str(folder / "config.yaml"))
    assert again.model_dump(mode="json") == record["config"]
    resumed = run(*args, "--visualize", 2, "--resume", "--json")
    assert resumed.exit_code == 0 and json.loads(resumed.stdout) == record
    found = json.loads(run(*args, "--eval-only", folder / "last.pth", "--json").stdout)
    for name in ("mIoU", "boundary_mIoU", "jitter", "loss"):
        assert found[name] == pytest.approx(record["metrics"][name])
    other = run(*SMALL, "-o", "variant=1x1", "--eval-only", folder / "last.pth")
    assert other.exit_code == 1 and "The weights might load but mean something else" in other.stderr
    shown = CliRunner().invoke(main, ["compare", str(folder)])
    assert "Segmentation: resnet14 on digits" in shown.stdout, shown.output
    assert "foreground_mIoU" in shown.stdout and "MACs without head" in shown.stdout
    page = CliRunner().invoke(main, ["compare", str(folder), "--format", "html"])
    assert page.exit_code == 0 and "Segmentation: resnet14" in page.stdout
    assert "<h4>1x1+3x3</h4>" in page.stdout  # its receptive field


def test_a_folder_of_ones_own_with_classes_in_another_order(tmp_path: Path) -> None:
    """Labels follow the checkpoint, whose outputs stand in its own order."""
    root = trees.folder(tmp_path / "data", count=4)
    own = ("-o", f"data.root={root}", "-o", "data.crop=[16,16]", "-o", "batch_size=4")
    args = ("seg/folder", *own, "-o", "schedule.epochs=2", "-o", "device=cpu")
    options = ("-o", "data.options={background: ground}")
    result = run(*args, *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "run/result.json").read_text())
    assert record["classes"] == 3
    changed = ("-o", "data.options={classes: [ground, house, tree], background: ground}")
    for i in range(4):  # the same classes by other indices
        for part in ("train", "val"):
            values = trees.halves(0, 2 - i % 2)
            trees.mask(root / "masks" / part / "in" / f"{i}.png", values)
    found = run(*args, *changed, "--eval-only", tmp_path / "run/last.pth", "--json")
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["iou"] == pytest.approx(record["metrics"]["iou"])
    assert "in another order" in found.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-o", "optim.nestrov=true"], 2, "did you mean 'optim.nesterov'"),
        (["-o", "head=null"], 2, "'head'"),
        (["-o", "data.name=vocs"], 2, "unknown data set 'vocs'"),
        (["-o", "data={name: voc}"], 1, "no Pascal VOC at datasets/voc"),
        (["-o", "optim={name: sgd}"], 2, "optim.lr: segmentation has no learning rate"),
        (["-o", "head=own", "-o", "weights=x.pth"], 2, "head: own has none"),
        (["-o", "loss.class_weights={ten: 2}"], 2, "no class 'ten'"),
        (["-o", "head=own"], 1, "not a map of scores"),
        (["-o", "model_args={output_stride: 3}"], 2, "not 3"),
        (["-o", "weights=nothing.pth"], 2, "no such file: nothing.pth"),
        (["--eval-only", "nothing.pth"], 2, "no such file: nothing.pth"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    size = () if "data={name: voc}" in args else SMALL
    result = run("seg/digits", "--output", "run", *size, *args)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code == code, result.stderr
    assert len(errors) == 1 and message in errors[0], errors
    assert result.stdout == ""
    assert not (tmp_path / "run" / "last.pth").exists()


def test_a_mask_that_does_not_fit_is_named_before_training(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data")
    bad = trees.mask(root / "masks/val/in/2.png", trees.halves(0, 9))
    args = ("seg/folder", "-o", f"data.root={root}", "-o", "batch_size=2", "-o", "device=cpu")
    for more in ((), ("--dry-run",)):
        result = run(*args, "--output", tmp_path / "run", *more)
        assert result.exit_code == 1 and not (tmp_path / "run" / "last.pth").exists()
        assert result.stderr.strip().splitlines()[-1].startswith(f"Error: {bad}: holds values")


def test_the_network_of_a_run(tmp_path: Path) -> None:
    from rfbench.segment.trained import segmenter

    folder = tmp_path / "run"
    assert run("--output", folder, *SMALL).exit_code == 0
    module = segmenter(str(folder), "last.pth").eval()
    assert module(torch.zeros(1, 3, 48, 48)).shape == (1, 11, 48, 48)
