"""What a run consists of, and how all of it goes into a checkpoint and comes back."""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rfbench.classify.images import Pictures
from rfbench.classify.split import Split
from rfbench.errors import RfbenchError
from rfbench.models.backbones import Backbone
from rfbench.runs import checkpoint
from rfbench.runs.processes import Processes, Signals
from rfbench.runs.progress import Clock, Log
from rfbench.schemas.cls import ClsConfig


@dataclass
class Run:
    """A run in one process. `step` counts finished updates, `epoch` evaluated epochs."""

    config: ClsConfig
    folder: Path
    group: Processes
    data: Pictures
    backbone: Backbone
    split: Split
    optimizer: torch.optim.Optimizer
    signals: Signals
    per_epoch: int
    wrapped: nn.Module  # the network, or DDP around it
    step: int = 0
    epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last epoch
    best: dict[str, Any] = field(default_factory=dict)
    cure: dict[str, Any] = field(default_factory=dict)  # see `cure`
    parent: dict[str, Any] | None = None  # the run whose weights it began with, if it is known
    # this process's [sum of losses, right at first, pictures] since the last line
    window: list[float] = field(default_factory=lambda: [0.0] * 3)
    # all processes' of this epoch, up to the last line
    total: list[float] = field(default_factory=lambda: [0.0] * 3)
    pending: tuple[int, Tensor, list[int]] | None = None  # the update whose loss is yet to be read
    failure: Exception | None = None
    clock: Clock = field(default_factory=Clock)
    log: Log | None = None  # of the first process
    bar: Any = None

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self.backbone.module

    def synchronised(self, last: bool) -> contextlib.AbstractContextManager:
        """Around a pass: gradients are summed over the processes only in the last of an update."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return contextlib.nullcontext()

    # --- what is told ---------------------------------------------------------------------------

    def log_window(self) -> None:
        """A line with the means since the line before."""
        window = self.group.sum(self.window)
        self.total = [a + b for a, b in zip(self.total, window, strict=True)]
        self.window = [0.0] * 3
        seconds, wait = self.clock.lap()
        if self.log:
            self.log.write(
                {
                    "split": "train",
                    "epoch": (self.step - 1) // self.per_epoch,
                    "step": self.step,
                    "loss": window[0] / max(1, window[2]),
                    "top1": 100 * window[1] / max(1, window[2]),
                    "lr": self.optimizer.param_groups[0]["lr"],
                    "seconds": round(self.clock.seconds, 3),
                    "images_per_s": round(window[2] / seconds, 1),
                    "wait": round(wait, 4),
                }
            )

    def finish_epoch(self, metrics: dict[str, Any]) -> None:
        """Note an epoch's validation, keep the best weights, save."""
        n = max(1, self.total[2])
        trained = {"train_loss": self.total[0] / n, "train_top1": 100 * self.total[1] / n}
        self.total = [0.0] * 3
        self.metrics = {"epoch": self.epoch, **metrics, **trained}
        if self.log:
            line = {"split": "val", "step": self.step, **self.metrics}
            self.log.write({**line, "seconds": round(self.clock.seconds, 3)})
        self.epoch += 1
        if not self.best or metrics["top1"] > self.best["top1"]:
            self.best = self.metrics
            path = self.folder / checkpoint.BEST
            self.group.by_first(lambda: checkpoint.save(path, self.weights()))
        self.clock.lap()  # the next line's speed is that of training alone
        self.save()

    def show(self) -> None:
        """Move the bar on."""
        self.bar.update(self.step - self.bar.n)
        if not self.bar.disable and self.window[2]:
            loss, right, count = self.window
            speed, wait = self.clock.speed(count * self.group.world)
            self.bar.set_postfix_str(
                f"loss {loss / count:.3f}, top-1 {100 * right / count:.1f} %, "
                f"rate {self.optimizer.param_groups[0]['lr']:.2g}, {speed:.0f} images/s, "
                f"{100 * wait:.0f} % waiting for data",
                refresh=False,
            )

    # --- what is kept ---------------------------------------------------------------------------

    def weights(self) -> dict[str, Any]:
        """What `backbones.build` loads, and plain timm and torchvision by its `state_dict`."""
        return {
            "model": self.backbone.name,
            "variant": self.backbone.variant,
            "state_dict": self.network.state_dict(),
            "classes": list(self.data.set.classes),
            "epoch": self.epoch,
            "metrics": self.metrics,
        }

    def save(self) -> None:
        """Write `last.pth`, all processes together."""
        mine = {
            "rng": random_state(self.group.device),
            "window": self.window,
            "bad": self.data.bad,
        }
        ranks = self.group.gather(mine)
        content = lambda: {  # noqa: E731 (made by the first process only)
            **self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "cure": self.cure,
            "parent": self.parent,
            "ranks": ranks,
            "total": self.total,
            "lines": self.log.lines if self.log else 0,
            "seconds": self.clock.seconds,
            "world_size": self.group.world,
            "batch": self.split.batch,
            "accumulation": self.split.accumulation,
            "config": self.config.model_dump(mode="json"),
        }
        path, keep = self.folder / checkpoint.LAST, self.config.checkpoint.keep
        self.group.by_first(lambda: checkpoint.save(path, content(), keep))

    def restore(self, content: dict[str, Any], note: Callable[[str], object]) -> None:
        """Go on from a checkpoint. `note` hears where that cannot be bit-exact."""
        held = (content["world_size"], content["accumulation"])
        if held != (self.split.world, self.split.accumulation):
            note(
                f"the run was of {held[0]} processes with accumulation {held[1]}, and is now of "
                f"{self.split.world} with {self.split.accumulation}: close, but not bit-equal"
            )
        try:
            self.network.load_state_dict(content["state_dict"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise RfbenchError(
                f"{self.folder}: its checkpoint does not fit this network: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        self.step, self.epoch = content["step"], content["epoch"]
        self.metrics, self.best, self.total = content["metrics"], content["best"], content["total"]
        self.cure, self.parent = content["cure"], content["parent"]
        self.clock = Clock(content["seconds"])
        ranks = content["ranks"]
        if self.group.rank < len(ranks):
            set_random_state(ranks[self.group.rank]["rng"], self.group.device)
            self.data.restore_bad(ranks[self.group.rank]["bad"])
        # of more or fewer processes the sums are kept by the first
        windows = [rank["window"] for rank in ranks]
        if len(ranks) == self.group.world:
            self.window = windows[self.group.rank]
        elif self.group.first:
            self.window = [sum(values) for values in zip(*windows, strict=True)]


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators that a network may draw from: torch's and Python's."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
