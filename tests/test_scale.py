"""The formulas of docs/scale.md are what the code does: shares, memory, checkpoints."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torchvision import models

from rfbench.classify.images import Images
from rfbench.config import load
from rfbench.runs import checkpoint
from rfbench.runs.processes import Processes
from rfbench.schemas.cls import ClsConfig
from rfbench.training.split import split

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
HEAD, END = "<!-- scale -->\n", "<!-- end -->"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "scripts" / "scale.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scale", module)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_table(scale: ModuleType, overwrite: bool) -> None:
    text = PAGE.read_text()
    shown, table = text.split(HEAD)[1].split(END)[0], scale.tables(0.00165) + "\n"
    if overwrite and shown != table:
        PAGE.write_text(text.replace(shown, table))
        return
    assert shown == table


@pytest.mark.parametrize("gpus", [1, 8, 32, 64])
def test_the_passes_are_those_of_a_run(scale: ModuleType, gpus: int) -> None:
    made = split(4096, gpus, 256)
    assert scale.passes(scale.Task(), gpus) == (made.accumulation, made.micro)


@pytest.mark.parametrize("workers", [1, 5, 12])
def test_the_shared_memory_is_what_a_run_asks_for(scale: ModuleType, workers: int) -> None:
    keys = ["data.name=digits", "data.train_scenes=640", "data.val_scenes=200", "batch_size=64"]
    keys += [f"data.workers={workers}", "max_batch_per_gpu=16", "data.image_size=32"]
    config = load(ClsConfig, None, [*keys, "model=resnet18"])
    group = Processes(torch.device("cpu"), 0, 4)
    data = Images(config, group)
    task = scale.Task(images=640, val=200, size=32, batch=64, largest=16)
    assert scale.shared_memory(task, 4, workers) == data.memory(split(64, 4, 16))


def test_a_checkpoint_has_the_size_that_is_said(scale: ModuleType, tmp_path: Path) -> None:
    model = models.resnet18()
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path / "last.pth", content)
    said = scale.checkpoint(scale.Task(parameters=parameters))
    assert (tmp_path / "last.pth").stat().st_size == pytest.approx(said, rel=0.01)
    assert scale.Task().parameters == sum(p.numel() for p in meta(models.resnet50).parameters())


def meta(build: type[nn.Module] | object) -> nn.Module:
    with torch.device("meta"):
        return build()  # type: ignore[operator]


def test_by_hand(scale: ModuleType) -> None:
    task = scale.Task(images=1000, val=30, batch=100, parameters=1000)
    assert scale.steps(task) == 10
    assert scale.cores(2500, 0.00165) == 6  # 4.125 cores load
    assert scale.exchanged(task, 4) == 6000  # of 4,000 bytes 3/4, twice
    assert scale.epoch(task, 2, 50) == pytest.approx(10.1)
    costs = scale.Costs(reading=0.1, training=1, evaluating=0.5, update=2, saving=7, exchange=3)
    # 1,030 images are read, 1,000 trained on, 30 evaluated; two processes update ten times
    assert scale.of_epoch(task, 2, costs) == pytest.approx(103 + 1000 + 15 + 100 + 7)


@pytest.mark.slow
def test_the_arithmetic_is_within_15_percent_of_runs() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "scale.py"), "--measure"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    for processes in (1, 2):
        assert found[f"{processes} processes"]["ratio"] == pytest.approx(1, abs=0.15)
