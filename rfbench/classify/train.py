"""The training loop on one page: `train`, `train_epoch` and `train_step`.

Whatever determines the result is a function of the configuration and the step number, or is in the
checkpoint: weights, optimizer, random state, sums since the last line of metrics.
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.classify import convert
from rfbench.classify.consistency import consistency
from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.mix import classes_of
from rfbench.classify.network import scores_of
from rfbench.classify.run import Run, save, weights
from rfbench.data.loader import Batch
from rfbench.errors import RfbenchError
from rfbench.runs import best, loop, streams
from rfbench.training import ema, pruning
from rfbench.training.schedule import lr_at

logger = logging.getLogger(__name__)


def train(run: Run) -> None:
    """Train from the current step of `run` to the last epoch; evaluate and save every epoch."""
    if run.config.init.convert and not run.conversion:
        convert.convert(run)
        ema.start(run)
        save(run)
    epochs = run.config.schedule.epochs
    while run.epoch < epochs and not best.out_of_patience(run):
        train_epoch(run, run.epoch)
        if run.epoch + 1 < epochs:
            run.data.ahead(run.step, run.step + run.per_epoch, run.split)
        if not run.validated:  # what fails at the first validation must not cost the epoch
            save(run)
            loop.written(run)
        metrics = validate(run)
        run.validated = True
        finish_epoch(run, metrics)
        save(run)
        logger.info("epoch %d/%d: %s", run.epoch, epochs, shown(metrics))
    add_consistency(run)


def train_epoch(run: Run, epoch: int) -> None:
    """The remaining steps of one epoch."""
    last = (epoch + 1) * run.per_epoch
    batches = run.data.train(run.step, last, run.split)
    run.network.train()
    while run.step < last:
        # 1. the images of the step; an error is kept until all processes know of it
        passes = loop.fetch(run, batches, run.split.accumulation)
        # 2. stop here if any process was asked to, or has failed
        loop.agree(run)
        # 3. forward, backward, optimizer
        sums = train_step(run, passes)
        # 4. read the metrics of the previous step, so that nothing waits for the GPU
        loop.settle(run)
        run.pending = functools.partial(
            read, run, run.step, streams.later(sums), [b.indices for b in passes]
        )
        run.step += 1
        # 5. a line of metrics, a checkpoint
        every = run.config.checkpoint.every
        line_due = run.step % run.config.log_every == 0 or run.step == last
        save_due = every and run.step % every == 0 and run.step != last
        if line_due or save_due:
            loop.settle_together(run)
        if line_due:
            log_window(run)
        if save_due:
            save(run)
        loss, correct, images = run.window
        text = f"loss {loss / max(1, images):.3f}, top-1 {100 * correct / max(1, images):.1f} %, "
        loop.show(run, images * run.group.world, f"{text}lr {lr(run, run.step - 1):.2g}")


def train_step(run: Run, passes: list[Batch]) -> Tensor:
    """One optimizer update; returns [sum of losses, top-1 correct, images] of this process."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr(run, run.step)
    forward, smoothing = scores_of(run.wrapped, run.config), run.config.optim.label_smoothing
    sums = torch.zeros(3, dtype=torch.float64, device=run.group.device)
    world, rank = run.group.world, run.group.rank
    for number, batch in enumerate(passes, 1):
        # gradients are exchanged once per step, in the last pass
        with run.synchronised(number == len(passes)):
            part = (number - 1) * world + rank
            images, targets = run.mix(*run.data.on_device(batch), run.step, part)
            scores = forward(images)
            loss = F.cross_entropy(scores.float(), targets, label_smoothing=smoothing)
            (loss / len(passes)).backward()
        top1_correct = (scores.detach().argmax(1) == classes_of(targets)).sum()
        count = torch.full_like(sums[0], len(targets))
        sums += torch.stack([loss.detach() * count, top1_correct, count])
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    pruning.update(run)
    ema.update(run)
    pruning.apply_to_averaged(run)
    return sums


def lr(run: Run, step: int) -> float:
    """The learning rate of a step."""
    return lr_at(step, run.per_epoch, run.config.optim.peak, run.config.schedule)


def read(run: Run, step: int, sums: Callable[[], list[float]], indices: list[Tensor]) -> None:
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


def log_window(run: Run) -> None:
    """Write a line of metrics: the means since the previous line."""
    window = run.group.sum(run.window)
    run.total = [a + b for a, b in zip(run.total, window, strict=True)]
    run.window = [0.0] * 3
    loss, correct, images = window
    figures = {
        "epoch": (run.step - 1) // run.per_epoch,
        "loss": loss / max(1, images),
        "top1": 100 * correct / max(1, images),
        "lr": run.optimizer.param_groups[0]["lr"],
    }
    loop.log_steps(run, images, figures)


def validate(run: Run) -> dict[str, Any]:
    """Loss, top-1 and top-5 on the validation images; under "ema" those of averaged weights."""
    metrics: dict[str, Any] = evaluated(run, run.network)
    if (averaged := ema.averaged(run)) is not None:
        metrics[best.EMA] = evaluated(run, averaged)
    return metrics


def evaluated(run: Run, model: nn.Module) -> dict[str, Any]:
    """Loss, top-1 and top-5 of a network on the validation images, each counted once."""
    batches, rounds = run.data.val(run.split.micro)
    images = (run.data.on_device(batch) for batch in batches)
    # not through DDP, which needs equal numbers of batches
    forward = scores_of(model, run.config)
    return evaluate(model, images, rounds, run.group, forward, lambda: loop.agree(run))


def add_consistency(run: Run) -> None:
    """Measure it at the end. No checkpoint holds it: a run resumed here measures it again."""

    def of(model: nn.Module) -> dict[str, Any]:
        micro, agree = run.split.micro, lambda: loop.agree(run)
        return consistency(model, run.data, run.config, micro, run.group, agree)

    run.metrics = {**run.metrics, **of(run.network)}
    if (averaged := ema.averaged(run)) is not None:
        run.metrics[best.EMA] = {**run.metrics[best.EMA], **of(averaged)}


def finish_epoch(run: Run, metrics: dict[str, Any]) -> None:
    """Record the validation and training metrics of an epoch; keep the best weights."""
    loss, correct, images = run.total
    n, run.total = max(1, images), [0.0] * 3
    training = {"train_loss": loss / n, "train_top1": 100 * correct / n}
    metrics = {"epoch": run.epoch, **metrics, **training}
    run.epoch += 1
    averaged = {f"{best.EMA}/{key}": v for key, v in metrics.get(best.EMA, {}).items()}
    figures = {key: value for key, value in metrics.items() if key != best.EMA} | averaged
    loop.evaluated(run, metrics, pruning.judge(run, metrics), lambda: weights(run), figures)
