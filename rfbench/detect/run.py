"""The state of a detection run, saved to a checkpoint and restored from it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from rfbench.data.coco import CocoSet
from rfbench.detect import evaluate
from rfbench.detect.config import variant_name
from rfbench.errors import RfbenchError, one_line
from rfbench.models import identity, integrity, weight_files, weight_sets
from rfbench.runs import best, checkpoint, loop, optimizers
from rfbench.runs.state import Loop
from rfbench.schemas.det import DetConfig

logger = logging.getLogger(__name__)

FORMAT = "rfbench-detection/1"
COUNTED = ("images", "objects")  # of a data set, in checkpoints


@dataclass(kw_only=True)
class Run(Loop):
    """A run in one process. Detectron2 calls a step an iteration."""

    config: DetConfig
    cfg: CfgNode
    sets: dict[str, CocoSet]  # "train", "val"
    model: nn.Module  # the detector itself, not DDP around it
    unit: str = "iteration"
    batch: list[dict[str, Any]] = field(default_factory=list)  # the images of the next step
    trainer: Any = None  # Detectron2's SimpleTrainer or AMPTrainer
    scheduler: Any = None
    logged: int = 0  # the iteration of the last line of metrics

    @property
    def classes(self) -> list[str]:
        """The names of the categories."""
        return names_of(self.sets["val"])

    def feed(self) -> Iterator[list[dict[str, Any]]]:
        """The data iterator of Detectron2's trainer: the batch that all processes agreed on."""
        while True:
            yield self.batch


def names_of(data: CocoSet) -> list[str]:
    """The names of a data set's categories, in the order of the detector's classes."""
    return list(data.categories.values())


def weights(run: Run) -> dict[str, Any]:
    """The part that --eval-only loads; Detectron2 reads "model" as MODEL.WEIGHTS."""
    model = {"model": run.model.state_dict(), "iteration": run.step, "metrics": run.metrics}
    own = identity_of(run.config, run.model)
    held = {"classes": run.classes, "code": identity.code_of(own["backbone"])}
    return {"format": FORMAT, **own, **held, **model}


def save(run: Run) -> None:
    """Write `last.pth`, all processes together."""
    scaler = getattr(run.trainer, "grad_scaler", None)
    state = {
        **weights(run),
        "optimizer": run.trainer.optimizer.state_dict(),
        "images": {part: run.sets[part].images for part in run.sets},
        "objects": {part: run.sets[part].objects for part in run.sets},
        "scheduler": run.scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
    }
    loop.save(run, state, run.config.keep)


def restore(run: Run, content: dict[str, Any]) -> None:
    """Continue from a checkpoint; warns if images may repeat.

    Called within `checkpoint.restoring`.
    """
    if content["world_size"] != run.group.world:
        logger.warning(
            f"the run had {content['world_size']} processes and now has {run.group.world}: some "
            "images of this epoch may be seen twice"
        )
    now = {name: {part: getattr(run.sets[part], name) for part in run.sets} for name in COUNTED}
    checkpoint.same_numbers(run.folder, {name: content.get(name) for name in now}, now)
    optimizers.load(run.trainer.optimizer, content["optimizer"])
    if content["scaler"] is not None:
        run.trainer.grad_scaler.load_state_dict(content["scaler"])
    loop.restore(run, content)
    _restore_rate(run, content["scheduler"])
    run.logged = run.step
    end, period = run.cfg.SOLVER.MAX_ITER, run.cfg.TEST.EVAL_PERIOD
    if "evaluated" not in content:  # from an older version: the last evaluation is still to be done
        run.evaluated = min(run.step, end - 1)
        return
    evaluations = -(-run.evaluated // (period or end))
    best.check_restored(run, evaluations)
    tasks = {"bbox", "segm"} if run.cfg.MODEL.MASK_ON else {"bbox"}
    for metrics in (run.metrics, run.best) if evaluations else ():
        lacking = [task for task in tasks if not metrics[task].keys() >= {*evaluate.SHOWN}]
        if lacking or {"bbox", "segm"} & metrics.keys() != tasks:
            raise ValueError(f"metrics are not those of {' and '.join(sorted(tasks))}")
        evaluate.shown(metrics)  # as the end will
    if run.evaluated == end or best.out_of_patience(run):
        evaluate.localization(run.metrics)


def _restore_rate(run: Run, state: dict[str, Any]) -> None:
    """Load the schedule's state; ValueError unless the rates are those of the configuration."""
    wanted = {"base_lrs": list(run.scheduler.base_lrs), "last_epoch": run.step}
    for key, value in wanted.items():
        if state[key] != value:
            raise ValueError(f"scheduler: {key} is {one_line(repr(state[key]), 60)}, not {value}")
    run.scheduler.load_state_dict(state)
    for group, rate in zip(run.trainer.optimizer.param_groups, run.scheduler.get_lr(), strict=True):
        if group["lr"] != rate:
            raise ValueError(f"learning rate is {one_line(repr(group['lr']), 60)}, not {rate}")


def identity_of(config: DetConfig, model: nn.Module) -> dict[str, str]:
    """Identifies the weights of a detector, since they would load into another variant too."""
    return {
        "detector": config.detector,
        "backbone": str(model.get_submodule("backbone.bottom_up").name),
        "variant": variant_name(config),
    }


def read_detector(path: str) -> Any:
    """The content of the file `path`; RfbenchError if it is of another training of this package."""
    content = integrity.read(path)
    kind = content.get("format") if isinstance(content, dict) else None
    if isinstance(kind, str) and kind.startswith("rfbench-") and kind != FORMAT:
        raise RfbenchError(
            f"{path} holds no detector: it is of format {kind}, and one of train-det of {FORMAT}."
        )
    return content


def load_detector(
    model: nn.Module, config: DetConfig, content: Any, source: str, ema: bool = False
) -> None:
    """Load a detector's weights strictly.

    content: of a checkpoint of this package, or of another file with the weights of this detector.
    ema: take the averaged ones of the latter. Raises RfbenchError if it is of another detector,
    model or variant, or does not fit.
    """
    state = weight_sets.tensors(weight_sets.chosen(content, source, ema), source)
    own = identity_of(config, model)
    if content.get("format") != FORMAT:
        if own["variant"] != weight_files.BASELINE:
            weight_files.warn_of_no_variant(source, own["variant"])
    else:
        held = {key: content.get(key, value) for key, value in own.items()}
        same = identity.same(str(held["backbone"]), own["backbone"])
        if not same or {**held, "backbone": ""} != {**own, "backbone": ""}:
            raise RfbenchError(
                f"{source} holds {' / '.join(map(str, held.values()))}; this run is "
                f"{' / '.join(own.values())}. The weights might load but mean something else."
            )
        weight_files.note_of_code(content.get("code"), own["backbone"], source)
    weight_files.load_strictly(model, state, source, "this detector")
