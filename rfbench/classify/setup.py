"""Everything before the first step: images, network, optimizer, processes, checkpoint."""

import logging
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rfbench.classify import ema, network
from rfbench.classify.images import Images
from rfbench.classify.run import Run, restore
from rfbench.classify.split import split
from rfbench.data.order import steps_per_epoch
from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.models import pruning, weight_files
from rfbench.runs import checkpoint, loop, records
from rfbench.runs.checkpoint import random_state, set_random_state
from rfbench.runs.processes import Processes
from rfbench.runs.state import Start
from rfbench.schemas.cls import ClsConfig, paper_lr

logger = logging.getLogger(__name__)


def setup(config: ClsConfig, start: Start) -> Run:
    """A run ready for its next step: the first, or the one after the checkpoint of `start`."""
    group, content = start.group, start.content
    set_up_device(config, group)
    logger.info(described_lr(config))
    data = group.alike(lambda: Images(config, group))
    logger.info(data.described())
    shares = group.alike(lambda: split(config.batch_size, group.world, config.max_batch_per_gpu))
    backbone = group.alike(lambda: network.build(config, len(data.set.classes)))
    names = data.set.classes
    if content is not None:
        data.follow(group.alike(lambda: same_data(start, data)))
    elif config.init.weights:
        data.follow(group.alike(lambda: network.load_start(backbone, config, names)))
        network.warn_of_no_variant(config)
    elif config.init.ema:
        raise UsageError("init.ema needs init.weights, a file that holds EMA weights")
    model = to_device(backbone.module, config, group.device)
    per_epoch = group.alike(lambda: steps_per_epoch(len(data.set.train), config.batch_size))
    steps = per_epoch * config.schedule.epochs
    group.alike(lambda: pruning.check(model, config.prune, steps, config.model))
    run = Run(
        config=config,
        start=start,
        data=data,
        backbone=backbone,
        split=shares,
        optimizer=network.optimizer(model, config.optim),
        per_epoch=per_epoch,
        wrapped=model,
        parent=records.parent(config.init.weights),
        pruning=None if config.prune is None else pruning.Pruning(model, config.prune),
    )
    run.wrapped = wrap(run)
    # from here on every process draws its own random numbers, as for dropout
    torch.manual_seed(1_000_003 * config.seed + group.rank)
    ema.start(run)
    if content is not None:
        with checkpoint.restoring(start.folder):
            restore(run, content)
    loop.begin(run, steps, backbone.variant)
    return run


def same_data(start: Start, data: Images) -> list[str] | None:
    """The classes of a run's checkpoint, if it tells them; raises if the data are others now."""
    content, path = start.content or {}, start.folder / checkpoint.LAST
    now = {"pictures": data.counts}
    checkpoint.same_numbers(start.folder, {"pictures": content.get("pictures")}, now)
    classes = content.get("classes")
    if not isinstance(classes, list):
        return None
    weight_files.compare_classes(classes, data.set.classes, str(path))
    return classes


def described_lr(config: ClsConfig) -> str:
    """'learning rate 0.0125 for batches of 32 images (sgd): the paper's 1.6 for 4,096 ...'."""
    peak, optim = config.optim.peak, config.optim.name
    rule = optim == "sgd" and peak == paper_lr(config.batch_size)
    why = ": the paper's 1.6 for 4,096, in proportion" if rule else ""
    return f"learning rate {peak:g} for batches of {config.batch_size} images ({optim}){why}"


def set_up_device(config: ClsConfig, group: Processes) -> None:
    """Set torch's global flags: fast or deterministic."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if group.device.type == "cuda":
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.set_float32_matmul_precision("high")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def to_device(model: nn.Module, config: ClsConfig, device: torch.device) -> nn.Module:
    """Move to the device and memory format, and compile if configured; keys of weights stay."""
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    if config.compile:
        model.compile()
    return model


def wrap(run: Run) -> nn.Module:
    """The network, wrapped in DDP if there are several processes, after a discarded warm-up pass.

    DDP sums gradients in buckets and rebuilds these after the first backward pass of a process,
    which changes the order of summation: a resumed run would not be bit-equal. A backward pass
    before the first step gets this over with, in fresh and resumed runs alike.
    """
    model, device = run.network, run.group.device
    unused = run.group.alike(lambda: pass_once(run, model))
    if run.group.world == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        model, devices, find_unused_parameters=bool(unused), gradient_as_bucket_view=False
    )
    pass_once(run, wrapped, times=2)  # the buckets are rebuilt at the second forward pass
    return wrapped


def pass_once(run: Run, model: nn.Module, times: int = 1) -> list[str]:
    """Forward and backward pass of blank images, without effect; returns unused parameters.

    Raises RfbenchError if the network does not accept the images.
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
        raise RfbenchError(f"{config.model} does not train on {size} px images: {what}") from error
    unused = [name for name, p in run.network.named_parameters() if p.grad is None]
    run.network.zero_grad(set_to_none=True)
    for buffer, saved in buffers:
        buffer.copy_(saved)
    set_random_state(state, device)
    return unused


def zeros(scores: Tensor) -> Tensor:
    """Label 0 for each of (N, C) scores."""
    return torch.zeros(len(scores), dtype=torch.long, device=scores.device)
