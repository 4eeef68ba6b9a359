"""What launchers and machines give to the processes of a run: devices, locks, names, ends."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.data import workers
from rfbench.errors import RfbenchError
from rfbench.runs import folder as folders
from rfbench.runs import processes
from rfbench.runs.processes import Processes
from rfbench.schemas.cls import ClsConfig
from rfbench.training import device

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("number", "file_system"),
    [(errno.ENOSYS, "Lustre"), (errno.EOPNOTSUPP, "Lustre"), (errno.ENOLCK, "NFS")],
)
def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    file_system: str,
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with folders.held(tmp_path / "run", False, False):
        (tmp_path / "run/x").write_text(file_system)
    assert f"the file system of {tmp_path / 'run'} has no locks" in caplog.text


def test_another_error_of_a_lock_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"), folders.held(tmp_path / "a", False, False):
        pass


@pytest.mark.parametrize(
    ("gpus", "local_rank", "torchrun", "wanted"),
    [(8, 3, True, 3), (8, 3, False, 3), (1, 3, False, 0), (1, 0, True, 0), (1, 1, True, None)],
)
def test_the_gpu_of_a_process(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local_rank: int, torchrun: bool, wanted: int | None
) -> None:
    """srun may show each process its own GPU alone; torchrun shows all."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if torchrun:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    if wanted is None:
        with pytest.raises(RfbenchError, match="process 1 of this machine has no GPU: there are 1"):
            processes.device_of("cuda", local_rank)
        return
    assert processes.device_of("cuda", local_rank) == torch.device("cuda", wanted)
    assert taken == [wanted]


PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
time.sleep(60)
"""
CHILD = """
import os, signal, sys, time
from rfbench.runs.launcher import end_with_launcher
from rfbench.runs.signals import Signals
end_with_launcher()
with Signals() as signals:
    open(sys.argv[1], "w").write(str(os.getpid()))
    end = time.monotonic() + 30
    while not signals.asked and time.monotonic() < end:
        time.sleep(0.01)
    open(sys.argv[1] + ".asked", "w").write(signals.asked.name)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_processes_save_when_their_launcher_is_gone(tmp_path: Path, number: int) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": "1"}
    command = [sys.executable, "-c", PARENT, CHILD, str(tmp_path / "child")]
    launcher = subprocess.Popen(command, env=env)
    wait_for(tmp_path / "child")
    launcher.send_signal(number)
    launcher.wait()
    wait_for(tmp_path / "child.asked")
    assert (tmp_path / "child.asked").read_text() == "REQUEUE"


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)


JOIN = """
import sys
from rfbench.errors import RfbenchError
from rfbench.runs import processes
try:
    with processes.started("cpu"):
        print("joined")
except RfbenchError as error:
    print(error)
"""


def test_an_interface_that_is_not_there_is_named() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "none0"}
    env |= {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN],
            env={**env, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for one in both:
        text = one.communicate(timeout=120)[0].strip().splitlines()[-1]
        assert "of 2 cannot join the others" in text and "GLOO_SOCKET_IFNAME" in text
        assert "lost contact" not in text


def free_port() -> str:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


class Others(Processes):
    """A process whose others have the same errors as itself: none."""

    def gather(self, value: Any) -> list[Any]:
        return [value]


@pytest.mark.parametrize(
    ("local_rank", "wanted"), [("0", ["call", "told"]), ("3", ["told", "call"])]
)
def test_the_first_of_a_machine_fetches_before_the_others(
    monkeypatch: pytest.MonkeyPatch, local_rank: str, wanted: list[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    order: list[str] = []

    class Noted(Others):
        def alike(self, call: Any) -> Any:
            result = super().alike(call)
            order.append("told")
            return result

    def call() -> int:
        order.append("call")
        return 7

    assert Noted(torch.device("cpu")).in_turn(call) == 7
    assert order[:2] == wanted


def test_shared_memory_is_asked_for_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    room = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else pytest.skip("no /dev/shm")
    free = room.f_bavail * room.f_frsize
    workers.check_room(free // 4)
    with pytest.raises(RfbenchError, match=r"MB of shared memory, and /dev/shm has .* --shm-size"):
        workers.check_room(4 * free)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(RfbenchError, match="shared memory"):
        workers.check_room(free // 4)
    monkeypatch.setattr(workers, "SHARED_MEMORY", "/nowhere")
    workers.check_room(4 * free)


@pytest.mark.parametrize(
    ("asked", "kind", "capability", "told", "rounded"),
    [
        ("auto", "cpu", None, "fp32", None),
        ("tf32", "cpu", None, "fp32", None),
        ("auto", "cuda", (8, 0), "bf16", True),
        ("fp32", "cuda", (9, 0), "fp32", False),
        ("tf32", "cuda", (8, 0), "tf32", True),
        ("tf32", "cuda", (7, 5), "fp32", False),
        ("bf16", "cuda", (9, 0), "bf16", True),
    ],
)
def test_the_precision_that_is_told_is_computed_in(
    asked: str,
    kind: str,
    capability: tuple[int, int] | None,
    told: str,
    rounded: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fp32 is not TensorFloat-32, which torch's convolutions use on GPUs unless told otherwise."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    held = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    config = ClsConfig(model="resnet18", precision=asked)  # type: ignore[arg-type, call-arg]
    group = processes.Processes(torch.device(kind))
    try:
        assert device.precision(config, group.device) == told
        device.set_up_device(config, group)
        if rounded is not None:
            now = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            assert now == (rounded, rounded)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = held
        torch.backends.cudnn.benchmark = False
