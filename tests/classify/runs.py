"""Small runs in processes of their own, which tests may kill."""

import faulthandler
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch

from rfbench.classify import fit
from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint, logs, progress
from rfbench.schemas.cls import ClsConfig

# imports torch once, and forks children that have run nothing yet
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.classify.runs"])

SMALL: dict[str, Any] = {
    "model": "tests.classify.runs:small",
    "data": {"name": "digits", "train_scenes": 240, "val_scenes": 61, "workers": 0},
    "optim": {"lr": 0.05},
    "schedule": {"epochs": 2, "warmup_epochs": 1, "milestones": [1]},
    "batch_size": 12,
    "max_batch_per_gpu": 12,
    "checkpoint": {"every": 5},
    "log_every": 1,
    "device": "cpu",
}


def small() -> torch.nn.Module:
    """What can go wrong in a resumed run: BatchNorm, dropout, a stride-2 3x3."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 4, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def config(**changes: Any) -> dict[str, Any]:
    """SMALL with changes; a mapping changes the keys it has."""
    found = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


def job(values: dict[str, Any], folder: str, resume: bool, slow_writes: float, env: Any) -> None:
    """A run; exits as the command would."""
    os.environ.update(env)
    os.setpgid(0, 0)  # so that a kill takes the loader's processes along
    torch.set_num_threads(1)
    sys.stderr = open(f"{folder}.stderr{env.get('RANK', '')}", "a", buffering=1)  # noqa: SIM115
    faulthandler.dump_traceback_later(100, file=sys.stderr)  # where a hanging one hangs
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(slow_writes)
        fsync(descriptor)

    checkpoint.os.fsync = slow  # type: ignore[attr-defined]
    logs.to_stderr()
    try:
        parsed = ClsConfig.model_validate_json(json.dumps(values))
        _, code = fit.fit(parsed, Path(folder), resume, not resume)
    except RfbenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # as the command line says it
        print(f"Error: {error.strerror}: {error.filename}", file=sys.stderr)
        code = 1
    sys.exit(code)


def start(
    values: dict[str, Any], folder: Path, resume: bool = False, world: int = 1, slow: float = 0.0
) -> list[Any]:
    """Start a run of `world` processes."""
    return start_all(job, (values, str(folder), resume, slow), world)


def start_all(target: Any, args: tuple[Any, ...], world: int) -> list[Any]:
    """Start `world` processes that find each other: target(*args, environment)."""
    env = {key: os.environ[key] for key in ("XDG_CACHE_HOME",) if key in os.environ}
    found = []
    if world > 1:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    for rank in range(world):
        mine = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = PROCESSES.Process(target=target, args=(*args, mine))
        process.start()
        found.append(process)
    return found


def finish(started: list[Any], timeout: float = 240) -> list[int]:
    """Their exit codes."""
    for process in started:
        process.join(timeout)
    codes = [process.exitcode for process in started]
    kill(started)
    return codes


def kill(started: list[Any]) -> None:
    """SIGKILL, all that are left."""
    for process in started:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


def lines(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl so far."""
    try:
        text = (folder / progress.METRICS).read_text()
    except FileNotFoundError:  # not yet, or removed just now by a run that starts from nothing
        text = ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def steps(folder: Path) -> int:
    """Steps in metrics.jsonl."""
    return max((line["step"] for line in lines(folder)), default=0)


def writing(folder: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(folder.glob(".last.pth.*.tmp.pth"))


def kill_saved(started: list[Any], folder: Path, step: int) -> bool:
    """SIGKILL at a step, once there is a checkpoint: it is written beside the training."""
    last = folder / checkpoint.LAST
    return kill_when(started, lambda: steps(folder) >= step and last.exists())


def kill_when(started: list[Any], due: Any, timeout: float = 240) -> bool:
    """SIGKILL when `due()`; False where the run ended before."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if not all(process.is_alive() for process in started):
            finish(started)
            return False
        if due():
            kill(started)
            return True
        time.sleep(0.001)
    kill(started)
    raise AssertionError("the run came to nothing")


def result(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint, and metrics.jsonl without its time fields."""
    found = checkpoint.load_last(folder)
    assert found is not None
    untimed = [
        {key: value for key, value in line.items() if key not in progress.TIME_FIELDS}
        for line in lines(folder)
    ]
    return found, untimed


def assert_equal(one: Path, other: Path) -> None:
    """Two runs ended with the same bits and the same figures."""
    (a, a_lines), (b, b_lines) = result(one), result(other)
    assert a_lines == b_lines
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key
    for state, again in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        for key, value in state.items():
            same = torch.equal(value, again[key]) if torch.is_tensor(value) else value == again[key]
            assert same, key


def kill_and_resume(
    values: dict[str, Any],
    folder: Path,
    kills: int,
    in_writes: int,
    world: int = 1,
    seed: int = 0,
    workers: tuple[int, ...] = (0, 2),
) -> list[tuple[int, int, bool]]:
    """Kill a run again and again, then let it end.

    Returns for every kill the step it was at, the newest checkpoint's, whether it was writing.
    """
    rng = random.Random(seed)
    per_epoch = values["data"]["train_scenes"] // values["batch_size"]
    total = per_epoch * values["schedule"]["epochs"]
    found: list[tuple[int, int, bool]] = []
    for number in range(kills + 1):
        values["data"]["workers"] = workers[number % len(workers)]
        writes = number < in_writes
        started = start(values, folder, resume=number > 0, world=world, slow=0.1 if writes else 0)
        if number == kills:
            assert finish(started) == [0] * world, Path(f"{folder}.stderr0").read_text()
            break
        # spread over the run: each a little further than the one before
        target = int(total * (number + rng.random()) / (kills + 1)) + 1
        if writes:
            due = lambda target=target: steps(folder) >= target and writing(folder)  # noqa: E731
        else:
            due = lambda target=target: steps(folder) >= target  # noqa: E731
        if not kill_when(started, due):
            raise AssertionError(re.sub(r"\s+", " ", Path(f"{folder}.stderr0").read_text()))
        was_writing = writing(folder)
        held = checkpoint.load_last(folder)
        found.append((steps(folder), held["step"] if held else 0, was_writing))
    return found
