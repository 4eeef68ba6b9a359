"""What a segmentation adds to a training by epochs: its loss, its figures, their evaluation."""

from typing import Any

import torch
from torch import Tensor, nn

from rfbench.data.loader import Batch
from rfbench.data.segmentation.pairs import IGNORED
from rfbench.runs import loop
from rfbench.segment import losses
from rfbench.segment.evaluate import evaluate, shown
from rfbench.segment.heads import upsampled
from rfbench.segment.network import OUT, scores_of
from rfbench.segment.run import Run, save, weights
from rfbench.training import epochs


def train(run: Run) -> None:
    """Train from the current step of `run` to the last epoch; see `epochs.train`."""
    epochs.train(run, KIND)


def backward(run: Run, passes: list[Batch]) -> Tensor:
    """The passes of a step; returns this process's part of `Run.window`."""
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
    return sums


def figures(sums: list[float]) -> dict[str, float]:
    """The mean loss, and the share of pixels that are correct, in percent."""
    loss, weight, correct, pixels, _ = sums
    return {"loss": loss / max(weight, 1e-9), "pixel_accuracy": 100 * correct / max(1, pixels)}


def progress(figures: dict[str, float]) -> str:
    """'loss 0.336, 95.7 % of pixels'."""
    return f"loss {figures['loss']:.3f}, {figures['pixel_accuracy']:.1f} % of pixels"


def evaluated(run: Run, model: nn.Module) -> dict[str, Any]:
    """The figures of a network on the validation images, each counted once."""
    batches, rounds = run.data.val(run.data.val_batch(run.split.micro))
    images = (run.data.on_device(batch) for batch in batches)
    # not through DDP, which needs equal numbers of batches
    forward = scores_of(model, run.config, len(run.data.set.classes))
    data, jitter, agree = run.data.set, run.config.jitter, lambda: loop.agree(run)
    return evaluate(model, images, rounds, run.group, forward, data, jitter, agree)


KIND = epochs.Kind(backward, figures, progress, evaluated, shown, weights, save)
