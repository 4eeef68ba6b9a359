"""Two processes under torchrun: signals to the launcher or its group, then --resume."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.classify import runs
from tests.faults import faults, trainings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MARK = "RFBENCH_FAULTS_RUN"


def start(folder: Path, resume: bool) -> tuple[subprocess.Popen, str]:
    """A training by torchrun in a process group of its own; the mark of all its processes."""
    values = runs.config(checkpoint={"every": 2})
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    mark = uuid.uuid4().hex
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: mark}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "rfbench", "train-cls", str(path), "--output", str(folder)]
    with open(f"{folder}.stderr0", "ab") as said:
        started = subprocess.Popen(
            [*launcher, *command, "--resume" if resume else "--overwrite"],
            **{"env": env, "cwd": ROOT, "stdout": said, "stderr": said, "process_group": 0},  # type: ignore[call-overload]
        )
    return started, mark


def members(mark: str) -> set[int]:
    """The living processes of a run: torchrun gives each of them a session of its own."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            mine = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
            if mine and (entry / "stat").read_text().rpartition(") ")[2][0] not in "ZX":
                found.add(int(entry.name))
    return found


def finish(started: subprocess.Popen, mark: str) -> int:
    """Wait for the end of the launcher and of all that it started; the launcher's exit code."""
    code = started.wait(300)
    end = time.monotonic() + 60
    while (left := members(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"still running: {left}"
    return code


def to_launcher(number: int) -> Callable[[subprocess.Popen], None]:
    return lambda started: started.send_signal(number)


FAULTS: dict[str, Callable[[subprocess.Popen], None]] = {
    "SIGTERM to the launcher": to_launcher(signal.SIGTERM),
    "SIGUSR1 to the launcher": to_launcher(signal.SIGUSR1),
    "SIGKILL to the launcher": to_launcher(signal.SIGKILL),
    "SIGTERM to the group": lambda started: os.killpg(started.pid, signal.SIGTERM),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing happens to, and its seconds."""
    folder = tmp_path_factory.mktemp("torchrun") / "whole"
    begun = time.monotonic()
    assert finish(*start(folder, False)) == 0, trainings.said(folder)
    return folder, time.monotonic() - begun


@pytest.mark.parametrize("fault", FAULTS)
def test_launcher(whole: tuple[Path, float], fault: str, tmp_path: Path) -> None:
    reference, seconds = whole
    counts: Counter[str] = Counter()
    for number, after in enumerate(faults.moments(fault, seconds, faults.COUNT // 3 + 1)):
        folder = tmp_path / str(number)
        started, mark = start(folder, False)
        # in the second in which Python starts they are not tied to the launcher yet
        alone = "KILL" in fault or "USR1" in fault
        while alone and not folder.exists() and started.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(after)
        alive = started.poll() is None
        if alive:
            FAULTS[fault](started)
        finish(started, mark)
        stopped = "and saved in" in trainings.said(folder)
        counts["stopped and saved" if stopped else "earlier" if alive else "finished"] += 1
        assert finish(*start(folder, trainings.begun(folder))) == 0, trainings.said(folder)
        runs.assert_equal(reference, folder)
        counts["resumed to the same end"] += 1
    print(f"torchrun: {fault}:", dict(counts))
