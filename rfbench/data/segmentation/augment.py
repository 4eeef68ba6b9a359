"""Training crops of an image with its mask, as functions of (pixels, random numbers).

As in data/augment, an image's random numbers are a pure function of (seed, epoch, index). The
image is resized bilinearly with antialiasing, its mask by the nearest pixel; both sample at the
centres of pixels, so that neither moves against the other.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.data.augment import resize
from rfbench.data.segmentation.pairs import IGNORED


@dataclass(frozen=True)
class ScaledCrop:
    """A random part of the image, resized by a factor in `scale`, and mirrored half of the time.

    size: (H, W) of the result. Where the part reaches beyond the image, it is filled with `fill`
    and ignored.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    fill: tuple[int, int, int] = (124, 116, 104)

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """(H, W, 4) uint8 to (*size, 4) uint8; `image` is not modified."""
        low, high = self.scale
        factor = low + (high - low) * rng.random()
        height, width = (max(1, round(side / factor)) for side in self.size)
        top, left = (
            _offset(side, part, rng)
            for side, part in zip(image.shape[:2], (height, width), strict=True)
        )
        part = resized(self._cut(image, top, left, height, width), self.size)
        return part.flip(1) if self.flip and rng.random() < 0.5 else part

    def _cut(self, pixels: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        """The part at (top, left), which may begin and end outside."""
        rows, columns = pixels.shape[:2]
        if top >= 0 and left >= 0 and top + height <= rows and left + width <= columns:
            return pixels[top : top + height, left : left + width]
        part = torch.tensor([*self.fill, IGNORED], dtype=torch.uint8).repeat(height, width, 1)
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(rows, top + height), min(columns, left + width)
        part[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
        return part


@dataclass(frozen=True)
class Whole:
    """The image as it is; nothing is random. size: (H, W) of every image, None: they differ."""

    size: tuple[int, int] | None = None

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """(H, W, 4) uint8 to the same."""
        return image


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, 4) uint8 to (*size, 4): the image bilinear, the mask by the nearest pixel."""
    if pixels.shape[:2] == size:
        return pixels
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp_(max=old - 1)
        for old, new in zip(pixels.shape[:2], size, strict=True)
    )
    mask = pixels[rows][:, columns, 3:]
    return torch.cat([resize(pixels[..., :3], *size), mask], 2)


def _offset(side: int, part: int, rng: random.Random) -> int:
    """Where a part begins: anywhere inside or, if it is larger, so that it contains all."""
    offset = int(rng.random() * (abs(side - part) + 1))
    return offset if part <= side else -offset
