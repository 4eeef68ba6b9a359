"""The plan of a run (--dry-run), and the evaluation of a checkpoint (--eval-only)."""

import contextlib
from pathlib import Path
from typing import Any

import yaml

from rfbench import files
from rfbench.data.order import steps_per_epoch
from rfbench.errors import counted
from rfbench.runs import processes, surroundings
from rfbench.schemas.seg import SegConfig
from rfbench.segment import network, show, tries
from rfbench.segment.evaluate import evaluate, shown
from rfbench.segment.images import Images
from rfbench.training import pruning, state
from rfbench.training.device import set_up_device, to_device
from rfbench.training.split import split


def describe(config: SegConfig, folder: Path, check_weights: bool = True) -> str:
    """The resolved configuration, the changed layers, the data and the steps; writes nothing.

    Raises what a run would raise before its first step. check_weights: false for a run to be
    continued, which no longer needs its initial weights.
    """
    with processes.started(config.device) as group:
        shares = group.alike(
            lambda: split(config.batch_size, group.world, config.max_batch_per_gpu)
        )
        data = group.alike(lambda: Images(config, group))
        names = data.set.classes
        backbone = group.alike(lambda: network.build(config, len(names)))
        group.alike(lambda: network.weights_of_classes(config, names))
        if check_weights:
            group.alike(lambda: network.load_start(backbone, config, check=True))
        group.alike(lambda: tries.crop(backbone.module, config, data))
        data.check_masks()
        group.alike(lambda: tries.whole(backbone.module, config, data))
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
        f"{data.described()}; the first is {first[1]}x{first[0]} px",
        f"classes: {', '.join(names)}",
        f"{per_epoch} steps per epoch, {steps} in all; a batch of "
        f"{shares.batch} = {counted(shares.world, 'process', 'es')} x "
        f"{counted(shares.accumulation, 'pass', 'es')} x "
        f"{shares.micro} images (per BatchNorm batch)",
        f"device {group.device}",
        *found,
        f"would write to {folder}",
    ]
    return "\n".join(lines)


def evaluate_checkpoint(config: SegConfig, path: str, folder: Path) -> dict[str, Any]:
    """The figures of the weights in the file `path`, of the configuration's network.

    `visualize` images of predictions are drawn in `folder`; "files" names them.
    """
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes.started(config.device))
        set_up_device(config, group)
        data = group.alike(lambda: Images(config, group, eval_only=True))
        stack.callback(data.close)
        names = data.set.classes
        backbone = group.alike(lambda: network.build(config, len(names)))
        data.follow(group.alike(lambda: network.load(backbone, config, path, names)))
        data.check_masks()
        group.alike(lambda: tries.whole(backbone.module, config, data))
        model = to_device(backbone.module, config, group.device)
        batches, rounds = data.val(data.val_batch(config.max_batch_per_gpu))
        images = (data.on_device(batch) for batch in batches)
        forward = network.scores_of(model, config, len(names))
        metrics = evaluate(model, images, rounds, group, forward, data.set, jitter=config.jitter)
        written: list[str] = []
        if config.visualize:
            group.by_first(lambda: files.open_folder(folder, keep=True))
            many = config.visualize
            written = group.by_first(lambda: show.draw(model, config, data, folder, many))
    return {
        **network.name_of(config, backbone),
        "weights": path,
        "dataset": data.set.name,
        "bad_images": data.bad,
        **metrics,
        "files": written,
    }


def line(result: dict[str, Any]) -> str:
    """The result of `evaluate_checkpoint` as a line of text."""
    bad = f", {len(result['bad_images'])} unreadable" if result["bad_images"] else ""
    return (
        f"{result['model']} / {result['variant']} / {result['head']} on {result['dataset']}: "
        f"{shown(result)} ({result['images']} images{bad})"
    )
