"""Everything before the first update: pictures, network, optimizer, processes, checkpoint."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rfbench.classify import network
from rfbench.classify.images import Pictures
from rfbench.classify.run import Run, random_state, set_random_state
from rfbench.classify.split import split
from rfbench.data.order import updates_per_epoch
from rfbench.errors import RfbenchError, one_line
from rfbench.runs import records
from rfbench.runs.processes import Processes, Signals
from rfbench.runs.progress import Clock, Log, bar
from rfbench.schemas.cls import ClsConfig


def prepare(
    config: ClsConfig,
    folder: Path,
    group: Processes,
    signals: Signals,
    content: dict[str, Any] | None,
    note: Callable[[str], object],
) -> Run:
    """A run ready for its next update: the first, or that after the checkpoint `content`."""
    set_up_device(config, group)
    data = group.alike(lambda: Pictures(config, group))
    note(data.described())
    shares = group.alike(lambda: split(config.batch_size, group.world, config.max_batch_per_gpu))
    backbone = group.alike(lambda: network.build(config, len(data.set.classes)))
    if content is None and config.init.weights:
        group.alike(lambda: network.load_start(backbone, config, note))
    model = place(backbone.module, config, group.device)
    run = Run(
        config,
        folder,
        group,
        data,
        backbone,
        shares,
        network.optimizer(model, config.optim),
        signals,
        group.alike(lambda: updates_per_epoch(len(data.set.train), config.batch_size)),
        wrapped=model,
        parent=records.parent(config.init.weights),
    )
    run.wrapped = wrap(run)
    # every process its own, from here on: dropout and the like
    torch.manual_seed(1_000_003 * config.seed + group.rank)
    if content is not None:
        run.restore(content, note)
    if group.first:
        run.log = Log(folder, content["lines"] if content else 0, config.tensorboard)
    run.clock = Clock(run.clock.before)
    updates = run.per_epoch * config.schedule.epochs
    run.bar = bar(updates, run.step, backbone.variant, group.first)
    return run


def set_up_device(config: ClsConfig, group: Processes) -> None:
    """torch's switches: fast, or deterministic."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if group.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.set_float32_matmul_precision("high")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def place(model: nn.Module, config: ClsConfig, device: torch.device) -> nn.Module:
    """Onto the device, in its memory format, compiled if wanted; the names of weights stay."""
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    if config.compile:
        model.compile()
    return model


def wrap(run: Run) -> nn.Module:
    """The network, in DDP where there are several processes; passed through once, unchanged.

    DDP sums gradients in buckets, and sets these up anew after the first backward of each process,
    which changes the order of summation: a resumed run would not end bit-equal. A backward with
    discarded gradients before the first update has that behind it, in fresh and resumed runs alike.
    """
    model, device = run.network, run.group.device
    unused = run.group.alike(lambda: pass_once(run, model))
    if run.group.world == 1:
        return model
    places = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        model, places, find_unused_parameters=bool(unused), gradient_as_bucket_view=False
    )
    pass_once(run, wrapped, times=2)  # the buckets are set up at the second forward
    return wrapped


def pass_once(run: Run, model: nn.Module, times: int = 1) -> list[str]:
    """Forward and backward of grey pictures that leave no trace; returns parameters without use.

    Raises RfbenchError where the network does not take the pictures.
    """
    config, device = run.config, run.group.device
    state = random_state(device)
    buffers = [(b, b.clone()) for b in run.network.buffers()]
    size = run.data.image_size
    images = torch.zeros(min(2, run.split.micro), size, size, 3, device=device).permute(0, 3, 1, 2)
    if not config.channels_last:
        images = images.contiguous()
    run.network.train()
    try:
        for _ in range(times):
            scores = network.scores_of(model, config)(images)
            F.cross_entropy(scores.float(), zeros(scores)).backward()
    except (RuntimeError, ValueError, TypeError) as error:
        what = one_line(error)
        raise RfbenchError(
            f"{config.model} does not train on {size} px pictures: {what}"
        ) from error
    unused = [name for name, p in run.network.named_parameters() if p.grad is None]
    run.network.zero_grad(set_to_none=True)
    for buffer, held in buffers:
        buffer.copy_(held)
    set_random_state(state, device)
    return unused


def zeros(scores: Tensor) -> Tensor:
    """The first class for each of (N, C) scores."""
    return torch.zeros(len(scores), dtype=torch.long, device=scores.device)
