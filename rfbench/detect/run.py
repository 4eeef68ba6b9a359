"""What a run consists of, and how all of it goes into a checkpoint and comes back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from rfbench.data.coco import CocoSet
from rfbench.detect.config import variant_name
from rfbench.errors import RfbenchError, one_line
from rfbench.runs import checkpoint
from rfbench.runs.processes import Processes, Signals
from rfbench.runs.progress import Clock, Log
from rfbench.schemas.det import DetConfig

FORMAT = "rfbench-detection/1"


@dataclass
class Run:
    """A run in one process. `iteration` counts finished updates."""

    config: DetConfig
    cfg: CfgNode
    folder: Path
    group: Processes
    signals: Signals
    sets: dict[str, CocoSet]  # "train", "val"
    model: nn.Module  # the detector itself, not DDP around it
    batch: list[dict[str, Any]] = field(default_factory=list)  # the pictures of the next update
    trainer: Any = None  # Detectron2's SimpleTrainer or AMPTrainer
    scheduler: Any = None
    iteration: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    parent: dict[str, Any] | None = None  # the run whose weights it began with, if it is known
    failure: Exception | None = None
    clock: Clock = field(default_factory=Clock)
    log: Log | None = None  # of the first process
    logged: int = 0  # the iteration of the last line
    bar: Any = None

    def feed(self) -> Iterator[list[dict[str, Any]]]:
        """What Detectron2's trainer takes its data from: the batch that has been agreed on."""
        while True:
            yield self.batch

    # --- what is told ---------------------------------------------------------------------------

    def log_window(self, storage: Any) -> None:
        """A line with the means, since the line before, of what Detectron2 has noted."""
        count = self.iteration - self.logged
        self.logged = self.iteration
        seconds, wait = self.clock.lap()
        if not self.log:
            return
        means = {
            name.removeprefix("total_"): history.avg(count)
            for name, history in storage.histories().items()
            if not name.endswith("data_time")
        }
        self.log.write(
            {
                "split": "train",
                "step": self.iteration,
                **{name: float(value) for name, value in means.items()},
                "lr": self.trainer.optimizer.param_groups[0]["lr"],
                "seconds": round(self.clock.seconds, 3),
                "images_per_s": round(count * self.cfg.SOLVER.IMS_PER_BATCH / seconds, 2),
                "wait": round(wait, 4),
            }
        )

    def log_metrics(self) -> None:
        """A line with the figures of an evaluation."""
        if self.log:
            flat = {
                f"{task}/{name}": value
                for task, values in self.metrics.items()
                for name, value in values.items()
                if isinstance(value, float)
            }
            line = {"split": "val", "step": self.iteration, **flat}
            self.log.write({**line, "seconds": round(self.clock.seconds, 3)})

    def show(self, storage: Any) -> None:
        """Move the bar on."""
        self.bar.update(self.iteration - self.bar.n)
        if not self.bar.disable:
            losses = storage.histories().get("total_loss")
            speed, wait = self.clock.speed(
                (self.iteration - self.logged) * self.cfg.SOLVER.IMS_PER_BATCH
            )
            self.bar.set_postfix_str(
                f"loss {losses.median(20) if losses else float('nan'):.3f}, "
                f"rate {self.trainer.optimizer.param_groups[0]['lr']:.2g}, {speed:.1f} images/s, "
                f"{100 * wait:.0f} % waiting for data",
                refresh=False,
            )

    # --- what is kept ---------------------------------------------------------------------------

    def save(self) -> None:
        """Write `last.pth`: Detectron2 reads its "model" as MODEL.WEIGHTS."""
        scaler = getattr(self.trainer, "grad_scaler", None)
        content = lambda: {  # noqa: E731 (made by the first process only)
            "format": FORMAT,
            **identity(self.config, self.model),
            "model": self.model.state_dict(),
            "optimizer": self.trainer.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "iteration": self.iteration,
            "parent": self.parent,
            "lines": self.log.lines if self.log else 0,
            "seconds": self.clock.seconds,
            "world_size": self.group.world,
            "config": self.config.model_dump(mode="json"),
        }
        path, keep = self.folder / checkpoint.LAST, self.config.keep
        self.group.by_first(lambda: checkpoint.save(path, content(), keep))

    def restore(self, content: dict[str, Any], note: Callable[[str], object]) -> None:
        """Go on from a checkpoint. `note` hears where pictures may repeat."""
        if content["world_size"] != self.group.world:
            note(
                f"the run was of {content['world_size']} processes and is now of "
                f"{self.group.world}: some pictures of this epoch may be seen twice"
            )
        try:
            self.trainer.optimizer.load_state_dict(content["optimizer"])
            self.scheduler.load_state_dict(content["scheduler"])
            if content["scaler"] is not None:
                self.trainer.grad_scaler.load_state_dict(content["scaler"])
        except (RuntimeError, ValueError) as error:
            what = one_line(error)
            raise RfbenchError(f"{self.folder}: its checkpoint does not fit: {what}") from error
        self.parent = content["parent"]
        self.clock = Clock(content["seconds"])


def identity(config: DetConfig, model: nn.Module) -> dict[str, str]:
    """What the weights of a detector are of; they would load into another variant too."""
    return {
        "detector": config.detector,
        "backbone": str(model.get_submodule("backbone.bottom_up").name),
        "variant": variant_name(config),
    }


def load_detector(model: nn.Module, config: DetConfig, content: Any, source: str) -> None:
    """Load a detector's weights strictly.

    content: what a checkpoint of this package, or a file of Detectron2 with its "model", holds.
    Raises RfbenchError where it is of another detector, model or variant, or does not fit.
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
        what = one_line(error, 300)
        raise RfbenchError(f"{source} does not fit this detector: {what}") from error
