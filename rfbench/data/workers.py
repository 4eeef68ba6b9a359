"""The loader's worker processes: how they start, handle signals, and report their end."""

import contextlib
import ctypes
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from rfbench import machine
from rfbench.errors import RfbenchError

SHARED_MEMORY = "/dev/shm"
PR_SET_PDEATHSIG = 1  # of linux/prctl.h

# exit code of a process (-signal) -> its most frequent cause
CAUSES = {
    -signal.SIGKILL: "killed, most often for lack of memory; lower data.workers",
    -signal.SIGBUS: "shared memory is full (in a container: --shm-size); lower data.workers",
}


def context() -> Any:
    """The start method: fork on Linux, so that workers share the list of files."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else None)


def prepare(worker: int) -> None:
    """Set up a new worker: one thread, and ignore signals that are meant for the main process.

    Ctrl-C reaches the whole foreground group, and Slurm's signals every process of a job; the main
    process must be able to finish its step and save.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTERM])  # see `signals_blocked`
        threading.Thread(target=_exit_on_parent_sigterm, args=(os.getppid(),), daemon=True).start()


def end_with_parent() -> None:
    """End this process when its parent is killed.

    Otherwise it would report a broken pipe later, or wait for work forever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit_on_parent_sigterm(parent: int) -> None:
    """Exit on a SIGTERM from `parent`, which ends a hanging worker this way."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


def empty(shape: tuple[int, ...]) -> Tensor:
    """An uninitialized uint8 tensor; in a worker in shared memory, to be sent without a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    # allocated here, which raises if there is no room; while a batch is sent, it would hang
    return shared(shape)


def shared(shape: tuple[int, ...]) -> Tensor:
    """A uint8 tensor in shared memory; RuntimeError if there is no room."""
    storage = torch.UntypedStorage._new_shared(math.prod(shape), device="cpu")
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def check_room(need: int, keys: str = "data.workers or max_batch_per_gpu") -> None:
    """Raise RfbenchError if /dev/shm has not `need` bytes for each process of this machine.

    keys: of the configuration, to be lowered.
    """
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:  # there is none
        return
    need *= machine.processes()
    free = room.f_bavail * room.f_frsize
    if need > free:
        raise RfbenchError(
            f"loading images takes {need / 2**20:.0f} MB of shared memory, and {SHARED_MEMORY} has "
            f"{free / 2**20:.0f} MB left (in a container: --shm-size); lower {keys}"
        )


def start(loader: DataLoader) -> Iterator[Any]:
    """`iter(loader)`, without changing the process's handler of SIGCHLD.

    torch's own handler raises at any point of the main process when a worker dies, even during a
    save. Without it the error appears, within seconds, when the next batch is fetched.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD)
    try:
        with signals_blocked():
            return iter(loader)
    except OSError as error:
        raise RfbenchError(
            f"cannot start the DataLoader workers: {error.strerror}; lower data.workers"
        ) from None
    finally:
        if in_main_thread:  # handlers can only be set in the main thread
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block signals; processes that start meanwhile keep them blocked until `prepare`."""
    if sys.platform != "linux":
        yield
        return
    blocked = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(loader: DataLoader) -> None:
    """End the processes of `loader` now.

    torch does so when the last reference is gone; but if a cycle is collected (an exception's
    traceback holds one), the queues go first, and each worker then takes five seconds.
    """
    shut_down = getattr(getattr(loader, "_iterator", None), "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


@contextlib.contextmanager
def reported(results: Any = None) -> Iterator[None]:
    """A context that turns a worker's death or lack of resources into an error of one line."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        text = str(error)
        # a worker that dies while it sends a batch resets the connection
        if text.startswith("DataLoader worker (pid") or isinstance(error, ConnectionError):
            workers = list(getattr(results, "_workers", []))
            # its connection may be gone before the process is
            multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=5)
            codes = [worker.exitcode for worker in workers]
            why = next((CAUSES[code] for code in codes if code in CAUSES), None)
            why = why or f"exit code {next((code for code in codes if code), 'unknown')}"
            raise RfbenchError(f"a DataLoader worker has ended: {why}.") from None
        if "shared memory" in text or "/torch_" in text:
            raise RfbenchError(f"cannot load images: {CAUSES[-signal.SIGBUS]}.") from None
        if "open files" in text or "ancdata" in text:
            raise RfbenchError("too many open files: raise `ulimit -n`.") from None
        raise
