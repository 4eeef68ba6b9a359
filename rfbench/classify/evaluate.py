"""Loss, top-1 and top-5 over a validation set; each image is counted once on any process count."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.runs.processes import Processes
from rfbench.training.device import evaluating, refuse_nan


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    rounds: int,
    group: Processes,
    forward: Callable[[Tensor], Tensor],
    agree: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """{"loss", "top1", "top5"} (the latter two in percent) and "images", over all processes.

    Without top5 where there are no more than five classes: it would always be 100.
    batches: this process's share, as (images, labels (N,)). rounds: the largest number of
    batches of any process. forward: images to scores (N, C). agree: called by all processes, once
    a round.
    """
    sums = torch.zeros(5, dtype=torch.float64, device=group.device)
    mine = iter(batches)
    with evaluating(model, group):
        for _ in range(rounds):
            agree()
            if (batch := next(mine, None)) is not None and len(batch[1]):
                sums += _counts(forward(batch[0]), batch[1])
    loss, top1, top5, of_more, images = group.sum(sums.tolist())
    refuse_nan(loss, "images")
    if not images:
        raise RfbenchError("no validation image could be read, so there is nothing to measure")
    return {
        "loss": loss / images,
        "top1": 100 * top1 / images,
        **({"top5": 100 * top5 / images} if of_more else {}),
        "images": int(images),
    }


def _counts(scores: Tensor, labels: Tensor) -> Tensor:
    """Sums over (N, C) scores: loss, top-1 correct, top-5 correct, of more than five, images."""
    scores = scores.float()
    best = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(scores, labels, reduction="none").double().sum()
    images = torch.full_like(loss, len(labels))
    of_more = images * (scores.shape[1] > 5)
    return torch.stack([loss, best[:, 0].sum(), best.any(1).sum(), of_more, images])


def shown(metrics: dict[str, Any]) -> str:
    """'top-1 76.30 %, top-5 93.00 %, loss 0.962, consistency 87.40 %'."""
    averaged = f"; of EMA weights: {shown(metrics['ema'])}" if "ema" in metrics else ""
    same = metrics.get("consistency")
    return (
        f"{ranks(metrics)}, loss {metrics['loss']:.4f}"
        + ("" if same is None else f", consistency {same:.2f} %")
        + averaged
    )


def ranks(metrics: dict[str, Any]) -> str:
    """'top-1 76.30 %, top-5 93.00 %'; of at most five classes the former alone."""
    top5 = metrics.get("top5")  # not told of few classes; top-1 always is
    return f"top-1 {metrics['top1']:.2f} %" + ("" if top5 is None else f", top-5 {top5:.2f} %")
