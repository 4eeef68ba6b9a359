"""What is counted over pixels, and the figures that follow from the counts.

Counts are whole numbers and add up, so that the figures are the same however the images are shared
between processes and batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rfbench.data.segmentation.pairs import IGNORED

WIDTH = 0.02  # of a boundary, of the image's diagonal: Cheng et al. 2021, section 5.3


@dataclass
class Counts:
    """Sums over images, int64 but for the loss.

    confusion: (C, C), pixels by true class (rows) and predicted class. boundary: (3, C), pixels in
    both boundaries, in the true and in the predicted one, by class. moved: (2,), pixels whose class
    changes, and those compared. loss: (2,) float64, sum of cross-entropies, and pixels. images.
    """

    confusion: Tensor
    boundary: Tensor
    moved: Tensor
    loss: Tensor
    images: int = 0


def zero(classes: int, device: torch.device | str = "cpu") -> Counts:
    """Counts of no images."""

    def whole(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=device)

    loss = torch.zeros(2, dtype=torch.float64, device=device)
    return Counts(whole(classes, classes), whole(3, classes), whole(2), loss)


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """(C, C) pixels by true class (rows) and predicted class; ignored ones are left out."""
    known = truth != IGNORED
    pairs = truth[known] * classes + predicted[known]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def boundary(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """(3, C) pixels of boundaries: in both, in the true one, in the predicted one, by class.

    predicted, truth: (N, H, W). Boundary IoU (Cheng et al. 2021, equation 3): of a class with mask
    G and predicted mask P, |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|, where G_d are the
    pixels within d of G's contour. As in the authors' code: G_d & G are the pixels of G that an
    erosion by a 3x3 square, repeated d times, removes; d is 2 % of the image's diagonal, rounded,
    at least 1; outside of the image is not G. Where they evaluate single objects, here pixels are
    summed over all images, as for mIoU. Ignored pixels are counted in no set and make no contour:
    they are taken for part of every mask when it is eroded.
    """
    known = truth != IGNORED
    width = max(1, round(WIDTH * math.hypot(*truth.shape[-2:])))
    edge_true, edge_predicted = (
        edges(labels, known, width) & known for labels in (truth, predicted)
    )
    both = edge_true & edge_predicted & (truth == predicted)
    parts = (truth[both], truth[edge_true], predicted[edge_predicted])
    return torch.stack([torch.bincount(part, minlength=classes) for part in parts])


def edges(labels: Tensor, known: Tensor, width: int) -> Tensor:
    """Whether a pixel's own mask ends within `width` px in rows and columns: (N, H, W) bool.

    known: false for pixels that belong to every mask.
    """
    # the mask of a pixel is not left in its square if least and largest class there are its own
    low = torch.where(known, labels, 1e6).float()
    high = torch.where(known, labels, -1e6).float()
    least = -_largest(-low, width)
    return (least != low) | (_largest(high, width, outside=1e7) != high)


def _largest(values: Tensor, width: int, outside: float = 1e7) -> Tensor:
    """The largest in the square of 2 width + 1 px around each, `outside` beyond the border."""
    padded = F.pad(values[:, None], [width] * 4, value=outside)
    rows = F.max_pool2d(padded, (2 * width + 1, 1), 1)
    return F.max_pool2d(rows, (1, 2 * width + 1), 1)[:, 0]


def moved(predicted: Tensor, of_moved: Tensor) -> Tensor:
    """(2,): pixels whose class changes when the image moves by 1 px down and right, and all pixels.

    predicted, of_moved: (N, H, W), of the images and of the images moved. A pixel is compared with
    itself where it has moved to; what leaves or enters the image is left out.
    """
    before, after = predicted[:, :-1, :-1], of_moved[:, 1:, 1:]
    return torch.stack(
        [(before != after).sum(), torch.tensor(before.numel(), device=before.device)]
    )


def summary(counts: Counts, names: Sequence[str], background: int | None) -> dict[str, Any]:
    """The figures, in percent but for the loss; None where there is nothing to divide by.

    pixel_accuracy: of all pixels. mean_accuracy: mean over the classes that occur of the share of
    their pixels that is found. mIoU: mean over the classes that occur or are predicted;
    foreground_mIoU: without `background`. boundary_mIoU: see `boundary`, mean over classes with a
    boundary. jitter: see `moved`; None if it was not measured. iou, boundary_iou: by class.
    """
    matrix = counts.confusion.double().cpu()
    hits, true, found = matrix.diag(), matrix.sum(1), matrix.sum(0)
    both, edge_true, edge_found = counts.boundary.double().cpu()
    iou = shares(hits, true + found - hits)
    edge = shares(both, edge_true + edge_found - both)
    changed, compared = counts.moved.tolist()
    loss, pixels = counts.loss.tolist()
    foreground = [value for i, value in enumerate(iou) if i != background]
    return {
        "loss": loss / max(pixels, 1),
        "pixel_accuracy": shares(hits.sum()[None], true.sum()[None])[0],
        "mean_accuracy": mean(shares(hits, true)),
        "mIoU": mean(iou),
        "foreground_mIoU": None if background is None else mean(foreground),
        "boundary_mIoU": mean(edge),
        "jitter": 100 * changed / compared if compared else None,
        "iou": dict(zip(names, iou, strict=True)),
        "boundary_iou": dict(zip(names, edge, strict=True)),
        "images": counts.images,
    }


def shares(part: Tensor, whole: Tensor) -> list[float | None]:
    """Percentages; None of nothing."""
    return [100 * a / b if b else None for a, b in zip(part.tolist(), whole.tolist(), strict=True)]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the numbers; None if there are none."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
