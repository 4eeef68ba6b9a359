"""A training by epochs: steps, lines of metrics, checkpoints, an evaluation after every epoch.

A training gives its `Kind`: how a step is made, what its sums mean, how a network is evaluated.
"""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.data.loader import Batch
from rfbench.errors import RfbenchError
from rfbench.runs import best, loop, streams
from rfbench.training import ema, pruning
from rfbench.training.schedule import lr_at
from rfbench.training.state import Epochs

logger = logging.getLogger(__name__)

NAMED = 1000  # unreadable images in a record, which is bounded


@dataclass(frozen=True)
class Kind:
    """What a training adds.

    backward: forward and backward passes of a step; returns this process's sums, the loss first and
    the images last, as `Epochs.window` holds them. figures: of sums over processes and steps, by
    name. progress: the same as text, for the bar. evaluate: the figures of a network on this run's
    validation images, each counted once. shown: of these, as text. weights: the content of
    best.pth. save: writes last.pth.
    """

    backward: Callable[[Any, list[Batch]], Tensor]
    figures: Callable[[list[float]], dict[str, float]]
    progress: Callable[[dict[str, float]], str]
    evaluate: Callable[[Any, nn.Module], dict[str, Any]]
    shown: Callable[[dict[str, Any]], str]
    weights: Callable[[Any], dict[str, Any]]
    save: Callable[[Any], None]


def train(run: Epochs, kind: Kind) -> None:
    """Train from the current step of `run` to the last epoch; evaluate and save every epoch."""
    epochs = run.config.schedule.epochs
    while run.epoch < epochs and not best.out_of_patience(run):
        train_epoch(run, kind)
        if run.epoch + 1 < epochs:
            run.data.ahead(run.step, run.step + run.per_epoch, run.split)
        if not run.validated:  # what fails at the first validation must not cost the epoch
            kind.save(run)
            loop.written(run)
        metrics = validate(run, kind)
        run.validated = True
        finish_epoch(run, kind, metrics)
        kind.save(run)
        logger.info("epoch %d/%d: %s", run.epoch, epochs, kind.shown(metrics))


def train_epoch(run: Epochs, kind: Kind) -> None:
    """The remaining steps of the epoch that `run` is in."""
    last = (run.epoch + 1) * run.per_epoch
    batches = run.data.train(run.step, last, run.split)
    run.network.train()
    window = run.window  # what the bar shows: of the last steps that are known
    while run.step < last:
        # 1. the images of the step; an error is kept until all processes know of it
        passes = loop.fetch(run, batches, run.step + 1 < last, run.split.accumulation)
        # 2. stop here if any process was asked to, or has failed
        loop.agree(run)
        # 3. forward, backward, optimizer
        sums = train_step(run, kind, passes)
        # 4. read the metrics of the previous step, so that nothing waits for the GPU
        loop.settle(run)
        indices = [batch.indices for batch in passes]
        run.pending = functools.partial(read, run, run.step, streams.later(sums), indices)
        run.step += 1
        # 5. a line of metrics, a checkpoint
        every = run.config.checkpoint.every
        line_due = run.step % run.config.log_every == 0 or run.step == last
        save_due = every and run.step % every == 0 and run.step != last
        if line_due or save_due:
            loop.settle_together(run)
        window = run.window if run.window[-1] else window
        if line_due:
            log_window(run, kind)
        if save_due:
            kind.save(run)
        text = f"{kind.progress(kind.figures(window))}, " if window[-1] else ""
        text += f"lr {lr(run, run.step - 1):.2g}"
        loop.show(run, run.window[-1] * run.group.world, text)


def train_step(run: Epochs, kind: Kind, passes: list[Batch]) -> Tensor:
    """One optimizer update; returns this process's part of `run.window`."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr(run, run.step)
    sums = kind.backward(run, passes)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    pruning.update(run)
    ema.update(run)
    pruning.apply_to_averaged(run)
    return sums


def lr(run: Epochs, step: int) -> float:
    """The learning rate of a step."""
    return lr_at(step, run.per_epoch, run.config.optim.peak, run.config.schedule)


def read(run: Epochs, step: int, sums: Callable[[], list[float]], indices: list[Tensor]) -> None:
    """Add the sums of step `step` to the window; a loss that is not finite ends the run."""
    values = sums()
    if math.isfinite(values[0]):
        run.window = [a + b for a, b in zip(run.window, values, strict=True)]
        return
    names = [run.data.set.train.name(i) for i in torch.cat(indices).tolist()]
    files = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    run.failure = RfbenchError(
        f"the loss at step {step} is {values[0]}, learning rate {lr(run, step):.4g}. "
        f"Lower optim.lr, or check the images of this process: {files}"
    )


def log_window(run: Epochs, kind: Kind) -> None:
    """Write a line of metrics: the figures since the previous line."""
    window = run.group.sum(run.window)
    run.total = [a + b for a, b in zip(run.total, window, strict=True)]
    run.window = [0.0] * len(window)
    figures = {
        "epoch": (run.step - 1) // run.per_epoch,
        **kind.figures(window),
        "lr": run.optimizer.param_groups[0]["lr"],
    }
    loop.log_steps(run, window[-1], figures)


def validate(run: Epochs, kind: Kind) -> dict[str, Any]:
    """The figures of the validation images; under "ema" those of averaged weights."""
    metrics = kind.evaluate(run, run.network)
    if (averaged := ema.averaged(run)) is not None:
        metrics[best.EMA] = kind.evaluate(run, averaged)
    return metrics


def finish_epoch(run: Epochs, kind: Kind, metrics: dict[str, Any]) -> None:
    """Record the validation and training metrics of an epoch; keep the best weights."""
    training = {f"train_{name}": value for name, value in kind.figures(run.total).items()}
    run.total = [0.0] * len(run.total)
    metrics = {"epoch": run.epoch, **metrics, **training}
    run.epoch += 1
    better = pruning.judge(run, metrics)
    loop.evaluated(run, metrics, better, lambda: kind.weights(run), _flat(metrics))


def _flat(metrics: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Groups of metrics as 'ema/top1', for metrics.jsonl."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        nested = isinstance(value, dict)
        found |= _flat(value, f"{above}{name}/") if nested else {f"{above}{name}": value}
    return found


def finish(run: Epochs, write: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The record, by `write` of the first process; warns of images that could not be read.

    write: of the run, and what the record says of such images of all processes.
    """
    bad: dict[str, str] = {}
    for unreadable in run.group.gather(run.data.bad):
        bad.update(unreadable)
    told = told_of(bad)
    if bad:
        some = "; ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:3])
        many = len(told["bad_images"])
        which = "all" if many == len(bad) else f"{many}"
        what = "%d images could not be read; result.json names %s: %s"
        logger.warning(what, len(bad), which, some)
    return run.group.by_first(lambda: write(run, told))


def told_of(bad: dict[str, str]) -> dict[str, Any]:
    """What a record says of unreadable images: the reasons of the first, the number of others."""
    names = sorted(bad)
    told = {name: bad[name] for name in names[:NAMED]}
    more = len(names) - len(told)
    return {"bad_images": told, **({"bad_images_more": more} if more else {})}
