"""An evaluation can be stopped at any time, also while C code computes; the weights are kept."""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.detect import evaluate
from rfbench.detect.apart import apart
from rfbench.detect.run import FORMAT
from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint, loop, progress
from rfbench.runs.processes import Processes
from tests.classify.runs import finish, start_all
from tests.detect import runs

GROUP = Processes(torch.device("cpu"))


def hang() -> None:
    """As a loop in C: no signal handler of Python runs meanwhile."""
    ctypes.PyDLL(None).sleep(1000)


def nothing() -> None:
    """No pause."""


def test_the_result_comes_back() -> None:
    own = os.getpid()
    found = apart(GROUP, lambda: {"AP": 1.5, "pid": os.getpid()}, nothing, "evaluation")
    assert found["AP"] == 1.5 and found["pid"] != own


@pytest.mark.parametrize("error", [RfbenchError("no space"), OSError(28, "No space"), KeyError(3)])
def test_an_error_comes_back(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        apart(GROUP, fail, nothing, "evaluation")
    assert caught.value.args == error.args


def test_an_error_that_cannot_be_sent() -> None:
    def fail() -> None:
        class OwnError(Exception):
            pass

        raise OwnError("said  in\ntwo lines")

    with pytest.raises(RuntimeError, match="said in two lines"):
        apart(GROUP, fail, nothing, "evaluation")


def test_a_killed_one_is_an_error() -> None:
    with pytest.raises(RfbenchError, match=r"the evaluation was killed \(exit code -9\).*--resume"):
        apart(GROUP, lambda: os.kill(os.getpid(), signal.SIGKILL), nothing, "evaluation")


def own_children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def test_a_stop_ends_it() -> None:
    found: set[int] = set()
    others = own_children()  # such as torch's resource tracker

    def pause() -> None:
        found.update(own_children() - others)
        raise loop.Stopped(0)

    begun = time.monotonic()
    with pytest.raises(loop.Stopped):
        apart(GROUP, hang, pause, "evaluation")
    assert time.monotonic() - begun < 10
    assert found and not any(os.path.exists(f"/proc/{child}") for child in found)


def hanging(values: dict[str, Any], folder: str, resume: bool, env: Any) -> None:
    """A run whose evaluation never ends."""
    evaluate.scored = lambda *_: hang()  # type: ignore[assignment]
    runs.job(values, folder, resume, env)


def test_a_run_is_stopped_while_it_evaluates(tmp_path: Path) -> None:
    values, folder = runs.config(SOLVER__MAX_ITER=2), tmp_path / "run"
    for resume in (False, True):
        (started,) = start_all(hanging, (values, str(folder), resume), 1)
        while not ((folder / "last.pth").exists() and children(started.pid)):
            assert started.is_alive(), Path(f"{folder}.stderr0").read_text()
            time.sleep(0.01)
        time.sleep(0.5)
        held = children(started.pid)
        os.kill(started.pid, signal.SIGTERM)
        assert finish([started], timeout=60) == [0]
        assert not any(os.path.exists(f"/proc/{child}") for child in held)
        content = checkpoint.load_last(folder, format=FORMAT)
        assert content and (content["step"], content["evaluated"]) == (2, 0)
    record = runs.fit(values, folder, resume=True)
    assert record["steps"] == 2 and record["metrics"]["jitter"]
    assert [line["split"] for line in progress.read_metrics(folder)] == ["train", "train", "val"]


def children(process: int | None) -> list[str]:
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
