"""What a run finds around it before it begins: cores, memory, GPUs, disk, locks, the network.

Each finding is one line; one that will cost the run time or its end says what to do.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from rfbench import machine
from rfbench.errors import counted
from rfbench.runs.folder import lock_error
from rfbench.runs.processes import Processes

logger = logging.getLogger(__name__)

CORES = 4  # that keep one GPU busy: three that load, at 600 images a second each
PROBE = 16 * 2**20  # bytes that are written to measure the disk
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Need:
    """What a process of a run needs, in bytes where no unit is named.

    workers: of its DataLoader. memory: of their batches. state: of a checkpoint. kept: how
    many checkpoints are kept, the best included.
    """

    workers: int
    memory: int
    state: int
    kept: int


@dataclass(frozen=True)
class Finding:
    """A line; remedy: what to do about it, "" where nothing is wrong."""

    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


def look(folder: Path, group: Processes, need: Need, probe: bool = False) -> Iterator[Finding]:
    """All findings for a run in `folder`. probe: measure the disk too, which writes 16 MB."""
    yield _cores(group, need)
    if need.memory:
        yield _memory(need)
    if group.device.type == "cuda":
        yield _gpus()
    place = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    yield _disk(place, need, probe)
    yield _locks(place)
    if group.world > machine.processes(group.world):
        yield network()


def warn(folder: Path, group: Processes, need: Need) -> None:
    """Log what a run should not begin with; of other machines than the first, nothing."""
    for finding in look(folder, group, need):
        if finding.remedy:
            logger.warning("%s", finding)


def _cores(group: Processes, need: Need) -> Finding:
    mine, whole = machine.cores(), os.cpu_count() or 1
    loaders = counted(need.workers, "DataLoader worker")
    text = f"{mine} of {whole} cores for this process, {loaders}"
    if group.device.type == "cuda" and mine < CORES:
        return Finding(text, f"a GPU wants {CORES}; ask for more (Slurm: --cpus-per-task)")
    return Finding(text)


def _memory(need: Need) -> Finding:
    wanted = need.memory * machine.processes()
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return Finding(f"no {SHARED_MEMORY}; loading takes {_size(wanted)} of shared memory")
    text = f"{SHARED_MEMORY} has {_size(free)} left, loading takes {_size(wanted)}"
    short = "a container's: --shm-size; or lower data.workers, max_batch_per_gpu"
    return Finding(text, short if wanted > free else "")


def _gpus() -> Finding:
    seen, here = torch.cuda.device_count(), machine.processes()
    text = f"{counted(seen, 'GPU')} visible, {counted(here, 'process', 'es')} on this machine"
    idle = here < seen and not machine.by_srun()
    return Finding(text, f"torchrun --nproc_per_node={seen} takes all" if idle else "")


def _disk(place: Path, need: Need, probe: bool) -> Finding:
    free, wanted = shutil.disk_usage(place).free, need.state * (need.kept + 1)
    kept = f"{need.kept} checkpoints and the one being written take up to {_size(wanted)}"
    text = f"{_size(free)} free in {place}; {kept}"
    if probe and (speed := _write_speed(place)):
        text += f", written at {_size(speed)}/s"
    short = "make room, keep fewer (checkpoint.keep), or choose another --output"
    return Finding(text, short if wanted > free else "")


def _write_speed(place: Path) -> float | None:
    """Bytes a second, to the disk; None where nothing can be written."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=place) as file:
        begin = time.perf_counter()
        file.write(os.urandom(PROBE))
        file.flush()
        os.fsync(file.fileno())
        return PROBE / (time.perf_counter() - begin)
    return None


def _locks(place: Path) -> Finding:
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=place) as file:
        if error := lock_error(file):
            return Finding(
                f"no locks in {place} ({error})", "take care that two runs never share a folder"
            )
    return Finding("the folder can be locked against a second run")


def network(resolve: Callable[[str], str] = socket.gethostbyname) -> Finding:
    """The interface by which gloo reaches the other machines."""
    chosen = os.environ.get("GLOO_SOCKET_IFNAME")
    if chosen:
        return Finding(f"other machines by {chosen} (GLOO_SOCKET_IFNAME)")
    try:
        address = resolve(socket.gethostname())
    except OSError:
        address = "no address"
    text = f"other machines by the host name's address, {address}"
    useless = address == "no address" or address.startswith("127.")
    return Finding(text, "set GLOO_SOCKET_IFNAME to the interface, such as eth0" * useless)


def _size(count: float) -> str:
    """'1.5 GB', '20 MB'."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
