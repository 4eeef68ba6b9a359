"""The plan of a run (--dry-run), and the evaluation of a checkpoint (--eval-only)."""

from pathlib import Path
from typing import Any

import yaml

from rfbench.classify import network, problems
from rfbench.classify.consistency import consistency
from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.images import Images
from rfbench.classify.setup import described_lr
from rfbench.data.order import steps_per_epoch
from rfbench.errors import counted
from rfbench.runs import processes, surroundings
from rfbench.schemas.cls import ClsConfig
from rfbench.training import pruning, state
from rfbench.training.device import set_up_device, to_device
from rfbench.training.split import split


def describe(config: ClsConfig, folder: Path, check_weights: bool = True) -> str:
    """The resolved configuration, the changed layers, the data and the steps; writes nothing.

    Raises what a run would raise before its first step. check_weights: false for a run to be
    continued, which has passed these checks and no longer needs its initial weights.
    """
    with processes.started(config.device) as group:
        shares = group.alike(
            lambda: split(config.batch_size, group.world, config.max_batch_per_gpu)
        )
        data = group.alike(lambda: Images(config, group))
        if check_weights:
            group.alike(lambda: problems.refuse(config, data, shares))
        backbone = group.alike(lambda: network.build(config, len(data.set.classes), meta=True))
        if check_weights:
            network.refuse_ema_of_nothing(config)
            size = data.train_size
            group.alike(lambda: network.check_in_training(backbone.module, config, size))
        if config.init.weights and check_weights:
            names = data.set.classes
            group.alike(lambda: network.load_start(backbone, config, names, device="meta"))
        train = len(data.set.train)
        per_epoch = group.alike(lambda: steps_per_epoch(train, config.batch_size))
        steps = per_epoch * config.schedule.epochs
        group.alike(lambda: pruning.check(backbone.module, config.prune, steps, config.model))
        first = data.set.train.read(0).shape
        around = surroundings.look(folder, group, state.need(config, backbone, data, shares), True)
        found = [str(finding) for finding in around]
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
        f"device {group.device}",
        *found,
        f"would write to {folder}",
    ]
    return "\n".join(lines)


def evaluate_checkpoint(config: ClsConfig, path: str) -> dict[str, Any]:
    """Loss, top-1, top-5 and consistency of the weights in the file `path`."""
    with processes.started(config.device) as group:
        set_up_device(config, group)
        data = group.alike(lambda: Images(config, group, eval_only=True))
        group.alike(lambda: problems.refuse(config, data))
        backbone = group.alike(lambda: network.build(config, len(data.set.classes)))
        names, ema = data.set.classes, config.init.ema
        data.follow(group.alike(lambda: network.load(backbone, path, names, ema)))
        model = to_device(backbone.module, config, group.device)
        size = config.max_batch_per_gpu
        batches, rounds = data.val(size)
        images = (data.on_device(batch) for batch in batches)
        try:
            forward = network.scores_of(model, config)
            metrics = {
                **evaluate(model, images, rounds, group, forward),
                **consistency(model, data, config, size, group),
            }
        finally:
            data.close()
    return {
        "model": backbone.name,
        "variant": backbone.variant,
        "weights": path,
        "dataset": data.set.name,
        "bad_images": data.bad,
        **metrics,
    }


def line(result: dict[str, Any]) -> str:
    """The result of `evaluate_checkpoint` as a line of text."""
    bad = f", {len(result['bad_images'])} unreadable" if result["bad_images"] else ""
    return (
        f"{result['model']} / {result['variant']} on {result['dataset']}: {shown(result)} "
        f"({result['images']} images{bad})"
    )
