"""The device of a training: torch's global flags, memory format, precision, and DDP."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rfbench.errors import RfbenchError
from rfbench.models.colors import why_not
from rfbench.runs.checkpoint import random_state, set_random_state
from rfbench.runs.processes import Processes, lost, out_of_memory
from rfbench.training.state import Epochs

AMPERE = (8, 0)  # the compute capability from which a GPU has TensorFloat-32
SIDE = 224  # px of images on which other numbers of channels are tried


class Settings(Protocol):
    """The keys of a configuration that are read here."""

    @property
    def threads(self) -> int | None: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def compile(self) -> bool: ...
    @property
    def precision(self) -> str: ...


def set_up_device(config: Settings, group: Processes) -> None:
    """Set torch's global flags: fast or deterministic."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if group.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        set_tf32(precision(config, group.device) != "fp32")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def to_device(model: nn.Module, config: Settings, device: torch.device) -> nn.Module:
    """Move to the device and memory format, and compile if configured; keys of weights stay."""
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    if config.compile:
        model.compile(dynamic=False)  # once for each shape, the steps' at the warm-up pass
    return model


def precision(config: Settings, device: torch.device) -> str:
    """fp32, tf32 or bf16, as configured; auto is bf16 on a GPU and fp32 on a CPU."""
    if config.precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return available(config.precision, device)


def available(asked: str, device: torch.device) -> str:
    """The precision `asked`; fp32 in place of tf32 where the device has none."""
    if asked == "tf32" and not (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE
    ):
        return "fp32"
    return asked


def set_tf32(on: bool) -> None:
    """Whether float32 operations of GPUs may round their inputs to TensorFloat-32.

    torch's own defaults are no for matrices and yes for convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def autocast(config: Settings, device: torch.device) -> contextlib.AbstractContextManager:
    """A context for forward passes in the configuration's precision."""
    bf16 = precision(config, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def share_buffers(model: nn.Module, group: Processes) -> None:
    """Give every process the running statistics of the first, which the checkpoint stores."""
    if group.world > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


@contextlib.contextmanager
def evaluating(model: nn.Module, group: Processes) -> Iterator[None]:
    """A network in evaluation mode, without gradients, the same in all processes."""
    was_training = model.training
    model.eval()
    share_buffers(model, group)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def refuse_nan(loss: float, what: str) -> None:
    """Raise RfbenchError if a validation loss is NaN: the classes of NaN scores mean nothing.

    what: "images" or "pixels", whose scores are NaN. An infinite loss is no error: scores may be
    so sure of a wrong class.
    """
    if math.isnan(loss):
        raise RfbenchError(
            f"the network's scores of validation {what} are NaN, so they have no classes to "
            "measure. Lower optim.lr, or take -o precision=fp32 if this run is in bf16."
        )


def wrap(run: Epochs, loss: Callable[[nn.Module], Tensor], what: str) -> nn.Module:
    """The network, wrapped in DDP if there are several processes, after a discarded warm-up pass.

    DDP sums gradients in buckets and rebuilds these after the first backward pass of a process,
    which changes the order of summation: a resumed run would not be bit-equal. A backward pass
    before the first step gets this over with, in fresh and resumed runs alike. loss: of a few blank
    images, by the network or DDP around it. what: of the images, for the error.
    """
    model, device = run.network, run.group.device
    unused = run.group.alike(lambda: pass_once(run, lambda: loss(model), what))
    if run.group.world == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        model, devices, find_unused_parameters=bool(unused), gradient_as_bucket_view=False
    )
    # the buckets are rebuilt at the second forward pass
    pass_once(run, lambda: loss(wrapped), what, times=2)
    return wrapped


def pass_once(run: Epochs, loss: Callable[[], Tensor], what: str, times: int = 1) -> list[str]:
    """Forward and backward pass without effect; returns unused parameters.

    Raises RfbenchError if the network does not accept the images.
    """
    device = run.group.device
    state = random_state(device)
    buffers = [(b, b.clone()) for b in run.network.buffers()]
    run.network.train()
    try:
        for _ in range(times):
            loss().backward()
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            advice = run.split.memory_advice
            raise RfbenchError(f"the GPU is out of memory at the first pass. {advice}") from error
        if isinstance(error, RuntimeError) and lost(error, run.group.rank, run.group.world):
            raise  # not of the network
        why = why_not(run.network, (SIDE, SIDE), error)
        raise RfbenchError(f"{run.config.model} does not train on {what}: {why}") from error
    unused = [name for name, p in run.network.named_parameters() if p.grad is None]
    run.network.zero_grad(set_to_none=True)
    for buffer, saved in buffers:
        buffer.copy_(saved)
    set_random_state(state, device)
    return unused
