"""The processes of a run: one per GPU, started by torchrun or srun, or a single one.

They agree through a group on the CPU, so that no GPU waits.
"""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rfbench.errors import FailedElsewhere, RfbenchError, UsageError, one_line, suggest
from rfbench.runs.launcher import end_with_launcher

Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=30)
DEVICES = ("auto", "cpu", "cuda")
INTERFACE = (
    "On machines with several networks, GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME) name the "
    "interface, such as eth0."
)


@dataclass(frozen=True)
class Processes:
    """This process, and how it communicates with the others of the run."""

    device: torch.device
    rank: int = 0
    world: int = 1
    control: Any = None  # the group on the CPU; None: a single process

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The sums of `values` over all processes."""
        if self.control is None:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control)
        return tensor.tolist()

    def largest(self, value: int) -> int:
        """The largest `value` of all processes."""
        if self.control is None:
            return value
        tensor = torch.tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return int(tensor)

    def vote(self, value: int) -> Callable[[], int]:
        """A function that waits for the largest `value` of all processes; this one waits for none.

        To be called by all of them, and in the same order as whatever else they exchange.
        """
        if self.control is None:
            return lambda: value
        tensor = torch.tensor(value)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control, async_op=True)

        def result() -> int:
            work.wait()
            return int(tensor)

        return result

    def fail_together(self, failure: BaseException | None) -> None:
        """Raise in every process if one of them failed: its error there, FailedElsewhere here."""
        if self.largest(bool(failure)):
            raise failure or FailedElsewhere

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, by rank, in every process."""
        values = [value] * self.world
        if self.control is not None:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def by_first(self, call: Callable[[], Result]) -> Result:
        """The result of `call()`, made by the first process alone, in all processes.

        If it fails, the first process raises its error and the others FailedElsewhere.
        """
        result, error = [None], None
        if self.first:
            try:
                result = [call()]  # type: ignore[list-item]
            except (RfbenchError, OSError) as caught:
                error = caught
        if self.largest(error is not None):
            raise error or FailedElsewhere
        if self.control is not None:
            dist.broadcast_object_list(result, src=0, group=self.control)
        return result[0]  # type: ignore[return-value]

    def in_turn(self, call: Callable[[], Result]) -> Result:
        """`alike`, on each machine by its first process before the others: for what is downloaded
        into a cache of the machine.
        """
        leads = _number("LOCAL_RANK", 0) == 0
        led = self.alike(lambda: [call()] if leads else [])
        return self.alike(lambda: led[0] if leads else call())

    def alike(self, call: Callable[[], Result]) -> Result:
        """`call()` in every process; if some fail, the first of them raises its error.

        The others raise FailedElsewhere.
        """
        error: Exception | None = None
        try:
            result = call()
        except (RfbenchError, OSError) as caught:
            error = caught
        failed = self.gather(error is not None)
        if any(failed):
            code = max(self.gather(getattr(error, "exit_code", 1)))
            if error is not None and failed.index(True) == self.rank:
                raise error
            raise FailedElsewhere(code)
        return result


@contextlib.contextmanager
def started(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun or srun started (RANK, WORLD_SIZE, MASTER_ADDR, ...)."""
    world, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    own = device_of(device, _number("LOCAL_RANK", 0))
    if world == 1:
        yield Processes(own)
        return
    end_with_launcher()
    ended = False
    try:
        yield _joined(own, rank, world)
        ended = True
    except RuntimeError as error:
        if told := lost(error, rank, world):
            raise told from error
        raise
    finally:
        if dist.is_initialized():
            _leave(own, ended)


def _leave(own: torch.device, ended: bool) -> None:
    """Leave the others. ended: whether all have done all that they exchange."""
    if not ended and own.type == "cuda":
        # NCCL would first wait for what is queued, in which the others may never take part: after
        # an error, such as too little memory on one GPU, nobody would end
        with contextlib.suppress(RuntimeError):
            dist.group.WORLD._get_backend(own).abort()  # type: ignore[union-attr]
        return
    dist.destroy_process_group()
    # gloo's thread may still want the GIL, to free the tensors of the last exchange; the group's
    # destructor waits for that thread with the GIL held, and would wait for ever
    time.sleep(0.1)


def _joined(own: torch.device, rank: int, world: int) -> Processes:
    """This process among the others, once it has heard from each of them."""
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=TIMEOUT))
        _same_kind(dist.PrefixStore("devices", store), own, rank, world)
        kind = "nccl" if own.type == "cuda" else "gloo"
        dist.init_process_group(kind, timeout=TIMEOUT, world_size=world, rank=rank, store=store)
        control = dist.new_group(backend="gloo") if own.type == "cuda" else dist.group.WORLD
        group = Processes(own, rank, world, control)
        group.largest(0)
    except (ValueError, RuntimeError) as error:
        why = one_line(error)
        raise RfbenchError(
            f"process {rank} of {world} cannot join the others: {why}. Start the run with "
            f"torchrun. {INTERFACE}"
        ) from error
    return group


def _same_kind(store: dist.Store, own: torch.device, rank: int, world: int) -> None:
    """Raise RfbenchError where some have a GPU and others none: they would wait for each other."""
    store.set(str(rank), own.type)
    kinds = [store.get(str(other)).decode() for other in range(world)]
    # rank 0 serves the store, and ends with it: not before the others have read
    store.set(f"{rank} has read", "")
    if rank == 0:
        store.wait([f"{other} has read" for other in range(world)])
    without = [other for other, kind in enumerate(kinds) if kind == "cpu"]
    if without and len(without) < world:
        raise RfbenchError(
            f"rank {without[0]} of {world} sees no GPU, and others do: check the driver of its "
            "machine and CUDA_VISIBLE_DEVICES, or use --device cpu."
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise UsageError(f"environment variable {name} is {text!r}, not a number.")
    return int(text)


def device_of(name: str, local_rank: int = 0) -> torch.device:
    """One of DEVICES; a GPU becomes the current one. Raises RfbenchError where it is not there."""
    if name not in DEVICES:
        near = suggest(name, DEVICES) or f" There are: {', '.join(DEVICES)}."
        raise UsageError(f"unknown device '{name}'.{near}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    # `srun --gpus-per-task=1` shows each process its own GPU only; torchrun shows all of them
    if gpus == 1 and "LOCAL_WORLD_SIZE" not in os.environ:
        local_rank = 0
    if not gpus:
        raise RfbenchError("torch finds no GPU on this machine. Use --device cpu.")
    if local_rank >= gpus:
        raise RfbenchError(
            f"process {local_rank} of this machine has no GPU: there are {gpus}. "
            f"Start as many processes as GPUs, or use --device cpu."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU had too little memory: torch's allocator, the driver or a library says so."""
    text = str(error)
    of_driver = "CUDA error: out of memory" in text or "_STATUS_ALLOC_FAILED" in text
    return isinstance(error, torch.OutOfMemoryError) or of_driver


def lost(error: RuntimeError, rank: int, world: int) -> RfbenchError | None:
    """What an error of the network or of NCCL means to a user; None for any other error."""
    text = str(error)
    if "NCCL" in text:
        why = one_line(text.rpartition("Last error:")[2] or text)
        return RfbenchError(
            f"rank {rank} of {world}: the GPUs cannot communicate: {why}. Each process needs a GPU "
            f"of its own; NCCL_DEBUG=INFO tells more. {INTERFACE}"
        )
    if "gloo" in text:  # the only sign of a killed process
        return RfbenchError(
            f"rank {rank} of {world} lost contact with another rank; check its log, and whether it "
            "was killed (for lack of memory, say). --resume continues from the last checkpoint."
        )
    return None


def device_name(device: torch.device) -> str:
    """'NVIDIA H100 80GB HBM3', or the processor's kind and the threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"
