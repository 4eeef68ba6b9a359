"""The state of a detection run, saved to a checkpoint and restored from it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from rfbench.data.coco import CocoSet
from rfbench.detect.config import variant_name
from rfbench.errors import RfbenchError, one_line
from rfbench.runs import loop
from rfbench.runs.state import Loop
from rfbench.schemas.det import DetConfig

logger = logging.getLogger(__name__)

FORMAT = "rfbench-detection/1"


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

    def feed(self) -> Iterator[list[dict[str, Any]]]:
        """The data iterator of Detectron2's trainer: the batch that all processes agreed on."""
        while True:
            yield self.batch


def weights(run: Run) -> dict[str, Any]:
    """The part that --eval-only loads; Detectron2 reads "model" as MODEL.WEIGHTS."""
    model = {"model": run.model.state_dict(), "iteration": run.step, "metrics": run.metrics}
    return {"format": FORMAT, **identity(run.config, run.model), **model}


def save(run: Run) -> None:
    """Write `last.pth`, all processes together."""
    scaler = getattr(run.trainer, "grad_scaler", None)
    state = {
        **weights(run),
        "optimizer": run.trainer.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
    }
    loop.save(run, state, run.config.keep)


def restore(run: Run, content: dict[str, Any]) -> None:
    """Continue from a checkpoint; warns if images may repeat."""
    if content["world_size"] != run.group.world:
        logger.warning(
            f"the run had {content['world_size']} processes and now has {run.group.world}: some "
            "images of this epoch may be seen twice"
        )
    try:
        run.trainer.optimizer.load_state_dict(content["optimizer"])
        run.scheduler.load_state_dict(content["scheduler"])
        if content["scaler"] is not None:
            run.trainer.grad_scaler.load_state_dict(content["scaler"])
    except (RuntimeError, ValueError) as error:
        raise RfbenchError(
            f"{run.folder}: the checkpoint does not fit: {one_line(error)}"
        ) from error
    loop.restore(run, content)
    run.logged = run.step
    if "evaluated" not in content:  # from an older version: the last evaluation is still to be done
        run.evaluated = min(run.step, run.cfg.SOLVER.MAX_ITER - 1)


def identity(config: DetConfig, model: nn.Module) -> dict[str, str]:
    """Identifies the weights of a detector, since they would load into another variant too."""
    return {
        "detector": config.detector,
        "backbone": str(model.get_submodule("backbone.bottom_up").name),
        "variant": variant_name(config),
    }


def load_detector(model: nn.Module, config: DetConfig, content: Any, source: str) -> None:
    """Load a detector's weights strictly.

    content: of a checkpoint of this package, or of a file of Detectron2 with a "model".
    Raises RfbenchError if it is of another detector, model or variant, or does not fit.
    """
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise RfbenchError(f"{source} holds no detector.")
    own = identity(config, model)
    held = {key: content.get(key, value) for key, value in own.items()}
    if content.get("format") == FORMAT and held != own:
        raise RfbenchError(
            f"{source} holds {' / '.join(map(str, held.values()))}; this run is "
            f"{' / '.join(own.values())}. The weights might load but mean something else."
        )
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        raise RfbenchError(
            f"{source} does not fit this detector: {one_line(error, 300)}"
        ) from error
