"""Runs that prune: zeros in every checkpoint, averaged weights too, and the same after a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.rf.core.recorded_map import decode
from tests.classify import runs

PRUNE = {"sparsity": 0.75, "begin": 5, "end": 25, "every": 10}
VALUES = runs.config(prune=PRUNE, optim={"ema": 0.8, "weight_decay": 0.01}, threads=1)
# weights of `runs.small`: 8 of 3 x 5 x 5, 16 of 8 x 3 x 3, 10 of 16
ALL = {"0.weight": 600, "4.weight": 1152, "9.weight": 160}
ZEROS = {name: 3 * n // 4 for name, n in ALL.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "whole"
    assert runs.finish(runs.start(VALUES, folder)) == [0], Path(f"{folder}.stderr0").read_text()
    return folder


def content(folder: Path, name: str = "last.pth") -> dict[str, Any]:
    return torch.load(folder / name, weights_only=True)


@pytest.mark.parametrize("name", ["last.pth", "best.pth"])
@pytest.mark.parametrize("part", ["state_dict", "state_dict_ema"])
def test_the_zeros_are_in_what_is_exported(whole: Path, name: str, part: str) -> None:
    state = content(whole, name)[part]
    assert {key: int((state[key] == 0).sum()) for key in ALL} == ZEROS


def test_the_best_is_of_a_network_that_is_pruned_to_the_end(whole: Path) -> None:
    """20 steps an epoch: the first evaluation, after 20, is of another network."""
    assert content(whole, "best.pth")["epoch"] == 2
    assert json.loads((whole / "result.json").read_text())["best"]["epoch"] == 1


def test_the_record_counts_what_is_not_zero(whole: Path) -> None:
    record = json.loads((whole / "result.json").read_text())
    state = content(whole)["state_dict"]
    parameters = [v for key, v in state.items() if "running" not in key and "num_" not in key]
    assert record["parameters"] == sum(v.numel() for v in parameters)
    assert record["nonzero"] == sum(int((v != 0).sum()) for v in parameters)
    assert record["nonzero"] <= record["parameters"] - sum(ZEROS.values())
    known = record["network"]
    assert known["figures"]["size"] == [13, 13]
    assert decode(known["map"]).offset == pytest.approx(known["figures"]["shift"])


@pytest.mark.parametrize("at", [3, 12, 33])
def test_killed_and_resumed_it_is_the_same(whole: Path, tmp_path: Path, at: int) -> None:
    folder = tmp_path / "run"
    started = runs.start(VALUES, folder)
    assert runs.kill_when(started, lambda: runs.steps(folder) >= at)
    assert runs.finish(runs.start(VALUES, folder, resume=True)) == [0]
    runs.assert_equal(whole, folder)
    one, other = content(whole), content(folder)
    assert one["pruned"].keys() == ALL.keys()
    for key in ALL:
        assert torch.equal(one["pruned"][key], other["pruned"][key])
        assert torch.equal(one["state_dict_ema"][key], other["state_dict_ema"][key])


def test_two_processes_prune_alike(tmp_path: Path) -> None:
    values = runs.config(prune={**PRUNE, "scope": "global"}, schedule={"epochs": 2})
    folder = tmp_path / "run"
    assert runs.finish(runs.start(values, folder, world=2)) == [0, 0]
    state = content(folder)["state_dict"]
    assert sum(int((state[key] == 0).sum()) for key in ALL) == sum(ALL.values()) * 3 // 4


def test_more_steps_than_the_run_has_are_named_before_it(tmp_path: Path) -> None:
    values = runs.config(prune={**PRUNE, "end": 41})
    assert runs.finish(runs.start(values, tmp_path / "run")) == [2]
    assert "prune.end is step 41; the run has 40 steps" in (tmp_path / "run.stderr0").read_text()
    assert not (tmp_path / "run" / "last.pth").exists()
