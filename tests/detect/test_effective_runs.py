"""`rf effective` of the folder of a training: its own weights, variant and layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rfbench.cli import main
from rfbench.detect import config as configs
from rfbench.detect.setup import detector
from rfbench.models import variants
from rfbench.runs import logs
from tests.detect import runs

NET = """
from torch import nn

def make(width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1),
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


def noise(size: int, count: int) -> torch.Tensor:
    """The images of --images noise, seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randn(3, size, size, generator=generator) for _ in range(count)])


def magnitude(images: torch.Tensor, unit: torch.Tensor) -> np.ndarray:
    """Mean |gradient| of the sum over channels of |unit|."""
    (gradient,) = torch.autograd.grad(unit.abs().sum(), images)
    return gradient.abs().sum((0, 1)).numpy() / len(images)


def effective(*args: object) -> str:
    done = CliRunner().invoke(main, ["rf", "effective", *map(str, args)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_of_a_classifier(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    net = ["-o", f"model={tmp_path / 'net.py'}:make", "-o", "model_args.width=5"]
    variant = ["-o", "variant=blur:3x3:layers=3"]
    args = ["train-cls", *net, *variant, *SMALL, "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output

    out = tmp_path / "out"
    shown = effective(tmp_path / "run", "--size", 64, "--count", 2, "--to", "3", "--output", out)
    assert "blur:3x3:layers=3" in shown and "make(width=5)" in shown
    (field,) = json.loads((out / "result.json").read_text())["fields"]
    assert field["variant"] == "blur:3x3:layers=3" and field["model"].endswith("make(width=5)")

    scope: dict = {}
    exec(NET, scope)
    own: nn.Sequential = scope["make"](5)
    variants.apply(own, "blur:3x3:layers=3")
    own.load_state_dict(torch.load(tmp_path / "run" / "best.pth")["state_dict"])
    images = noise(64, 2).requires_grad_()
    seen = own.eval()[:4](images)
    y, x = field["unit"]
    expected = magnitude(images, seen[:, :, y, x])
    (key,) = [k for k in np.load(out / "effective.npz").files if k.endswith("magnitude")]
    np.testing.assert_allclose(np.load(out / "effective.npz")[key], expected, rtol=1e-4)

    wrong = CliRunner().invoke(main, ["rf", "effective", str(tmp_path / "run"), "--variant", "3x3"])
    assert wrong.exit_code == 2 and "has its own variant and arguments" in wrong.stderr


def test_of_a_detector(tmp_path: Path) -> None:
    (tmp_path / "det.yaml").write_text(json.dumps(runs.config(SOLVER__MAX_ITER=2)))
    logs.to_stderr()
    args = ["train-det", str(tmp_path / "det.yaml"), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(main, [*args, "-o", "variant=3x3"])
    assert done.exit_code == 0, done.output

    out = tmp_path / "out"
    layers = ["--to", "levels.p3", "--to", "levels.p4"]
    shown = effective(tmp_path / "run", "--size", 64, "--count", 2, *layers, "--output", out)
    assert "levels.p3" in shown and "3x3" in shown
    fields = json.loads((out / "result.json").read_text())["fields"]
    assert [f["layer"] for f in fields] == ["levels.p3", "levels.p4"]
    assert all(" on rfbench.classify.nets:resnet14" in f["model"] for f in fields)

    config = runs.parsed(runs.config(SOLVER__MAX_ITER=2, variant="3x3"))
    model = detector(configs.resolve(config, 10, tmp_path)).eval()
    best = tmp_path / "run" / "best.pth"
    source = best if best.exists() else tmp_path / "run" / "last.pth"
    model.load_state_dict(torch.load(source)["model"])
    for field in fields:
        images = noise(64, 2).requires_grad_()
        level = model.backbone(images)[field["layer"].removeprefix("levels.")]
        y, x = field["unit"]
        expected = magnitude(images, level[:, :, y, x])
        held = np.load(out / "effective.npz")
        (key,) = [k for k in held.files if k.endswith(f"{field['layer']} magnitude")]
        np.testing.assert_allclose(held[key], expected, rtol=1e-3, atol=1e-7 * expected.max())

    audit = ["rf", "audit", str(tmp_path / "run"), "--size", "64"]
    asked = CliRunner().invoke(main, audit)
    assert asked.exit_code == 2 and "choose one with --to (" in asked.stderr
    done = CliRunner().invoke(main, [*audit, "--to", "levels.p3", "--json"])
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)
    assert record["to"] == "levels.p3" and record["variant"] == "3x3"
    assert record["model"] == fields[0]["model"] and record["status"] == "local"


def test_a_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    wrong = CliRunner().invoke(main, ["rf", "effective", str(tmp_path)])
    assert wrong.exit_code == 2 and "not the folder of a finished training" in wrong.stderr


@pytest.mark.parametrize("name", ["last-7.pth"])
def test_a_checkpoint_that_is_not_there(name: str) -> None:
    run = Path(__file__).parents[2] / "docs" / "runs" / "classification" / "baseline-s0"
    wrong = CliRunner().invoke(main, ["rf", "effective", str(run), "--weights", name])
    assert wrong.exit_code == 2 and f"no {name} of a training" in wrong.stderr
