"""A whole run: its folder, its end by success, signal or error, and its record."""

import logging
from pathlib import Path
from typing import Any

from rfbench import files
from rfbench.errors import one_line
from rfbench.models import backbones, pruned, variants
from rfbench.rf.core import recorded
from rfbench.runs import checkpoint, loop, progress
from rfbench.schemas.seg import SegConfig
from rfbench.segment import curves, network, show
from rfbench.segment.run import Run, save
from rfbench.segment.setup import setup
from rfbench.segment.train import train
from rfbench.training import ema, epochs
from rfbench.training.device import precision

logger = logging.getLogger(__name__)

CURVES = "curves.png"


def folder_of(config: SegConfig) -> Path:
    """results/seg-<data>-<model>-<head>-<variant>-s<seed>."""
    name, model = variants.get(network.variant_of(config)).name, config.network.rpartition(":")[2]
    head = [] if config.head == "own" else [config.head]
    return files.default_folder("seg", config.data.name, model, *head, name, f"s{config.seed}")


def fit(
    config: SegConfig, folder: Path, resume: bool, overwrite: bool
) -> tuple[dict[str, Any] | None, int]:
    """Train to the end, or to a signal. Returns (the record, or None; exit code: 0 or 130)."""
    made = (CURVES, f"{show.FOLDER}/*")
    with loop.opened(config, folder, resume, overwrite, made, network.FORMAT) as start:
        if start.record:
            return start.record, 0
        run = setup(config, start)
        try:
            return loop.to_the_end(run, train, save, finish, run.split.memory_advice)
        finally:
            run.data.close()


def finish(run: Run) -> dict[str, Any]:
    """Write curves, drawings and record."""
    return epochs.finish(run, write)


def write(run: Run, bad: dict[str, Any]) -> dict[str, Any]:
    """Write curves, drawings and the record; called by the first process."""
    title = f"{run.backbone.name} / {run.backbone.variant}, {run.data.set.name}"
    names = ["config.yaml", progress.METRICS, checkpoint.LAST, checkpoint.BEST, CURVES]
    lines = progress.read_metrics(run.folder)
    try:
        curves.draw(lines, title, run.per_epoch, run.folder / CURVES)
        model = ema.averaged(run) or run.network
        names += show.draw(model, run.config, run.data, run.folder, run.config.visualize)
    except (LookupError, TypeError, ValueError) as error:  # the result must not be lost
        logger.warning("curves or predictions could not be drawn: %s", one_line(error))
    return loop.write_record(run, "seg", {**record(run), **bad, "files": names})


def built(run: Run) -> backbones.Backbone:
    """The network below the head again, without memory, to be measured."""
    variant = network.variant_of(run.config)
    backbone = backbones.build(run.config.network, variant, meta=True)
    if run.pruning is not None:  # its field is that of the taps that are left
        below = "" if run.config.head == "own" else network.BELOW
        state = run.network.state_dict()
        held = {k.removeprefix(below): v for k, v in state.items() if k.startswith(below)}
        backbone.module = pruned.shown(backbone.module, held)
    return backbone


def record(run: Run) -> dict[str, Any]:
    """The fields of the record that are specific to segmentation."""
    config, split, data = run.config, run.split, run.data
    parameters = list(run.network.parameters())
    return {
        "model": run.backbone.name,
        "variant": run.backbone.variant,
        "head": config.head,
        "replaced": run.backbone.replaced,
        "parameters": sum(p.numel() for p in parameters),
        "nonzero": pruned.nonzero(run.network),
        # of the network below the head; its map is what the head reads
        "network": recorded.for_record(lambda: built(run), data.crop),
        "dataset": config.data.name,
        "classes": len(data.set.classes),
        "input": {"crop": list(data.crop), "scale": list(data.scale), "flip": data.flip},
        "images": data.counts,
        "epochs": run.epoch,
        "lr": config.optim.peak,
        "batch": {
            "global": split.batch,
            "world_size": split.world,
            "accumulation": split.accumulation,
            "per_batchnorm": split.micro,
        },
        "precision": precision(config, run.group.device),
    }
