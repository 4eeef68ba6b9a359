"""The state of a classification run, saved to a checkpoint and restored from it."""

from dataclasses import dataclass, field
from typing import Any

from rfbench.classify.evaluate import shown
from rfbench.classify.images import Images
from rfbench.classify.mix import Mix
from rfbench.errors import one_line
from rfbench.runs import checkpoint, loop
from rfbench.schemas.cls import ClsConfig
from rfbench.training import state
from rfbench.training.state import weights as weights

STAGES = ("before", "changed", "norms")  # of `fix`


@dataclass(kw_only=True)
class Run(state.Epochs):
    """A run in one process. Correct and counted, in `window` and `total`: top-1, of images."""

    config: ClsConfig
    data: Images
    mix: Mix
    fixed: dict[str, Any] = field(default_factory=dict)  # see `fix`


def save(run: Run) -> None:
    """Write `last.pth`, all processes together."""
    held = {**weights(run), **state.content(run), "fix": run.fixed}
    loop.save(run, held, run.config.checkpoint.keep)


def restore(run: Run, content: dict[str, Any]) -> None:
    """Continue from a checkpoint; see `state.restore`."""
    state.restore(run, content)
    run.fixed = content["fix"] if "fix" in content else content["cure"]  # of version 0.1
    held = [run.metrics] * bool(run.epoch) + [run.best] * bool(run.best)
    if run.fixed:
        stages = dict(run.fixed)
        if not isinstance(stages.pop("from"), str):
            raise ValueError(f"fix is {one_line(repr(run.fixed), 60)}")
        checkpoint.figures(stages, "fix")
        held += [stages[name] for name in STAGES]
    more = len(run.data.set.classes) > 5
    for metrics in [*held, *(one["ema"] for one in held if "ema" in one)]:
        shown(metrics)  # as the end will
        if more and "top5" not in metrics:
            raise ValueError("metrics without top5")
