"""A run that is killed, stopped or shared by processes ends as one that is not."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from rfbench.runs import checkpoint
from rfbench.segment.network import FORMAT
from tests.classify import runs as cls
from tests.segment import runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code = cls.finish(runs.start(runs.config(), folder))
    assert code == [0], Path(f"{folder}.stderr0").read_text()
    return folder


@pytest.mark.parametrize("at", [4, 11, 14])
def test_killed_and_resumed_it_is_the_same(whole: Path, tmp_path: Path, at: int) -> None:
    """With other workers; before a checkpoint's next, at the end of an epoch, after it."""
    folder = tmp_path / "run"
    started = runs.start(runs.config(), folder)
    assert cls.kill_when(started, lambda: cls.steps(folder) >= at)
    values = runs.config(data={"workers": at % 2})
    assert cls.finish(runs.start(values, folder, resume=True)) == [0]
    runs.assert_equal(whole, folder)


def test_a_signal_saves_where_it_is(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    values = runs.config(checkpoint={"every": 0})
    started = runs.start(values, folder)
    while cls.steps(folder) < 5:
        time.sleep(0.001)
    os.kill(started[0].pid, signal.SIGTERM)
    assert cls.finish(started) == [0]
    held = checkpoint.load_last(folder, FORMAT)
    assert held is not None and held["step"] >= 5
    said = Path(f"{folder}.stderr0").read_text()
    assert f"stopped at step {held['step']} and saved" in said
    assert cls.finish(runs.start(values, folder, resume=True)) == [0]
    runs.assert_equal(whole, folder)


def test_processes_and_passes_share_a_step(tmp_path: Path) -> None:
    """The loss is a mean over all pixels: two processes, or two passes, give those of one.

    Every BatchNorm sees four images; class weights, and crops that reach beyond the image and are
    ignored there, make the shares of a step unequal.
    """
    values = runs.config(
        model="tests.segment.test_resume:steady",
        data={"crop": [56, 56], "scale": [0.6, 1.0]},
        loss={"class_weights": {"background": 0.1, "3": 2.0}},
        schedule={"epochs": 1},
        max_batch_per_gpu=4,
    )
    two = runs.start(values, tmp_path / "two", world=2)
    assert cls.finish(two) == [0, 0], Path(f"{tmp_path / 'two'}.stderr0").read_text()
    assert cls.finish(runs.start(values, tmp_path / "one")) == [0]
    one, two_ = (
        [line["loss"] for line in cls.lines(tmp_path / name) if line["split"] == "train"]
        for name in ("one", "two")
    )
    assert len(one) == 12 and one == pytest.approx(two_, rel=1e-3)
    record = json.loads((tmp_path / "two" / "result.json").read_text())
    expected = {"global": 8, "world_size": 2, "accumulation": 1, "per_batchnorm": 4}
    assert record["batch"] == expected
    assert record["metrics"]["images"] == 13


def steady(classes: int) -> runs.nn.Module:
    """Without dropout, whose random numbers are each process's own."""
    network = runs.small(classes)
    network.stem[3] = runs.nn.Identity()
    return network
