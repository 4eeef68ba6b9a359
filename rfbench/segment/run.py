"""The state of a segmentation run, saved to a checkpoint and restored from it."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rfbench.runs import loop
from rfbench.schemas.seg import SegConfig
from rfbench.segment import figures
from rfbench.segment.evaluate import shown
from rfbench.segment.images import Images
from rfbench.segment.network import FORMAT, name_of
from rfbench.segment.table import by_class
from rfbench.training import state


@dataclass(kw_only=True)
class Run(state.Epochs):
    """A run in one process.

    window and total: [sum of losses, sum of the pixels' weights, correct pixels, pixels, images].
    class_weights: (C,); None: all are 1.
    """

    config: SegConfig
    data: Images
    class_weights: Tensor | None = None
    weights_on_host: Tensor | None = None  # the same on the CPU
    window: list[float] = field(default_factory=lambda: [0.0] * 5)
    total: list[float] = field(default_factory=lambda: [0.0] * 5)


def weights(run: Run) -> dict[str, Any]:
    """The part that --eval-only loads."""
    return {"format": FORMAT, **state.weights(run), **name_of(run.config, run.backbone)}


def save(run: Run) -> None:
    """Write `last.pth`, all processes together."""
    loop.save(run, {**weights(run), **state.content(run)}, run.config.checkpoint.keep)


def restore(run: Run, content: dict[str, Any]) -> None:
    """Continue from a checkpoint; see `state.restore`."""
    state.restore(run, content)
    names = run.data.set.classes
    wanted = figures.summary(figures.zero(len(names)), names, None).keys()
    held = [run.metrics, run.best] if run.epoch else []
    for metrics in [*held, *(one["ema"] for one in held if "ema" in one)]:
        if missing := wanted - metrics.keys():
            raise ValueError(f"metrics without {', '.join(sorted(missing))}")
    for metrics in held:  # what the end will show
        shown(metrics)
        by_class(metrics["iou"])
