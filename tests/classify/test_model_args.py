"""A network with arguments in a training: recorded, and compared wherever weights are loaded."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from rfbench.cli import main

NET = """
from torch import nn

def make(act="relu", width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 4, 1),
        nn.ReLU() if act == "relu" else nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )
"""
SMALL = [
    *("-o", "data.train_scenes=24", "-o", "data.val_scenes=10", "-o", "data.workers=0"),
    *("-o", "schedule.epochs=1", "-o", "schedule.warmup_epochs=0", "-o", "schedule.milestones=[]"),
    *("-o", "batch_size=12", "-o", "device=cpu", "-o", "channels_last=false"),
]
SILU = ["-o", "model_args.act=silu"]


def run(folder: Path, *args: str) -> Result:
    net = ["-o", f"model={folder / 'net.py'}:make"]
    return CliRunner().invoke(main, ["train-cls", *net, *SMALL, *map(str, args)])


def test_arguments_are_recorded_and_compared(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    done = run(tmp_path, *SILU, "--output", str(tmp_path / "run"))
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["model"].endswith("net.py:make(act='silu')")
    assert record["config"]["model_args"] == {"act": "silu"}

    other = run(tmp_path, "--output", str(tmp_path / "run"), "--resume")
    assert other.exit_code == 2 and "model_args.act = silu; now it is None" in other.stderr
    same = run(tmp_path, *SILU, "--output", str(tmp_path / "run"), "--resume")
    assert same.exit_code == 0, same.output

    best = str(tmp_path / "run" / "best.pth")
    for use in (["--eval-only", best], ["-o", f"init.weights={best}"]):
        wrong = run(tmp_path, *use, "--output", str(tmp_path / "other"))
        assert wrong.exit_code in (1, 2), wrong.output
        assert "make(act='silu')" in wrong.stderr and "would load but mean" in wrong.stderr
        right = run(tmp_path, *SILU, *use, "--output", str(tmp_path / use[0].strip("-")))
        assert right.exit_code == 0, right.output

    args = ["rf", "theory", f"{tmp_path / 'net.py'}:make(act='silu')", "--size", "64", "--to", "0"]
    found = CliRunner().invoke(main, [*args, "-o", f"weights={best}", "--json"])
    assert found.exit_code == 0, found.output
    compared = CliRunner().invoke(main, ["compare", str(tmp_path / "run")])
    assert compared.exit_code == 0 and "make(act='silu')" in compared.output


def test_an_unknown_argument_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    wrong = run(tmp_path, "-o", "model_args.widht=8", "--dry-run")
    assert wrong.exit_code == 2 and wrong.stderr.strip().endswith("Did you mean: width?")
