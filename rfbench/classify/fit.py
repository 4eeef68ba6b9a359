"""A whole run: its folder, its end by success, signal or error, and its record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rfbench import files
from rfbench.classify import cure, curves, engine
from rfbench.classify.network import precision
from rfbench.classify.run import Run
from rfbench.classify.start import prepare
from rfbench.errors import RfbenchError
from rfbench.models import variants
from rfbench.runs import checkpoint, processes, progress, records
from rfbench.schemas.cls import ClsConfig

Note = Callable[[str], object]
CURVES = "curves.png"


def folder_of(config: ClsConfig) -> Path:
    """results/cls-<data>-<model>-<variant>-s<seed>."""
    variant = config.variant if isinstance(config.variant, str) else config.variant.model_dump()
    name, model = variants.get(variant).name, config.model.rpartition(":")[2]
    return files.default_folder("cls", config.data.name, model, name, f"s{config.seed}")


def fit(
    config: ClsConfig, folder: Path, resume: bool, overwrite: bool, note: Note
) -> tuple[dict[str, Any] | None, int]:
    """Train to the end, or to a signal. Returns (the record, or None; exit code: 0 or 130).

    `note` hears, in the first process, of what a user should know.
    """
    with processes.started(config.device) as group, processes.Signals() as signals:
        say: Note = note if group.first else lambda _: None
        values, made = config.model_dump(mode="json"), ("best*.pth", CURVES)
        with checkpoint.opened(folder, config, group, resume, overwrite, say, made) as found:
            done, content = found
            if done:
                return done, 0
            run = prepare(config, folder, group, signals, content, say)
            group.by_first(lambda: checkpoint.begin(folder, values))
            return to_the_end(run, say)


def to_the_end(run: Run, say: Note) -> tuple[dict[str, Any] | None, int]:
    """Train; on a signal save and tell how to go on."""
    try:
        if run.config.init.convert and not run.cure:
            cure.cure(run, say)
            run.save()
        engine.train(run, say)
    except engine.Stopped as stop:
        run.save()
        say(f"stopped at update {run.step} and saved in {run.folder}; go on with --resume")
        return None, 130 if stop.asked == processes.INTERRUPT else 0
    except torch.OutOfMemoryError as error:
        raise RfbenchError(
            f"the GPU's memory does not hold {run.split.micro} pictures at once. "
            f"Try -o max_batch_per_gpu={max(1, run.split.micro // 2)}"
        ) from error
    finally:
        run.bar.close()
        run.data.close()
        if run.log:
            run.log.close()
    bad: dict[str, str] = {}
    for found in run.group.gather(run.data.bad):
        bad.update(found)
    if bad:
        some = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:3])
        say(f"{len(bad)} pictures could not be read; result.json names all: {some}")
    return run.group.by_first(lambda: finish(run, bad)), 0


def finish(run: Run, bad: dict[str, str]) -> dict[str, Any]:
    """The picture and the record."""
    lines = progress.read_metrics(run.folder)
    title = f"{run.backbone.name} / {run.backbone.variant}, {run.data.set.name}"
    curves.draw(lines, title, run.per_epoch, run.folder / CURVES)
    return records.write_record(run.folder, "cls", {**record(run, lines), "bad_pictures": bad})


def record(run: Run, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What `compare` reads: the last epoch's figures are the run's, the best stand beside them."""
    config, split = run.config, run.split
    speeds = [line["images_per_s"] for line in lines if line["split"] == "train"]
    return {
        "model": run.backbone.name,
        "variant": run.backbone.variant,
        "replaced": run.backbone.replaced,
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "dataset": run.data.set.name,
        "input": {
            "size": run.data.image_size,
            "augment": run.data.augment,
            "flip": run.data.flip,
            "crop_ratio": run.data.crop_ratio,
        },
        "pictures": {"train": len(run.data.set.train), "val": len(run.data.set.val)},
        "metrics": run.metrics,
        "best": run.best,
        "cure": run.cure or None,
        "seed": config.seed,
        "steps": run.step,
        "epochs": config.schedule.epochs,
        "seconds": round(run.clock.seconds, 1),
        "images_per_s": sorted(speeds)[len(speeds) // 2] if speeds else None,
        "batch": {
            "global": split.batch,
            "world_size": split.world,
            "accumulation": split.accumulation,
            "per_batchnorm": split.micro,
        },
        "device": processes.device_name(run.group.device),
        "precision": precision(config, run.group.device),
        "config": config.model_dump(mode="json"),
        "parent": run.parent,
        "files": ["config.yaml", progress.METRICS, checkpoint.LAST, checkpoint.BEST, CURVES],
    }
