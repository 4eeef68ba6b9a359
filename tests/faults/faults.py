"""What happens to processes and disks, and what must be left of it."""

import contextlib
import ctypes
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# how many random moments each test kills at
COUNT = int(os.environ.get("RFBENCH_FAULTS", "30"))
CLONE_NEWNS = 0x20000  # of linux/sched.h


def group_of(process: int) -> set[int]:
    """The living processes of a process group."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if entry.name.isdigit():
                state, _, group = (entry / "stat").read_text().rpartition(") ")[2].split()[:3]
                if int(group) == process and state not in "ZX":
                    found.add(int(entry.name))
    return found


def told(process: int) -> str:
    """What /proc says of a process, for a message."""
    folder, found = Path(f"/proc/{process}"), [str(process)]
    for name in ("cmdline", "wchan", "stack", "status"):
        with contextlib.suppress(OSError):
            found.append(f"{name}: {(folder / name).read_text()!r}")
    return ", ".join(found)


def assert_nothing_left(group: int, members: set[int]) -> None:
    """No process of the group lives on, and none of its members left shared memory."""
    end = time.monotonic() + 15
    while (left := group_of(group)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"still running: {[told(process) for process in left]}"
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    owners = {int(m[1]) for name in names if (m := re.match(r"torch_(\d+)_", name))}
    assert not owners & members, "shared memory is left"


def moment(started: Any, seconds: float) -> bool:
    """Wait; whether the process still runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and started.is_alive():
        time.sleep(0.002)
    return bool(started.is_alive())


def send_to_group(started: Any, number: int) -> None:
    """A signal to all processes of a run; to itself alone before it has made its group."""
    try:
        os.killpg(started.pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(started.pid, number)


def kill_group(started: Any) -> None:
    """SIGKILL to all processes of a run, and check that nothing is left."""
    members = group_of(started.pid)
    send_to_group(started, signal.SIGKILL)
    started.join(60)
    assert_nothing_left(started.pid, members)


def end(started: Any, seconds: float = 300) -> int:
    """Wait for the end of a run, check that nothing is left; its exit code."""
    members = group_of(started.pid)
    started.join(seconds)
    assert started.exitcode is not None, "the run hangs"
    assert_nothing_left(started.pid, members)
    return int(started.exitcode)


def mount(*args: object) -> None:
    """mount(8); a test is skipped where it is not allowed."""
    done = subprocess.run(["mount", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory of `size` KiB, mounted at `folder`."""
    folder.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def grow(folder: Path) -> None:
    """More room on a `disk`."""
    mount("-o", "remount,size=512m", folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """What is opened at `folder` from now on is read-only; root may write elsewhere."""
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def small_shared_memory(size: int) -> None:
    """In a run: /dev/shm of `size` KiB, for this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    option = f"size={size}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", "/dev/shm"], check=True)


def moments(name: str, seconds: float, count: int = COUNT) -> list[float]:
    """Random moments within `seconds`."""
    rng = random.Random(name)
    return [rng.uniform(0, seconds) for _ in range(count)]
