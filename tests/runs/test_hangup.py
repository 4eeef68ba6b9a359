"""A terminal that is closed: the run saves and ends, unless nohup says to go on."""

import contextlib
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import torch

from rfbench.runs.signals import Asked, Signals

ROOT = Path(__file__).parents[2]
ARGS = ["cls/digits", "--output", "run", "--device", "cpu", "-o", "threads=1", "-o", "log_every=1"]
SMALL = ["data.train_scenes=64", "data.val_scenes=20", "data.workers=2", "consistency_images=0"]


def started(folder: Path) -> tuple[int, int]:
    """A run on a terminal of its own: (process, the other end of its terminal)."""
    settings = [*SMALL, "schedule.epochs=1000", "batch_size=32", "checkpoint.every=0"]
    given = [part for one in settings for part in ("-o", one)]
    process, master = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(ROOT)
        line = [sys.executable, "-m", "rfbench", "train-cls", *ARGS, *given]
        os.execv(line[0], line)
    return process, master


def wait_for(master: int, text: bytes) -> None:
    seen, end = b"", time.monotonic() + 120
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([master], [], [], 1)[0]:
            with contextlib.suppress(OSError):
                seen += os.read(master, 65536)


def exit_code(process: int) -> int:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    raise AssertionError("the run hangs")


def test_a_closed_terminal_ends_a_run_that_has_saved(tmp_path: Path) -> None:
    process, master = started(tmp_path)
    wait_for(master, b"epoch 1/1000")
    os.close(master)
    assert exit_code(process) == 0
    content = torch.load(tmp_path / "run/last.pth", weights_only=True)
    assert content["step"] >= 2 and not (tmp_path / "run/result.json").exists()


def test_what_nohup_ignores_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.asked == Asked.NOTHING
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Signals() as signals:
            signals.terminals = []  # those of the tests stay
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.asked == Asked.REQUEUE
    finally:
        signal.signal(signal.SIGHUP, before)
