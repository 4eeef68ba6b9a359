"""A whole run: its folder, its end by success, signal or error, and its record."""

import contextlib
import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import torch

from rfbench import files
from rfbench.detect import config as configs
from rfbench.detect import evaluate, show
from rfbench.detect.run import FORMAT, Run, save
from rfbench.detect.setup import local_group, setup
from rfbench.detect.train import train
from rfbench.errors import one_line
from rfbench.models import backbones
from rfbench.rf.core import recorded
from rfbench.runs import checkpoint, loop, progress, records
from rfbench.schemas.det import DetConfig
from rfbench.training.device import available

logger = logging.getLogger(__name__)


def folder_of(config: DetConfig) -> Path:
    """results/det-<detector>-<data>-<model>-<variant>-s<seed>."""
    detector = Path(config.detector).stem.partition("_R_")[0]
    model = config.network.rpartition(":")[2]
    variant = configs.variant_name(config)
    return files.default_folder(
        "det", detector, config.data.name, model, variant, f"s{config.seed}"
    )


def fit(
    config: DetConfig, folder: Path, resume: bool, overwrite: bool
) -> tuple[dict[str, Any] | None, int]:
    """Train to the end, or to a signal. Returns (the record, or None; exit code: 0 or 130)."""
    made = (f"{evaluate.FOLDER}/*", f"{show.FOLDER}/*")
    with (
        loop.opened(config, folder, resume, overwrite, made, FORMAT) as start,
        local_group(start.group),
    ):
        if start.record:
            return start.record, 0
        run = setup(config, start)
        memory = (
            f"Of {run.cfg.SOLVER.IMS_PER_BATCH // start.group.world} images per process: lower "
            "opts.SOLVER.IMS_PER_BATCH, with opts.SOLVER.BASE_LR."
        )
        return loop.to_the_end(run, train, save, finish, memory)


def finish(run: Run) -> dict[str, Any]:
    """Draw predictions and write the record, which is written even if drawing fails."""
    return run.group.by_first(lambda: write(run))


def write(run: Run) -> dict[str, Any]:
    """Write the drawings and the record; called by the first process."""
    names = ["config.yaml", progress.METRICS, checkpoint.LAST, checkpoint.BEST]
    names.append(f"{evaluate.FOLDER}/{evaluate.RESULTS}")
    if run.config.visualize:
        try:
            names += show.draw(run.cfg, run.folder, run.config.visualize)
        except Exception as error:  # the results of a long run must not be lost
            logger.warning("predictions could not be drawn: %s", one_line(error))
    return loop.write_record(run, "det", {**record(run), "files": names})


def record(run: Run) -> dict[str, Any]:
    """The fields of the record that are specific to detection."""
    config, cfg, sets = run.config, run.cfg, run.sets
    parameters = list(run.model.parameters())
    bottom: Any = run.model.get_submodule("backbone.bottom_up")
    return {
        "detector": config.detector,
        "model": bottom.name,
        "variant": configs.variant_name(config),
        "replaced": bottom.replaced,
        "parameters": sum(p.numel() for p in parameters),
        "network": recorded.for_record(
            lambda: backbones.build(config.model, configs.variant_name(config), meta=True)
        ),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "dataset": config.data.name,
        "classes": len(sets["val"].categories),
        "images": {part: sets[part].images for part in sets},
        "objects": {part: sets[part].objects for part in sets},
        "eval": config.eval,
        "lr": cfg.SOLVER.BASE_LR,
        "batch": {
            "global": cfg.SOLVER.IMS_PER_BATCH,
            "world_size": run.group.world,
            "per_batchnorm": cfg.SOLVER.IMS_PER_BATCH // run.group.world,
        },
        "scaled": configs.scaling(cfg, config),
        "memory": peak(run.group.device),
        "precision": available(config.precision, run.group.device),
        "versions": {**records.versions(), **versions()},
        "differs": configs.difference(cfg, configs.stock(config.detector)),
    }


def peak(device: torch.device) -> int | None:
    """The peak memory of this process on the GPU, in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def versions() -> dict[str, str]:
    """Versions of the packages that affect the metrics of a detection."""
    installed = {}
    for name in ("detectron2", "pycocotools", "faster-coco-eval"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
