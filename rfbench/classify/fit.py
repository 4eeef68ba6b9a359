"""A whole run: its folder, its end by success, signal or error, and its record."""

import logging
from pathlib import Path
from typing import Any

from rfbench import files
from rfbench.classify import curves, network
from rfbench.classify.run import Run, save
from rfbench.classify.setup import setup
from rfbench.classify.train import train
from rfbench.errors import one_line
from rfbench.models import pruned, variants
from rfbench.models.backbones import Backbone
from rfbench.rf.core import recorded
from rfbench.runs import checkpoint, loop, progress
from rfbench.schemas.cls import ClsConfig
from rfbench.training import epochs
from rfbench.training.device import precision

logger = logging.getLogger(__name__)

CURVES = "curves.png"


def folder_of(config: ClsConfig) -> Path:
    """results/cls-<data>-<model>-<variant>-s<seed>."""
    variant = config.variant if isinstance(config.variant, str) else config.variant.model_dump()
    name, model = variants.get(variant).name, config.network.rpartition(":")[2]
    return files.default_folder("cls", config.data.name, model, name, f"s{config.seed}")


def fit(
    config: ClsConfig, folder: Path, resume: bool, overwrite: bool
) -> tuple[dict[str, Any] | None, int]:
    """Train to the end, or to a signal. Returns (the record, or None; exit code: 0 or 130)."""
    with loop.opened(config, folder, resume, overwrite, (CURVES,)) as start:
        if start.record:
            return start.record, 0
        run = setup(config, start)
        try:
            return loop.to_the_end(run, train, save, finish, run.split.memory_advice)
        finally:
            run.data.close()


def finish(run: Run) -> dict[str, Any]:
    """Write curves and record."""
    return epochs.finish(run, write)


def write(run: Run, bad: dict[str, Any]) -> dict[str, Any]:
    """Write the curves and the record; called by the first process."""
    title = f"{run.backbone.name} / {run.backbone.variant}, {run.data.set.name}"
    lines = progress.read_metrics(run.folder)
    try:
        curves.draw(lines, title, run.per_epoch, run.folder / CURVES)
    except (LookupError, TypeError, ValueError) as error:  # the result must not be lost
        logger.warning("curves could not be drawn: %s", one_line(error))
    return loop.write_record(run, "cls", {**record(run), **bad})


def built(run: Run) -> Backbone:
    """The network again, without memory, to be measured."""
    backbone = network.build(run.config, len(run.data.set.classes), meta=True)
    if run.pruning is not None:  # its field is that of the taps that are left
        backbone.module = pruned.shown(backbone.module, run.network.state_dict())
    return backbone


def record(run: Run) -> dict[str, Any]:
    """The fields of the record that are specific to classification."""
    config, split = run.config, run.split
    return {
        "model": run.backbone.name,
        "variant": run.backbone.variant,
        "replaced": run.backbone.replaced,
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "nonzero": pruned.nonzero(run.network),
        "network": recorded.for_record(lambda: built(run), (run.data.image_size,) * 2),
        "dataset": config.data.name,
        "input": {
            "size": run.data.image_size,
            "augment": run.data.augment,
            "flip": run.data.flip,
            "crop_ratio": run.data.crop_ratio,
        },
        "images": run.data.counts,
        "fix": run.fixed or None,
        "epochs": config.schedule.epochs,
        "lr": run.optimizer.defaults["lr"],
        "batch": {
            "global": split.batch,
            "world_size": split.world,
            "accumulation": split.accumulation,
            "per_batchnorm": split.micro,
        },
        "precision": precision(config, run.group.device),
        "files": ["config.yaml", progress.METRICS, checkpoint.LAST, checkpoint.BEST, CURVES],
    }
