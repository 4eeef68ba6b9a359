"""What a run would be (--dry-run), and the evaluation of a checkpoint (--eval-only)."""

from pathlib import Path
from typing import Any

import torch
import yaml

from rfbench.classify import network
from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.images import Images
from rfbench.classify.setup import set_up_device, to_device
from rfbench.classify.split import split
from rfbench.data.order import updates_per_epoch
from rfbench.errors import counted
from rfbench.runs import processes
from rfbench.schemas.cls import ClsConfig


def describe(config: ClsConfig, folder: Path, check_weights: bool = True) -> str:
    """The resolved configuration, the changed layers, the data and the updates; writes nothing.

    Raises what a run would raise before its first update. check_weights: false where a run goes on,
    which needs those that it began with no more.
    """
    with processes.started(config.device) as group:
        shares = group.alike(
            lambda: split(config.batch_size, group.world, config.max_batch_per_gpu)
        )
        data = group.alike(lambda: Images(config, group))
        backbone = group.alike(lambda: network.build(config, len(data.set.classes), meta=True))
        if config.init.weights and check_weights:
            group.alike(lambda: network.load_start(backbone, config, device="meta"))
        train = len(data.set.train)
        per_epoch = group.alike(lambda: updates_per_epoch(train, config.batch_size))
        first = data.set.train.read(0).shape
    lines = [
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip(),
        "",
        f"{backbone.name} / {backbone.variant}: {len(backbone.replaced)} changed",
        *(f"  {name}" for name in backbone.replaced),
        f"{data.described()}; the first is {first[1]}x{first[0]} px",
        f"{per_epoch} updates an epoch, {per_epoch * config.schedule.epochs} in all; a batch of "
        f"{shares.batch} = {counted(shares.world, 'process', 'es')} x "
        f"{counted(shares.accumulation, 'pass', 'es')} x "
        f"{shares.micro} images (what a BatchNorm sees)",
        f"device {group.device}, {counted(data.workers, 'loading process', 'es')} each",
        f"would write to {folder}",
    ]
    return "\n".join(lines)


def evaluate_checkpoint(config: ClsConfig, path: str) -> dict[str, Any]:
    """Loss, top-1 and top-5 of the weights in the file `path`, of the configuration's network."""
    with processes.started(config.device) as group:
        set_up_device(config, group)
        data = group.alike(lambda: Images(config, group, eval_only=True))
        backbone = group.alike(lambda: network.build(config, len(data.set.classes)))
        group.alike(lambda: network.load(backbone, path))
        model = to_device(backbone.module, config, group.device)
        size = config.max_batch_per_gpu
        batches, rounds = data.val(size)
        images = (data.on_device(batch) for batch in batches)
        try:
            with torch.inference_mode():
                found = evaluate(model, images, rounds, group, network.scores_of(model, config))
        finally:
            data.close()
    return {
        "model": backbone.name,
        "variant": backbone.variant,
        "weights": path,
        "dataset": data.set.name,
        "bad_pictures": data.bad,
        **found,
    }


def line(found: dict[str, Any]) -> str:
    """What `evaluate_checkpoint` found, for people."""
    bad = f", {len(found['bad_pictures'])} unreadable" if found["bad_pictures"] else ""
    return (
        f"{found['model']} / {found['variant']} on {found['dataset']}: {shown(found)} "
        f"({found['pictures']} images{bad})"
    )
