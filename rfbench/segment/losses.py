"""The loss: cross-entropy over pixels, summed, so that it does not matter how images are shared."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rfbench.data.segmentation.pairs import IGNORED
from rfbench.schemas.seg import SegConfig
from rfbench.segment.heads import upsampled
from rfbench.segment.network import OUT


def total(
    scores: dict[str, Tensor], truth: Tensor, config: SegConfig, weights: Tensor | None
) -> Tensor:
    """The sum over pixels that are not ignored, of all outputs with their weights.

    scores: (N, C, h, w) by name. truth: (N, H, W) int64. weights: of classes, (C,).
    """
    smoothing = config.optim.label_smoothing
    parts = [
        (1.0 if name == OUT else config.loss.auxiliary)
        * of_pixels(upsampled(one, truth.shape[-2:]), truth, "sum", weights, smoothing)
        for name, one in scores.items()
    ]
    return torch.stack(parts).sum()


def of_pixels(
    scores: Tensor,
    truth: Tensor,
    reduction: str,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    as_list: bool | None = None,
) -> Tensor:
    """Cross-entropy of scores (N, C, H, W) and classes (N, H, W), 0 where they are ignored.

    as_list: as of a list of pixels, which on GPUs is deterministic where that of maps is refused;
    None: only there.
    """
    if as_list is None:
        as_list = scores.is_cuda and torch.are_deterministic_algorithms_enabled()
    shape = truth.shape
    if as_list:
        scores, truth = scores.movedim(1, -1).flatten(0, -2), truth.flatten()
    found = F.cross_entropy(
        scores,
        truth,
        weights,
        ignore_index=IGNORED,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    return found.view(shape) if reduction == "none" else found


def weight_of(truth: Tensor, weights: Tensor | None) -> float:
    """The sum of the weights of the pixels that are not ignored: what `total` is divided by.

    truth: (N, H, W) uint8 or int64, on a CPU. weights: of classes, on a CPU.
    """
    counts = torch.bincount(truth.flatten().int(), minlength=IGNORED + 1)[:IGNORED].double()
    return float(counts.sum() if weights is None else counts[: len(weights)] @ weights.double())
