"""A whole run: its folder, its end by success, signal or error, and its record."""

import contextlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rfbench import files
from rfbench.detect import config as configs
from rfbench.detect import engine, evaluate, show
from rfbench.detect.run import FORMAT, Run
from rfbench.detect.start import local_group, prepare
from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint, processes, progress, records
from rfbench.schemas.det import DetConfig

Note = Callable[[str], object]


def folder_of(config: DetConfig) -> Path:
    """results/det-<detector>-<data>-<model>-<variant>-s<seed>."""
    detector = Path(config.detector).stem.partition("_R_")[0]
    model = config.model.rpartition(":")[2]
    variant = configs.variant_name(config)
    return files.default_folder(
        "det", detector, config.data.name, model, variant, f"s{config.seed}"
    )


def fit(
    config: DetConfig, folder: Path, resume: bool, overwrite: bool, note: Note
) -> tuple[dict[str, Any] | None, int]:
    """Train to the end, or to a signal. Returns (the record, or None; exit code: 0 or 130).

    `note` hears, in the first process, of what a user should know.
    """
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes.started(config.device))
        signals = stack.enter_context(processes.Signals())
        stack.enter_context(local_group(group))
        say: Note = note if group.first else lambda _: None
        values = config.model_dump(mode="json")
        made = (f"{evaluate.FOLDER}/*", f"{show.FOLDER}/*")
        done, content = stack.enter_context(
            checkpoint.opened(folder, values, group, resume, overwrite, say, made, FORMAT)
        )
        if done:
            return done, 0
        run = prepare(config, folder, group, signals, content, say)
        group.by_first(lambda: checkpoint.begin(folder, values))
        return to_the_end(run, say)


def to_the_end(run: Run, say: Note) -> tuple[dict[str, Any] | None, int]:
    """Train and evaluate; on a signal save and tell how to go on."""
    try:
        engine.train(run, say)
    except engine.Stopped as stop:
        run.save()
        say(f"stopped at iteration {run.iteration} and saved in {run.folder}; go on with --resume")
        return None, 130 if stop.asked == processes.INTERRUPT else 0
    except torch.OutOfMemoryError as error:
        raise RfbenchError(
            f"the GPU's memory does not hold {run.cfg.SOLVER.IMS_PER_BATCH // run.group.world} "
            "pictures. Lower opts.SOLVER.IMS_PER_BATCH, with opts.SOLVER.BASE_LR"
        ) from error
    finally:
        run.bar.close()
        if run.log:
            run.log.close()
    return run.group.by_first(lambda: finish(run, say)), 0


def finish(run: Run, say: Note) -> dict[str, Any]:
    """The pictures and the record; that comes also where drawing fails."""
    names = ["config.yaml", progress.METRICS, checkpoint.LAST]
    names.append(f"{evaluate.FOLDER}/{evaluate.RESULTS}")
    if run.config.visualize:
        try:
            names += show.draw(run.cfg, run.folder, run.config.visualize)
        except Exception as error:  # whatever it is, the figures of a long run are worth more
            say(f"no pictures of predictions: {' '.join(str(error).split())[:200]}")
    return records.write_record(run.folder, "det", {**record(run), "files": names})


def record(run: Run) -> dict[str, Any]:
    """What `compare` reads."""
    config, cfg, sets = run.config, run.cfg, run.sets
    parameters = list(run.model.parameters())
    bottom: Any = run.model.get_submodule("backbone.bottom_up")
    speeds = [
        line["images_per_s"]
        for line in progress.read_metrics(run.folder)
        if line["split"] == "train"
    ]
    return {
        "detector": config.detector,
        "model": bottom.name,
        "variant": configs.variant_name(config),
        "replaced": bottom.replaced,
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "dataset": config.data.name,
        "classes": len(sets["val"].categories),
        "pictures": {part: sets[part].images for part in sets},
        "objects": {part: sets[part].objects for part in sets},
        "metrics": run.metrics,
        "eval": config.eval,
        "seed": config.seed,
        "steps": run.iteration,
        "seconds": round(run.clock.seconds, 1),
        "images_per_s": sorted(speeds)[len(speeds) // 2] if speeds else None,
        "batch": {
            "global": cfg.SOLVER.IMS_PER_BATCH,
            "world_size": run.group.world,
            "per_batchnorm": cfg.SOLVER.IMS_PER_BATCH // run.group.world,
        },
        "scaled": configs.scaling(cfg, config),
        "device": processes.device_name(run.group.device),
        "memory": peak(run.group.device),
        "precision": config.precision,
        "versions": {**records.versions(), **versions()},
        "differs": configs.difference(cfg, configs.stock(config.detector)),
        "config": config.model_dump(mode="json"),
        "parent": run.parent,
    }


def peak(device: torch.device) -> int | None:
    """The largest memory in bytes that this process held on the GPU; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def versions() -> dict[str, str]:
    """Of the packages that decide a detection's figures."""
    found = {}
    for name in ("detectron2", "pycocotools", "faster-coco-eval"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
