"""Training crops and the centre crop of evaluation, as functions of (image, random numbers).

An image's random numbers are a pure function of (seed, epoch, index), so that neither the number of
workers nor a restart changes a crop. Geometry follows torchvision (boxes of
RandomResizedCrop, sizes of Resize and CenterCrop); pixels follow PIL's antialiased bilinear filter
within one level of 255, and 0.1 in the mean (torch's uint8 kernel).
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Transform(Protocol):
    """A transform that a loader applies to each image."""

    @property
    def size(self) -> int | tuple[int, int] | None:
        """Height and width of the output, in px; None: those of the image."""

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """(H, W, 3) uint8 to (size, size, 3) uint8; `image` is not modified."""


def image_rng(seed: int, epoch: int, index: int) -> random.Random:
    """The random numbers of one image in one epoch.

    Use only `.random()`: Python guarantees its sequence for a text seed (hashed with SHA-512) in
    all versions and on all machines. Takes 6 microseconds; seeding torch takes up to 172.
    """
    return random.Random(f"{seed}/{epoch}/{index}")


@dataclass(frozen=True)
class ResizedCrop:
    """A random part of the image, resized and, half of the time, mirrored (Inception's crop).

    scale: share of the image's area. ratio: width / height. As torchvision's RandomResizedCrop.
    """

    size: int
    flip: bool = True
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        top, left, height, width = self.box(image.shape[0], image.shape[1], rng)
        crop = resize(image[top : top + height, left : left + width], self.size, self.size)
        return _mirror(crop, rng) if self.flip else crop

    def box(self, height: int, width: int, rng: random.Random) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the part of a height x width image."""
        logs = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * _uniform(rng, *self.scale)
            ratio = math.exp(_uniform(rng, *logs))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return _below(rng, height - h + 1), _below(rng, width - w + 1), h, w
        # no such part in a very long image: its centre, as close to `ratio` as possible
        w, h = width, height
        if width / height < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            w = round(height * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class PadCrop:
    """The image shifted by up to `padding` px over black and, half of the time, mirrored.

    The usual augmentation for CIFAR. Images of another size are first resized to `size`.
    """

    size: int
    flip: bool = True
    padding: int = 4

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        p = self.padding
        whole = CenterCrop(self.size, self.size)(image, rng)
        padded = F.pad(whole, (0, 0, p, p, p, p))  # innermost first: channels, columns, rows
        top, left = _below(rng, 2 * p + 1), _below(rng, 2 * p + 1)
        crop = padded[top : top + self.size, left : left + self.size]
        return _mirror(crop, rng) if self.flip else crop


@dataclass(frozen=True)
class CenterCrop:
    """The shorter side resized to `shorter` px, then the centre of `size` px; nothing is random.

    Sizes and offsets are those of torchvision's Resize and CenterCrop.
    """

    size: int
    shorter: int

    def __post_init__(self) -> None:
        if self.shorter < self.size:
            raise ValueError(f"cannot crop {self.size} px out of {self.shorter}")

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        return self.window(image)

    def window(self, image: Tensor, down: int = 0, right: int = 0) -> Tensor:
        """The same crop, of the same resized image, moved by whole px.

        Where it reaches over the resized image's edge, the pixels are mirrored there, the outermost
        not repeated; it may reach over by less than the image's size.
        """
        height, width, _ = image.shape
        longer = int(self.shorter * max(height, width) / min(height, width))
        h, w = (self.shorter, longer) if height <= width else (longer, self.shorter)
        if (h, w) != (height, width):
            image = resize(image, h, w)
        top, left = round((h - self.size) / 2) + down, round((w - self.size) / 2) + right
        if 0 <= top <= h - self.size and 0 <= left <= w - self.size:
            return image[top : top + self.size, left : left + self.size]
        return image[_mirrored(top, self.size, h)][:, _mirrored(left, self.size, w)]


# value of `data.augment` -> function of (size, flip) -> transform of a training image
AUGMENTATIONS: dict[str, Callable[[int, bool], Transform]] = {
    "resized_crop": ResizedCrop,
    "pad_crop": PadCrop,
    "none": lambda size, flip: CenterCrop(size, size),
}


def evaluation(size: int, crop_ratio: float) -> CenterCrop:
    """The centre crop of `crop_ratio` times the shorter side: 0.875 resizes to 256 for 224."""
    return CenterCrop(size, int(size / crop_ratio))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """(H, W, 3) uint8 to (height, width, 3) uint8: bilinear, antialiased."""
    # copies whole rows; torch would copy pixel by pixel
    pixels = image.contiguous()[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0)


class Normalize:
    """Batches (N, H, W, 3) uint8 to a network's input (N, 3, H, W), on the device of the batch.

    `mean` and `std` are fractions of 255. Computed in float32, returned as `dtype`, in the
    channels_last memory format of the bytes (`.contiguous()` gives the other). Create one per run:
    its construction waits for the device.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device)
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        rows = images.flatten(2).float()  # (N, H, W * 3): long rows, and in place, for the CPU
        width = images.shape[2]
        torch.addcmul(self.shift.repeat(width), rows, self.scale.repeat(width), out=rows)
        return rows.view(images.shape).to(self.dtype).permute(0, 3, 1, 2)


def _mirrored(first: int, count: int, n: int) -> Tensor:
    """Which of n pixels stand at first .. first + count - 1, if the row is mirrored at its ends."""
    inside = torch.arange(first, first + count).abs()
    return n - 1 - (n - 1 - inside).abs()


def _mirror(image: Tensor, rng: random.Random) -> Tensor:
    return image.flip(1) if rng.random() < 0.5 else image


def _uniform(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _below(rng: random.Random, n: int) -> int:
    """One of 0 .. n - 1."""
    return int(rng.random() * n)
