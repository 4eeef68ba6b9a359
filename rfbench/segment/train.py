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
from torch import Tensor, nn

from rfbench.data.loader import Batch
from rfbench.data.segmentation.pairs import IGNORED
from rfbench.errors import RfbenchError
from rfbench.runs import best, loop, streams
from rfbench.segment import losses
from rfbench.segment.evaluate import evaluate, shown
from rfbench.segment.heads import upsampled
from rfbench.segment.network import OUT, scores_of
from rfbench.segment.run import Run, save, weights
from rfbench.training import ema
from rfbench.training.schedule import lr_at

logger = logging.getLogger(__name__)


def train(run: Run) -> None:
    """Train from the current step of `run` to the last epoch; evaluate and save every epoch."""
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
        loss, weight, correct, pixels, images = run.window
        text = f"loss {loss / max(1, weight):.3f}, {100 * correct / max(1, pixels):.1f} % of pixels"
        loop.show(run, images * run.group.world, f"{text}, lr {lr(run, run.step - 1):.2g}")


def train_step(run: Run, passes: list[Batch]) -> Tensor:
    """One optimizer update; returns this process's part of `Run.window`."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr(run, run.step)
    # the loss is a mean over all pixels of the step, however they are shared
    mine = sum(losses.weight_of(batch.images[..., 3], run.weights_on_host) for batch in passes)
    whole = max(run.group.sum([mine])[0], 1e-9)
    forward = scores_of(run.wrapped, run.config, len(run.data.set.classes))
    sums = torch.zeros(5, dtype=torch.float64, device=run.group.device)
    for number, batch in enumerate(passes, 1):
        # gradients are exchanged once per step, in the last pass; DDP takes their mean
        with run.synchronised(number == len(passes)):
            images, truth = run.data.on_device(batch)
            scores = forward(images)
            loss = losses.total(scores, truth, run.config, run.class_weights)
            (loss * (run.group.world / whole)).backward()
        predicted = upsampled(scores[OUT].detach(), truth.shape[-2:]).argmax(1)
        pixels = (truth != IGNORED).sum()
        correct = (predicted == truth).sum()
        nothing = torch.zeros_like(sums[0])
        sums += torch.stack([loss.detach(), nothing, correct, pixels, nothing + len(truth)])
    sums[1] += mine
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    ema.update(run)
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
    run.window = [0.0] * 5
    figures = {
        "epoch": (run.step - 1) // run.per_epoch,
        **means(window),
        "lr": run.optimizer.param_groups[0]["lr"],
    }
    loop.log_steps(run, window[4], figures)


def means(window: list[float]) -> dict[str, float]:
    """The loss, and the share of pixels that are correct, in percent."""
    loss, weight, correct, pixels, _ = window
    return {"loss": loss / max(weight, 1e-9), "pixel_accuracy": 100 * correct / max(1, pixels)}


def validate(run: Run) -> dict[str, Any]:
    """The figures of the validation images; under "ema" those of averaged weights."""
    metrics: dict[str, Any] = evaluated(run, run.network)
    if (averaged := ema.averaged(run)) is not None:
        metrics[best.EMA] = evaluated(run, averaged)
    return metrics


def evaluated(run: Run, model: nn.Module) -> dict[str, Any]:
    """The figures of a network on the validation images, each counted once."""
    batches, rounds = run.data.val(run.data.val_batch(run.split.micro))
    images = (run.data.on_device(batch) for batch in batches)
    # not through DDP, which needs equal numbers of batches
    forward = scores_of(model, run.config, len(run.data.set.classes))
    data, jitter, agree = run.data.set, run.config.jitter, lambda: loop.agree(run)
    return evaluate(model, images, rounds, run.group, forward, data, jitter, agree)


def finish_epoch(run: Run, metrics: dict[str, Any]) -> None:
    """Record the validation and training metrics of an epoch; keep the best weights."""
    training = {f"train_{name}": value for name, value in means(run.total).items()}
    run.total = [0.0] * 5
    metrics = {"epoch": run.epoch, **metrics, **training}
    run.epoch += 1
    loop.evaluated(run, metrics, best.judge(run, metrics), lambda: weights(run), flat(metrics))


def flat(metrics: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Groups of metrics as 'iou/background', for metrics.jsonl."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{above}{name}/") if nested else {f"{above}{name}": value}
    return found
