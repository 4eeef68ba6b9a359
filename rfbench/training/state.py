"""The state of a run by epochs, saved to a checkpoint and restored from it."""

import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rfbench.errors import one_line
from rfbench.models import identity, weight_files
from rfbench.models.backbones import Backbone
from rfbench.runs import best, checkpoint, loop, optimizers
from rfbench.runs.state import Loop, Start
from rfbench.runs.surroundings import Need
from rfbench.training.split import Split

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Epochs(Loop):
    """A run in one process. `epoch` counts evaluated epochs.

    data: the images, with `set`, `counts`, `bad` and `restore_bad`. backbone: the network, with its
    name and variant.
    """

    data: Any
    backbone: Backbone
    split: Split
    optimizer: torch.optim.Optimizer
    per_epoch: int
    wrapped: nn.Module  # the network, or DDP around it
    epoch: int = 0
    ema: Any = None  # timm's ModelEmaV3, see `ema`; None: not asked for
    validated: bool = False  # in this process, whose loader of validation images works then
    pruning: Any = None  # see `pruning`; None: not asked for
    # this process's [sum of losses, correct, counted] since the last line of metrics
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


def need(config: Any, network: Backbone, data: Any, shares: Split) -> Need:
    """What a process of the run will need, before it is there. data: the images."""
    weights = sum(t.numel() * t.element_size() for t in network.module.state_dict().values())
    # beside the weights their momentum, or both moments, and the average
    copies = 1 + (2 if config.optim.name == "adamw" else 1) + (config.optim.ema is not None)
    return Need(data.workers, data.memory(shares), copies * weights, config.checkpoint.keep + 1)


def same_data(start: Start, data: Any) -> list[str] | None:
    """The classes of a run's checkpoint, if it tells them; raises if the data are others now."""
    content, path = start.content or {}, start.folder / checkpoint.LAST
    now = {"images": data.counts}
    checkpoint.same_numbers(start.folder, {"images": content.get("images")}, now)
    classes = weight_files.classes_in(content, str(path))
    if classes is not None:
        weight_files.compare_classes(classes, data.set.classes, str(path))
    return classes


def weights(run: Epochs) -> dict[str, Any]:
    """The part that is loaded elsewhere; `state_dict` also loads into the network's library."""
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


def content(run: Epochs) -> dict[str, Any]:
    """What `last.pth` holds beside `weights` and what every training saves; by all processes."""
    mine = {
        "rng": checkpoint.random_state(run.group.device),
        "window": run.window,
        "bad": run.data.bad,
    }
    return {
        "optimizer": run.optimizer.state_dict(),
        "pruned": None if run.pruning is None else run.pruning.state_dict(),
        "ranks": run.group.gather(mine),
        "images": run.data.counts,
        "total": run.total,
        "batch": run.split.batch,
        "accumulation": run.split.accumulation,
    }


def restore(run: Epochs, content: dict[str, Any]) -> None:
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
    if run.pruning is not None:
        run.pruning.load_state_dict(content["pruned"])
    optimizers.load(run.optimizer, content["optimizer"])
    loop.restore(run, content)
    run.epoch = checkpoint.whole_number(content, "epoch")
    run.total = checkpoint.sums(content, "total", len(run.total))
    first = run.epoch * run.per_epoch
    if not first <= run.step <= first + run.per_epoch or content.get("evaluated", first) != first:
        raise ValueError(f"step {run.step}, evaluated at {run.evaluated}, in epoch {run.epoch}")
    best.check_restored(run, run.epoch)
    if run.epoch:
        _check_metrics(run, "waited" in content)
    ranks = content["ranks"]
    if len(ranks) != world:
        raise ValueError(f"{len(ranks)} states of {world} processes")
    if run.group.rank < len(ranks):
        checkpoint.set_random_state(ranks[run.group.rank]["rng"], run.group.device)
        run.data.restore_bad(ranks[run.group.rank]["bad"])
    # if the number of processes has changed, the first one keeps the sums
    windows = [checkpoint.sums(rank, "window", len(run.window)) for rank in ranks]
    if len(ranks) == run.group.world:
        run.window = windows[run.group.rank]
    elif run.group.first:
        run.window = [sum(values) for values in zip(*windows, strict=True)]


def _check_metrics(run: Epochs, waits: bool) -> None:
    """Raise ValueError unless the metrics are those of the epochs that they must be of.

    waits: whether the checkpoint tells how many evaluations the best was ago; old ones do not.
    """
    for name, held, epoch in (
        ("metrics", run.metrics, run.epoch - 1),
        ("best", run.best, run.epoch - 1 - run.waited),
    ):
        if waits and held.get("epoch") != epoch:
            told = one_line(repr(held.get("epoch")), 60)
            raise ValueError(f"{name}.epoch is {told}, not {epoch}")
        checkpoint.whole_number(held, "epoch", -1)
        if (best.EMA in held) != (run.ema is not None):
            raise ValueError(f"{name}: those of averaged weights are {_there(best.EMA in held)}")
        for one in (held, held.get(best.EMA, {})):
            if checkpoint.whole_number(one, "images") > run.data.counts["val"]:
                raise ValueError(f"{name}.images is {one['images']}, more than there are")


def _there(present: bool) -> str:
    return "there, optim.ema is not set" if present else "missing"
