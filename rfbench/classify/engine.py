"""A training run, as one page of steps: read `train`, `train_epoch` and `update` from top to end.

Everything that decides a result is a function of the configuration and the update's number; what
is not (weights, optimizer, random numbers, sums since the last line) is in the checkpoint.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.network import scores_of
from rfbench.classify.run import Run
from rfbench.classify.schedule import rate
from rfbench.data.loader import Batch
from rfbench.errors import RfbenchError
from rfbench.runs import processes


class Stopped(Exception):
    """A signal asked the run to stop, and all processes agreed on this update."""

    def __init__(self, asked: int) -> None:
        self.asked = asked


def train(run: Run, note: Callable[[str], object]) -> None:
    """Train from where `run` stands to the last epoch; every epoch is evaluated and saved."""
    for epoch in range(run.epoch, run.config.schedule.epochs):
        train_epoch(run, epoch)
        metrics = validate(run)
        run.finish_epoch(metrics)
        if run.group.first:
            note(f"epoch {epoch + 1}/{run.config.schedule.epochs}: {shown(metrics)}")


def train_epoch(run: Run, epoch: int) -> None:
    """The updates of one epoch that are left."""
    last = (epoch + 1) * run.per_epoch
    batches = run.data.train(run.step, last, run.split)
    run.network.train()
    while run.step < last:
        # 1. the pictures of the update; one process's trouble is everyone's
        passes = fetch(run, batches)
        # 2. stop here if any process was asked to, or failed
        agree(run)
        # 3. forward, backward, optimizer
        losses = update(run, passes)
        # 4. read the update before this one: the GPU is never waited for
        settle(run)
        run.pending = (run.step, losses, [i for b in passes for i in b.indices.tolist()])
        run.step += 1
        # 5. a line of metrics, a checkpoint
        every = run.config.checkpoint.every
        line_due = run.step % run.config.log_every == 0 or run.step == last
        save_due = every and run.step % every == 0 and run.step != last
        if line_due or save_due:
            settle(run)
            run.group.fail_together(run.failure)
        if line_due:
            run.log_window()
        if save_due:
            run.save()
        run.show()


def update(run: Run, passes: list[Batch]) -> Tensor:
    """One update; returns [sum of losses, right at first, pictures] of this process's passes."""
    optim, schedule = run.config.optim, run.config.schedule
    for group in run.optimizer.param_groups:
        group["lr"] = rate(run.step, run.per_epoch, optim.lr, schedule)
    forward = scores_of(run.wrapped, run.config)
    sums = torch.zeros(3, dtype=torch.float64, device=run.group.device)
    for number, batch in enumerate(passes, 1):
        # gradients travel once an update, with the last pass
        with run.synchronised(number == len(passes)):
            images, labels = run.data.on_device(batch)
            scores = forward(images)
            loss = F.cross_entropy(scores.float(), labels, label_smoothing=optim.label_smoothing)
            (loss / len(passes)).backward()
        right = (scores.detach().argmax(1) == labels).sum()
        count = torch.full_like(sums[0], len(labels))
        sums += torch.stack([loss.detach() * count, right, count])
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return sums


def fetch(run: Run, batches: Iterator[Batch]) -> list[Batch]:
    """The passes of the next update; an error is kept until all processes hear of it."""
    try:
        with run.clock.waiting():
            return [next(batches) for _ in range(run.split.accumulation)]
    except RfbenchError as error:
        run.failure = error
        return []


def settle(run: Run) -> None:
    """Add what the last update measured to the sums; a loss that is not finite ends the run."""
    if run.pending is None:
        return
    step, sums, indices = run.pending
    run.pending = None
    found = sums.tolist()
    if not math.isfinite(found[0]):
        names = [run.data.set.train.name(i) for i in indices]
        files = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        run.failure = RfbenchError(
            f"the loss of update {step} is {found[0]}, learning rate "
            f"{rate(step, run.per_epoch, run.config.optim.lr, run.config.schedule):.4g}. "
            f"Lower optim.lr, or look at the pictures of this process's part: {files}"
        )
        return
    run.window = [a + b for a, b in zip(run.window, found, strict=True)]


def agree(run: Run) -> None:
    """See, with all processes, whether to go on: raises Stopped, or the error of any of them."""
    failed = processes.INTERRUPT + 1
    asked = run.group.largest(failed if run.failure else run.signals.asked)
    if asked == processes.GO_ON:
        return
    settle(run)
    run.group.fail_together(run.failure)
    raise Stopped(asked)


def validate(run: Run) -> dict[str, Any]:
    """Loss, top-1 and top-5 on the validation pictures, each counted once."""
    batches, rounds = run.data.val(run.split.micro)
    pictures = (run.data.on_device(batch) for batch in batches)
    # not through DDP, whose processes would have to have equal shares
    forward = scores_of(run.network, run.config)
    with torch.inference_mode():
        return evaluate(run.network, pictures, rounds, run.group, forward, lambda: agree(run))
