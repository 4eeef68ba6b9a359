"""The plan of a run (--dry-run), and the evaluation of a checkpoint (--eval-only)."""

import contextlib
from pathlib import Path
from typing import Any

import torch
import yaml

from rfbench import files
from rfbench.detect import config as configs
from rfbench.detect import evaluate, run, sets, show, weights
from rfbench.detect.loaders import Reader, memory
from rfbench.detect.setup import detector, local_group, optimizer, scheduler
from rfbench.errors import counted
from rfbench.runs import processes
from rfbench.runs.surroundings import Need, look
from rfbench.schemas.det import DetConfig


def describe(config: DetConfig, folder: Path, check_weights: bool = True) -> str:
    """The resolved configuration, what differs from stock, the changed layers and the data.

    Raises what a run would raise before its first step. check_weights: false if they do not exist
    yet; pretrained ones are not downloaded.
    """
    with processes.started(config.device) as group:
        device = group.device.type
        configs.resolve(config, 1, folder, device, group.world)
        parts = sets.prepare(config.data, group)
        classes = len(parts["train"].categories)
        cfg = configs.resolve(config, classes, folder, device, group.world)
        sets.check_masks(cfg, parts)
        model = detector(cfg)
        bottom: Any = model.get_submodule("backbone.bottom_up")
        if config.weights and check_weights:
            weights.check(
                model, config.weights, config.network, configs.variant_name(config), config.ema
            )
        # only for the errors that they raise
        scheduler(cfg, optimizer(cfg, config.optimizer, model))
        Reader(cfg, train=True)
        changes = configs.difference(cfg, configs.stock(config.detector))
        weights_of = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        copies = 3 if config.optimizer == "adamw" else 2
        shared = memory(cfg, parts, group.world)
        need = Need(cfg.DATALOADER.NUM_WORKERS, shared, copies * weights_of, config.keep + 1)
        around = [str(finding) for finding in look(folder, group, need, probe=True)]
    solver, scaled = cfg.SOLVER, configs.scaling(cfg, config)
    lines = [
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip(),
        "",
        f"differs from Detectron2's {config.detector}:",
        *(f"  {key}: {old} -> {new}" for key, (old, new) in changes.items()),
        f"{config.network} / {configs.variant_name(config)}: {len(bottom.replaced)} changed",
        *(f"  {name}" for name in bottom.replaced),
        *(
            f"{part}: {data.images} images, {data.objects} objects, {len(data.categories)} classes"
            for part, data in parts.items()
        ),
        f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images on "
        f"{counted(group.world, 'process', 'es')}, learning rate {solver.BASE_LR:g}"
        + (f" (scaled from {scaled['from']} GPUs)" if scaled else ""),
        f"device {device}, evaluation by {config.eval}",
        *around,
        f"would write to {folder}",
    ]
    return "\n".join(lines)


def evaluate_checkpoint(config: DetConfig, path: str, folder: Path) -> dict[str, Any]:
    """The metrics of the detector in the file `path`, which must match the configuration.

    Predictions, and `visualize` images of them, stay in `folder`; "files" names them.
    """
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes.started(config.device))
        stack.enter_context(local_group(group))
        group.alike(lambda: files.check_writable(folder))
        if config.threads:
            torch.set_num_threads(config.threads)
        content = group.alike(lambda: run.read_detector(path))
        found = sets.prepare(config.data, group, eval_only=True)
        parts = group.alike(lambda: sets.follow(config.data, found, content, path))
        classes = len(parts["val"].categories)
        device = group.device.type
        cfg = group.alike(lambda: configs.resolve(config, classes, folder, device, group.world))
        group.alike(lambda: sets.check_masks(cfg, parts))
        model = group.alike(lambda: detector(cfg))
        group.alike(lambda: run.load_detector(model, config, content, path, config.ema))
        group.by_first(lambda: files.open_folder(folder, keep=True))
        metrics = evaluate.evaluate(model, cfg, config, group, folder)
        written = [f"{evaluate.FOLDER}/{evaluate.RESULTS}"]
        if group.first and config.visualize:
            written += show.draw(cfg, folder, config.visualize)
    return {
        **run.identity_of(config, model),
        "weights": path,
        "images": parts["val"].images,
        "eval": config.eval,
        "metrics": metrics,
        "files": written,
    }


def line(result: dict[str, Any]) -> str:
    """The result of `evaluate_checkpoint` as text."""
    return (
        f"{result['detector']} / {result['backbone']} / {result['variant']}: "
        f"{evaluate.shown(result['metrics'])} ({result['images']} images, {result['eval']})\n"
        f"{evaluate.localization(result['metrics'])}"
    )
