"""Figures over a validation set; each pixel is counted once on any process count."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.data.segmentation.pairs import IGNORED, SegSet
from rfbench.runs.processes import Processes
from rfbench.segment import figures, losses
from rfbench.segment.heads import upsampled
from rfbench.segment.network import OUT
from rfbench.training.device import evaluating, refuse_nan

Forward = Callable[[Tensor], dict[str, Tensor]]


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    rounds: int,
    group: Processes,
    forward: Forward,
    data: SegSet,
    jitter: bool = True,
    agree: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The figures of `figures.summary`, over all processes; RfbenchError for scores of NaN.

    batches: this process's share, as (images, classes of pixels (N, H, W)). rounds: the largest
    number of batches of any process. forward: images to scores by name. jitter: also predict every
    image moved by 1 px. agree: called by all processes, once a round.
    """
    counts = figures.zero(len(data.classes), group.device)
    mine = iter(batches)
    with evaluating(model, group):
        for _ in range(rounds):
            agree()
            if (batch := next(mine, None)) is not None and len(batch[1]):
                add(counts, forward, *batch, jitter=jitter)
    total = summed(counts, group)
    refuse_nan(float(total.loss[0]), "pixels")
    return figures.summary(total, data.classes, data.background)


def add(
    counts: figures.Counts, forward: Forward, images: Tensor, truth: Tensor, jitter: bool
) -> None:
    """Count one batch."""
    classes = len(counts.confusion)
    later = moved(images) if jitter else None  # now: a network may change its input
    scores = upsampled(forward(images)[OUT], truth.shape[-2:])
    predicted = scores.argmax(1)
    counts.confusion += figures.confusion(predicted, truth, classes)
    counts.boundary += figures.boundary(predicted, truth, classes)
    each = losses.of_pixels(scores, truth, "none")
    counts.loss += torch.stack([each.double().sum(), (truth != IGNORED).sum()])
    counts.images += len(truth)
    if later is not None:
        after = upsampled(forward(later)[OUT], truth.shape[-2:]).argmax(1)
        counts.moved += figures.moved(predicted, after)


def moved(images: Tensor) -> Tensor:
    """(N, C, H, W) moved by 1 px down and right; the first row and column are repeated.

    The size stays the same, so that both are up-sampled alike.
    """
    shifted = F.pad(images, (1, 0, 1, 0), mode="replicate")[..., :-1, :-1]
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return shifted.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def summed(counts: figures.Counts, group: Processes) -> figures.Counts:
    """The counts of all processes."""
    images = torch.tensor(counts.images)
    whole = (counts.confusion, counts.boundary, counts.moved, counts.loss, images)
    parts = [part.cpu() for part in whole]
    if group.control is not None:
        for part in parts:
            dist.all_reduce(part, group=group.control)
    confusion, boundary, changed, loss, images = parts
    return figures.Counts(confusion, boundary, changed, loss, int(images))


def shown(metrics: dict[str, Any]) -> str:
    """'mIoU 41.35 %, foreground 37.20 %, boundary 30.11 %, pixel accuracy 95.03 %, ...'."""
    names = {
        "mIoU": "mIoU",
        "foreground_mIoU": "foreground",
        "boundary_mIoU": "boundary",
        "pixel_accuracy": "pixel accuracy",
        "jitter": "jitter",
    }
    parts = [
        f"{text} {metrics[key]:.2f} %" for key, text in names.items() if metrics[key] is not None
    ]
    averaged = f"; of EMA weights: {shown(metrics['ema'])}" if "ema" in metrics else ""
    return f"{', '.join(parts)}, loss {metrics['loss']:.4f}{averaged}"
