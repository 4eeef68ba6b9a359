"""Averaged weights: by hand, beside the others in every checkpoint, and the same after kills."""

import json
from pathlib import Path

import pytest
import torch

from rfbench.classify import fit
from rfbench.classify.setup import setup
from rfbench.classify.train import KIND
from rfbench.runs import loop
from rfbench.schemas.cls import ClsConfig
from rfbench.training import ema, epochs
from tests.classify import runs

DECAY = 0.8
VALUES = runs.config(optim={"ema": DECAY}, threads=1)


def decay_by_hand(step: int) -> float:
    """Of step 0, 1, 2, ...: the first step is copied, then more and more is kept."""
    return min(DECAY, 1 - (1 + step) ** (-2 / 3)) if step else 0.0


def test_every_step_is_averaged_as_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and running statistics; counts of batches are copied."""
    config = ClsConfig.model_validate_json(json.dumps(VALUES))
    monkeypatch.setattr(loop, "log_steps", lambda *_: None)
    states: list[dict[str, torch.Tensor]] = []
    update = ema.update

    def noted(run: object) -> None:
        update(run)  # type: ignore[arg-type]
        states.append({k: v.clone() for k, v in run.network.state_dict().items()})  # type: ignore

    monkeypatch.setattr(ema, "update", noted)
    with loop.opened(config, tmp_path / "run", False, False) as start:
        run = setup(config, start)
        epochs.train_epoch(run, KIND)
        found = run.ema.module.state_dict()
        assert run.log
        run.log.close()
    mean = {key: value.double() for key, value in states[0].items()}
    for step, state in enumerate(states):
        share = 1 - decay_by_hand(step)
        for key, value in state.items():
            floats = value.is_floating_point()
            mean[key] = mean[key].lerp(value.double(), share) if floats else value.double()
    assert len(states) == 20
    for key, value in mean.items():
        torch.testing.assert_close(found[key].double(), value, rtol=1e-4, atol=1e-6)
    assert not torch.equal(found["1.running_mean"], states[-1]["1.running_mean"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    folder = tmp_path_factory.mktemp("ema") / "whole"
    assert runs.finish(runs.start(VALUES, folder)) == [0]
    return folder


def assert_equal(one: Path, other: Path) -> None:
    runs.assert_equal(one, other)
    for name in ("last.pth", "best.pth"):
        a, b = (torch.load(f / name, weights_only=True) for f in (one, other))
        for key, value in a["state_dict_ema"].items():
            assert torch.equal(value, b["state_dict_ema"][key]), key
        assert a["epoch"] == b["epoch"]


@pytest.mark.parametrize("at", [7, 23, 33])
def test_killed_and_resumed_it_is_the_same(whole: Path, tmp_path: Path, at: int) -> None:
    folder = tmp_path / "run"
    started = runs.start(VALUES, folder)
    assert runs.kill_when(started, lambda: runs.steps(folder) >= at)
    assert runs.finish(runs.start(VALUES, folder, resume=True)) == [0]
    assert_equal(whole, folder)


@pytest.mark.slow
def test_killed_again_and_again(whole: Path, tmp_path: Path) -> None:
    runs.kill_and_resume(VALUES, tmp_path / "run", kills=10, in_writes=4)
    assert_equal(whole, tmp_path / "run")


def test_both_are_recorded_and_the_best_is_that_of_the_average(whole: Path) -> None:
    record = json.loads((whole / "result.json").read_text())
    lines = [line for line in runs.lines(whole) if line["split"] == "val"]
    averaged = [line["ema/top1"] for line in lines]
    assert record["metrics"]["ema"]["top1"] == averaged[-1]
    assert record["metrics"]["top1"] == lines[-1]["top1"]
    best = torch.load(whole / "best.pth", weights_only=True)
    assert best["metrics"]["ema"]["top1"] == max(averaged)
    assert record["best"]["ema"]["top1"] == max(averaged)
    assert best["epoch"] == averaged.index(max(averaged)) + 1


def test_the_averaged_weights_are_evaluated_by_eval_only(whole: Path) -> None:
    from rfbench.classify import plan

    record = json.loads((whole / "result.json").read_text())
    config = ClsConfig.model_validate_json(json.dumps({**VALUES, "init": {"ema": True}}))
    found = plan.evaluate_checkpoint(config, str(whole / "last.pth"))
    assert found["top1"] == record["metrics"]["ema"]["top1"]


def test_without_a_file_there_is_nothing_to_average_from(tmp_path: Path) -> None:
    config = ClsConfig.model_validate_json(json.dumps({**VALUES, "init": {"ema": True}}))
    with pytest.raises(Exception, match=r"init\.ema needs init\.weights"):
        fit.fit(config, tmp_path / "run", False, False)
