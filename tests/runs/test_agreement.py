"""Processes agree by what they wanted a step ago, and end at the same step, whatever happens."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint, loop, progress
from rfbench.runs.processes import Processes
from rfbench.runs.signals import Asked, Signals
from rfbench.runs.state import Loop, Start
from tests.classify.runs import finish, start_all
from tests.runs import tiny

LOST = "lost contact with another rank"


class Two(Processes):
    """The first of two processes, which is told what the other one wants."""

    def vote(self, value: int) -> Callable[[], int]:
        number = sum(text.startswith("ask") for text in TOLD)
        TOLD.append(f"ask {number}")

        def result() -> int:
            TOLD.append(f"hear {number}")
            return max(value, OTHERS[number])

        return result

    def largest(self, value: int) -> int:
        return value


TOLD: list[str] = []
OTHERS: list[int] = []


def steps(others: list[int], count: int, batches: Any = None) -> tuple[list[str], int, Any]:
    """What is asked and heard in up to `count` steps, the steps made, and what ended them."""
    OTHERS[:], told = others, TOLD
    told.clear()
    group = Two(torch.device("cpu"), 0, 2)
    run = Loop(config=tiny.Config(), start=Start(Path("."), group, Signals(), None, None))
    source = batches or iter(range(count))
    while run.step < count:
        try:
            loop.fetch(run, source, run.step + 1 < count)
            loop.agree(run)
        except (loop.Stopped, RfbenchError) as ended:
            return told, run.step, ended
        told.append(f"step {run.step}")
        run.step += 1
    return told, run.step, None


def test_what_is_heard_was_asked_a_step_ago() -> None:
    told, _, ended = steps([0, 0, 0], 3)
    assert ended is None
    # nothing has been asked before the first step
    assert told == [
        *("ask 0", "hear 0", "step 0"),
        *("ask 1", "hear 0", "step 1"),
        *("ask 2", "hear 1", "step 2"),
    ]


def test_another_s_wish_is_followed_a_step_later() -> None:
    _, step, ended = steps([0, Asked.REQUEUE, 0, 0], 4)
    assert step == 2 and isinstance(ended, loop.Stopped) and ended.exit_code == 0


def test_a_batch_that_is_missing_is_told_a_step_ahead() -> None:
    def batches() -> Any:
        yield from range(2)
        raise RfbenchError("no batch 2")

    told, step, ended = steps([0, 0, 0, 0], 4, batches())
    # asked before step 1 is made, so that the others have heard it before step 2
    assert step == 2 and str(ended) == "no batch 2"
    assert told[-3:] == ["step 1", "ask 2", "hear 1"]


PAUSED = {"pause": 0.02}


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> list[Any]:
    return start_all(tiny.job, ({**PAUSED, **values}, str(folder), resume), 2)


def said(folder: Path) -> list[str]:
    return [Path(f"{folder}.stderr{rank}").read_text() for rank in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("step", [0, 13, 20])
def test_a_process_without_a_batch_ends_all(step: int, rank: int, tmp_path: Path) -> None:
    """Also where the step before it is that of a checkpoint, which is written."""
    folder = tmp_path / "run"
    assert finish(run({"bad": (step, rank)}, folder), 60) == [1, 1]
    assert f"Error: no batch {step}\n" in said(folder)[rank]
    held = checkpoint.load_last(folder)
    assert (held["step"] if held else 0) == step // tiny.PERIOD * tiny.PERIOD


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_other(rank: int, tmp_path: Path) -> None:
    folder, values = tmp_path / "run", {"steps": 2000}
    both = run(values, folder)
    while not (folder / "last.pth").exists():
        time.sleep(0.002)
    os.kill(both[rank].pid, signal.SIGKILL)
    begun = time.monotonic()
    codes = finish(both, 60)
    assert time.monotonic() - begun < 50
    assert codes[rank] == -9 and codes[1 - rank] == 1
    assert LOST in said(folder)[1 - rank]


@pytest.mark.slow
def test_signals_at_many_moments(tmp_path: Path) -> None:
    """To either process; both end at one step, and go on from there to the same weights."""
    whole = tmp_path / "whole"
    assert finish(run({}, whole)) == [0, 0]
    for number in range(10):
        folder = tmp_path / str(number)
        both = run({}, folder)
        while not (folder / progress.METRICS).exists():
            time.sleep(0.002)
        time.sleep(0.08 * number)
        for process in both[number % 2 :][:1]:
            os.kill(process.pid, signal.SIGTERM)
        assert finish(both, 60) == [0, 0]
        assert finish(run({}, folder, True), 60) == [0, 0]
        a, b = (torch.load(f / "last.pth", weights_only=True) for f in (whole, folder))
        assert torch.equal(a["state_dict"]["weight"], b["state_dict"]["weight"])
