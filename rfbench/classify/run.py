"""The state of a classification run, saved to a checkpoint and restored from it."""

import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rfbench.classify.images import Images
from rfbench.classify.split import Split
from rfbench.models import identity, weight_files
from rfbench.models.backbones import Backbone
from rfbench.runs import checkpoint, loop
from rfbench.runs.state import Loop
from rfbench.schemas.cls import ClsConfig

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Run(Loop):
    """A run in one process. `epoch` counts evaluated epochs."""

    config: ClsConfig
    data: Images
    backbone: Backbone
    split: Split
    optimizer: torch.optim.Optimizer
    per_epoch: int
    wrapped: nn.Module  # the network, or DDP around it
    epoch: int = 0
    ema: Any = None  # timm's ModelEmaV3, see `ema`; None: not asked for
    validated: bool = False  # in this process, whose loader of validation images works then
    conversion: dict[str, Any] = field(default_factory=dict)  # see `convert`
    # this process's [sum of losses, top-1 correct, images] since the last line of metrics
    window: list[float] = field(default_factory=lambda: [0.0] * 3)
    # the same over all processes and the epoch, up to the last line
    total: list[float] = field(default_factory=lambda: [0.0] * 3)

    @property
    def network(self) -> nn.Module:
        """The network, not wrapped in DDP."""
        return self.backbone.module

    def synchronised(self, last: bool) -> contextlib.AbstractContextManager:
        """A context for one pass; only the last of a step sums gradients over the processes."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return contextlib.nullcontext()


def weights(run: Run) -> dict[str, Any]:
    """The part that `backbones.build` loads; `state_dict` also loads into timm or torchvision."""
    averaged = {} if run.ema is None else {"state_dict_ema": run.ema.module.state_dict()}
    return {
        "model": run.backbone.name,
        "variant": run.backbone.variant,
        "code": identity.code_of(run.backbone.name),
        "state_dict": run.network.state_dict(),
        **averaged,
        "classes": list(run.data.set.classes),
        "epoch": run.epoch,
        "metrics": run.metrics,
    }


def save(run: Run) -> None:
    """Write `last.pth`, all processes together."""
    mine = {
        "rng": checkpoint.random_state(run.group.device),
        "window": run.window,
        "bad": run.data.bad,
    }
    state = {
        **weights(run),
        "optimizer": run.optimizer.state_dict(),
        "cure": run.conversion,
        "ranks": run.group.gather(mine),
        "pictures": run.data.counts,
        "total": run.total,
        "batch": run.split.batch,
        "accumulation": run.split.accumulation,
    }
    loop.save(run, state, run.config.checkpoint.keep)


def restore(run: Run, content: dict[str, Any]) -> None:
    """Continue from a checkpoint; warns if the result cannot be bit-equal.

    Called within `checkpoint.restoring`.
    """
    world, accumulation = content["world_size"], content["accumulation"]
    if (world, accumulation) != (run.split.world, run.split.accumulation):
        logger.warning(
            f"the run had {world} processes with accumulation {accumulation} and now has "
            f"{run.split.world} with {run.split.accumulation}: a BatchNorm sees {run.split.micro} "
            f"images instead of {content['batch'] // (world * accumulation)}; the result will be "
            "close, but not bit-equal"
        )
    path = str(run.folder / checkpoint.LAST)
    weight_files.note_of_code(content.get("code"), run.backbone.name, path)
    weight_files.load_strictly(run.network, content["state_dict"], path, run.backbone.name)
    if run.ema is not None:
        averaged = content["state_dict_ema"]
        weight_files.load_strictly(run.ema.module, averaged, path, run.backbone.name)
    checkpoint.load_optimizer(run.optimizer, content["optimizer"])
    loop.restore(run, content)
    run.epoch, run.total = checkpoint.whole_number(content, "epoch"), content["total"]
    first = run.epoch * run.per_epoch
    if not first <= run.step <= first + run.per_epoch or content.get("evaluated", first) != first:
        raise ValueError(f"step {run.step}, evaluated at {run.evaluated}, in epoch {run.epoch}")
    run.conversion = content["cure"]
    if not isinstance(run.conversion, dict):
        raise ValueError(f"cure is {run.conversion!r}")
    ranks = content["ranks"]
    if len(ranks) != world:
        raise ValueError(f"{len(ranks)} states of {world} processes")
    if run.group.rank < len(ranks):
        checkpoint.set_random_state(ranks[run.group.rank]["rng"], run.group.device)
        run.data.restore_bad(ranks[run.group.rank]["bad"])
    # if the number of processes has changed, the first one keeps the sums
    windows = [rank["window"] for rank in ranks]
    if len(ranks) == run.group.world:
        run.window = windows[run.group.rank]
    elif run.group.first:
        run.window = [sum(values) for values in zip(*windows, strict=True)]
