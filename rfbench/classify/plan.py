"""The plan of a run (--dry-run), and the evaluation of a checkpoint (--eval-only)."""

from pathlib import Path
from typing import Any

import torch
import yaml

from rfbench.classify import network
from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.images import Images
from rfbench.classify.setup import described_lr, set_up_device, to_device
from rfbench.classify.split import split
from rfbench.data.order import steps_per_epoch
from rfbench.errors import counted
from rfbench.models import pruning
from rfbench.runs import processes
from rfbench.schemas.cls import ClsConfig


def describe(config: ClsConfig, folder: Path, check_weights: bool = True) -> str:
    """The resolved configuration, the changed layers, the data and the steps; writes nothing.

    Raises what a run would raise before its first step. check_weights: false for a run to be
    continued, which no longer needs its initial weights.
    """
    with processes.started(config.device) as group:
        shares = group.alike(
            lambda: split(config.batch_size, group.world, config.max_batch_per_gpu)
        )
        data = group.alike(lambda: Images(config, group))
        backbone = group.alike(lambda: network.build(config, len(data.set.classes), meta=True))
        if config.init.weights and check_weights:
            names = data.set.classes
            group.alike(lambda: network.load_start(backbone, config, names, device="meta"))
        train = len(data.set.train)
        per_epoch = group.alike(lambda: steps_per_epoch(train, config.batch_size))
        steps = per_epoch * config.schedule.epochs
        group.alike(lambda: pruning.check(backbone.module, config.prune, steps, config.model))
        first = data.set.train.read(0).shape
    lines = [
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip(),
        "",
        f"{backbone.name} / {backbone.variant}: {len(backbone.replaced)} changed",
        *(f"  {name}" for name in backbone.replaced),
        described_lr(config),
        f"{data.described()}; the first is {first[1]}x{first[0]} px",
        f"{per_epoch} steps per epoch, {steps} in all; a batch of "
        f"{shares.batch} = {counted(shares.world, 'process', 'es')} x "
        f"{counted(shares.accumulation, 'pass', 'es')} x "
        f"{shares.micro} images (per BatchNorm batch)",
        f"device {group.device}, {counted(data.workers, 'DataLoader worker')} each",
        f"would write to {folder}",
    ]
    return "\n".join(lines)


def evaluate_checkpoint(config: ClsConfig, path: str) -> dict[str, Any]:
    """Loss, top-1 and top-5 of the weights in the file `path`, of the configuration's network."""
    with processes.started(config.device) as group:
        set_up_device(config, group)
        data = group.alike(lambda: Images(config, group, eval_only=True))
        backbone = group.alike(lambda: network.build(config, len(data.set.classes)))
        names, ema = data.set.classes, config.init.ema
        data.follow(group.alike(lambda: network.load(backbone, path, names, ema)))
        model = to_device(backbone.module, config, group.device)
        size = config.max_batch_per_gpu
        batches, rounds = data.val(size)
        images = (data.on_device(batch) for batch in batches)
        try:
            with torch.inference_mode():
                metrics = evaluate(model, images, rounds, group, network.scores_of(model, config))
        finally:
            data.close()
    return {
        "model": backbone.name,
        "variant": backbone.variant,
        "weights": path,
        "dataset": data.set.name,
        "bad_pictures": data.bad,
        **metrics,
    }


def line(result: dict[str, Any]) -> str:
    """The result of `evaluate_checkpoint` as a line of text."""
    bad = f", {len(result['bad_pictures'])} unreadable" if result["bad_pictures"] else ""
    return (
        f"{result['model']} / {result['variant']} on {result['dataset']}: {shown(result)} "
        f"({result['pictures']} images{bad})"
    )
