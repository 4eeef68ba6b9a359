"""A run that is killed and resumed ends with the same bits."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.runs import checkpoint
from tests.classify import runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert runs.finish(runs.start(runs.config(), folder)) == [0]
    return folder


def test_killed_and_resumed_with_other_workers(whole: Path, tmp_path: Path) -> None:
    landed = runs.kill_and_resume(runs.config(), tmp_path / "run", kills=4, in_writes=1)
    print("killed at (step, checkpoint, writing):", landed)
    assert landed[0][2]
    runs.assert_equal(whole, tmp_path / "run")


@pytest.mark.slow
def test_twenty_kills(whole: Path, tmp_path: Path) -> None:
    values = runs.config(checkpoint={"every": 2})
    landed = runs.kill_and_resume(values, tmp_path / "run", kills=20, in_writes=3, seed=1)
    for step, held, writing in landed:
        print(f"killed at step {step}, checkpoint of {held}{', while writing' * writing}")
    assert sum(held > 0 for _, held, _ in landed) >= 15
    assert sum(writing for *_, writing in landed) >= 2
    runs.assert_equal(whole, tmp_path / "run")


@pytest.mark.slow
def test_three_processes(tmp_path: Path) -> None:
    # two cannot show that DDP rebuilds its buckets: a sum of two has one order
    values = runs.config(model="rfbench.classify.nets:resnet14", schedule={"epochs": 1})
    assert runs.finish(runs.start(values, tmp_path / "whole", world=3)) == [0] * 3
    landed = runs.kill_and_resume(values, tmp_path / "run", kills=3, in_writes=0, world=3)
    print("killed at (step, checkpoint, writing):", landed)
    runs.assert_equal(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 0), (signal.SIGINT, 130)]
)
def test_a_signal_saves_where_it_is(
    whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    values = runs.config(checkpoint={"every": 0})
    started = runs.start(values, folder)
    while runs.steps(folder) < 7:
        time.sleep(0.001)
    os.kill(started[0].pid, number)
    assert runs.finish(started) == [code]
    said = Path(f"{folder}.stderr0").read_text()
    held = checkpoint.load_last(folder)
    assert held is not None and held["step"] >= 7
    assert f"stopped at step {held['step']} and saved" in said
    if number == signal.SIGTERM:
        assert runs.finish(runs.start(values, folder, resume=True)) == [0]
        runs.assert_equal(whole, folder)


def test_two_processes_stop_at_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = runs.start(runs.config(), folder, world=2)
    while runs.steps(folder) < 3:
        time.sleep(0.001)
    os.kill(started[1].pid, signal.SIGTERM)  # only one of them hears of it
    assert runs.finish(started) == [0, 0]
    held = checkpoint.load_last(folder)
    assert held is not None and held["step"] < 40


def test_another_configuration_is_refused(whole: Path) -> None:
    values = runs.config(optim={"lr": 0.1}, batch_size=24)
    assert runs.finish(runs.start(values, whole, resume=True)) == [2]
    said = Path(f"{whole}.stderr0").read_text()
    assert "optim.lr = 0.05; now it is 0.1" in said
    assert "batch_size = 12; now it is 24" in said


def edit(path: Path, change: Any) -> None:
    """Change what a checkpoint holds."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_an_old_checkpoint_resumes(whole: Path, tmp_path: Path) -> None:
    """One from before best_metric, patience and what counts them."""
    folder = tmp_path / "run"
    values = runs.config(checkpoint={"every": 5})
    started = runs.start(values, folder)
    assert runs.kill_saved(started, folder, 30)

    def age(content: dict[str, Any]) -> None:
        for key in ("evaluated", "waited", "digest"):
            del content[key]
        for key in ("best_metric", "patience", "consistency_images"):
            del content["config"][key]

    edit(folder / "last.pth", age)
    assert runs.finish(runs.start(values, folder, resume=True)) == [0]
    runs.assert_equal(whole, folder)


def test_what_the_advice_names_may_change(tmp_path: Path) -> None:
    """After "out of memory" and "too many unreadable", --resume takes what was advised."""
    folder = tmp_path / "run"
    started = runs.start(runs.config(), folder)
    assert runs.kill_saved(started, folder, 12)
    values = runs.config(max_batch_per_gpu=6, data={"max_bad_share": 0.5})
    assert runs.finish(runs.start(values, folder, resume=True)) == [0]
    said = Path(f"{folder}.stderr0").read_text()
    assert "a BatchNorm sees 6 images instead of 12; the result will be close, but not" in said
    record = json.loads((folder / "result.json").read_text())
    assert (record["batch"]["accumulation"], record["batch"]["per_batchnorm"]) == (2, 6)
    assert record["steps"] == 40


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = runs.start(runs.config(), folder)
    while not runs.steps(folder):
        time.sleep(0.001)
    second = runs.finish(runs.start(runs.config(), folder, resume=True))
    assert second == [1]
    assert "another run is writing to" in Path(f"{folder}.stderr0").read_text()
    runs.kill(first)


def cannot_validate(*args: Any) -> None:
    from rfbench.errors import RfbenchError
    from rfbench.training import epochs

    def validate(run: Any, kind: Any) -> None:
        raise RfbenchError("no room for the loader of validation")

    epochs.validate = validate
    runs.job(*args)


def test_an_epoch_is_kept_when_the_first_validation_fails(whole: Path, tmp_path: Path) -> None:
    folder, values = tmp_path / "run", runs.config(checkpoint={"every": 0})
    started = runs.start_all(cannot_validate, (values, str(folder), False, 0.0), 1)
    assert runs.finish(started) == [1]
    held = checkpoint.load_last(folder)
    assert held is not None and (held["step"], held["epoch"]) == (20, 0)
    assert runs.finish(runs.start(values, folder, resume=True)) == [0]
    runs.assert_equal(whole, folder)
