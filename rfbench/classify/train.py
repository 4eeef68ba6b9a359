"""What a classification adds to a training by epochs: its loss, its figures, their evaluation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.classify import fix
from rfbench.classify.consistency import consistency
from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.mix import classes_of
from rfbench.classify.network import scores_of
from rfbench.classify.run import Run, save, weights
from rfbench.data.loader import Batch
from rfbench.runs import best, loop
from rfbench.training import ema, epochs


def train(run: Run) -> None:
    """Train from the current step of `run` to the last epoch; see `epochs.train`."""
    if run.config.init.fix and not run.fixed:
        fix.fix(run)
        ema.start(run)
        save(run)
    epochs.train(run, KIND)
    loop.written(run)  # its loader starts new processes
    add_consistency(run)


def backward(run: Run, passes: list[Batch]) -> Tensor:
    """The passes of a step; returns [sum of losses, top-1 correct, images] of this process."""
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
    return sums


def figures(sums: list[float]) -> dict[str, float]:
    """The mean loss, and top-1 in percent."""
    loss, correct, images = sums
    return {"loss": loss / max(1, images), "top1": 100 * correct / max(1, images)}


def progress(figures: dict[str, float]) -> str:
    """'loss 2.336, top-1 11.7 %'."""
    return f"loss {figures['loss']:.3f}, top-1 {figures['top1']:.1f} %"


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


KIND = epochs.Kind(backward, figures, progress, evaluated, shown, weights, save)
