"""Checkpoints are written beside the training, and tell the state at the step's boundary."""

import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint
from tests.runs import tiny


def test_a_snapshot_is_a_copy_of_all_and_keeps_what_is_one() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state: Any = OrderedDict(a=weight, b=weight, part=weight[0], strided=weight.t())
    state._metadata = {"": {"version": 2}}
    images = torch.zeros(1, 3, 4, 4).to(memory_format=torch.channels_last)
    content = {"state": state, "ranks": [{"rng": (3, (1, 2), None)}], "images": images, "n": 1}
    copied = checkpoint.snapshot(content)
    weight += 1
    images += 1
    held = copied["state"]
    assert type(held) is OrderedDict and held._metadata == {"": {"version": 2}}
    assert torch.equal(held["a"], torch.arange(6.0).reshape(2, 3)) and held["a"] is held["b"]
    assert held["part"].tolist() == [0, 1, 2] and held["strided"].stride() == (1, 3)
    assert copied["images"].is_contiguous(memory_format=torch.channels_last)
    assert copied["images"].sum() == 0
    assert copied["ranks"] == [{"rng": (3, (1, 2), None)}] and copied["n"] == 1
    assert content["state"] is state  # and nothing of it has changed
    assert state["b"] is weight


class Slow:
    """`checkpoint.save`, late; counts how many write at once."""

    def __init__(self, seconds: float = 0.1, failure: Exception | None = None) -> None:
        self.seconds, self.failure = seconds, failure
        self.now = self.most = 0
        self.threads: set[str] = set()
        self.save = checkpoint.save

    def __call__(self, path: Path, content: Any, keep: int = 1) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if self.failure:
            raise self.failure
        self.save(path, content, keep)
        self.now -= 1


def test_writes_do_not_wait_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(0.2)
    monkeypatch.setattr(checkpoint, "save", slow)
    writer, weight = checkpoint.Writer(), torch.zeros(2)
    begin = time.monotonic()
    for name in ("best.pth", "last.pth"):
        writer.write(tmp_path / name, {"weight": weight})
        weight += 1  # the next step
    assert time.monotonic() - begin < 0.2
    writer.write(tmp_path / "last.pth", {"weight": weight}, 2)  # a third waits for the first
    assert (tmp_path / "best.pth").exists()
    writer.wait()
    assert slow.most == 1 and slow.threads == {"checkpoints_0"}
    names = ("best.pth", "last-1.pth", "last.pth")
    held = [torch.load(tmp_path / name, weights_only=True)["weight"][0] for name in names]
    assert held == [0, 1, 2]


def test_a_failed_write_ends_the_run_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the end of 2,000 steps; and the folder is free again."""
    monkeypatch.setattr(checkpoint, "save", Slow(0.01, RfbenchError("cannot write: disk full")))
    with pytest.raises(RfbenchError, match="disk full"):
        tiny.fit(tiny.Config(steps=2000, pause=0.005), tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) < 20
    monkeypatch.undo()
    record, _ = tiny.fit(tiny.Config(steps=20), tmp_path / "run", overwrite=True)
    assert record["steps"] == 20


def test_an_error_elsewhere_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends when what it has begun to write is written."""
    monkeypatch.setattr(checkpoint, "save", Slow(0.3))
    batches = tiny.data

    def broken(step: int) -> Any:
        if step == 11:  # the checkpoint of step 10 is being written
            raise RfbenchError("no batch 11")
        return batches(step)

    monkeypatch.setattr(tiny, "data", broken)
    with pytest.raises(RfbenchError, match="no batch 11"):
        tiny.fit(tiny.Config(), tmp_path / "run")
    assert torch.load(tmp_path / "run/last.pth", weights_only=True)["step"] == 10
