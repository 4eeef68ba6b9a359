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
    """{"loss", "top1", "top5"} (the latter two in percent) and "pictures", over all processes.

    batches: this process's share, as (images, labels (N,)). rounds: the largest number of
    batches of any process. forward: images to scores (N, C). agree: called by all processes, once
    a round.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=group.device)
    mine = iter(batches)
    with evaluating(model, group):
        for _ in range(rounds):
            agree()
            if (batch := next(mine, None)) is not None and len(batch[1]):
                sums += _counts(forward(batch[0]), batch[1])
    loss, top1, top5, images = group.sum(sums.tolist())
    refuse_nan(loss, "images")
    if not images:
        raise RfbenchError("no validation image could be read, so there is nothing to measure")
    return {
        "loss": loss / images,
        "top1": 100 * top1 / images,
        "top5": 100 * top5 / images,
        "pictures": int(images),
    }


def _counts(scores: Tensor, labels: Tensor) -> Tensor:
    """Sums over (N, C) scores: loss, top-1 correct, top-5 correct, images."""
    scores = scores.float()
    best = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
    loss = F.cross_entropy(scores, labels, reduction="none").double().sum()
    return torch.stack(
        [loss, best[:, 0].sum(), best.any(1).sum(), torch.ones_like(loss) * len(labels)]
    )


def shown(metrics: dict[str, Any]) -> str:
    """'top-1 76.30 %, top-5 93.00 %, loss 0.962, consistency 87.40 %'."""
    averaged = f"; of EMA weights: {shown(metrics['ema'])}" if "ema" in metrics else ""
    same = metrics.get("consistency")
    return (
        f"top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %, loss {metrics['loss']:.4f}"
        + ("" if same is None else f", consistency {same:.2f} %")
        + averaged
    )
