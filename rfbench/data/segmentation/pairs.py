"""A data set for segmentation: class names, and two splits of images with their masks.

An image and its mask are read as one array of four channels, so that whatever moves the one moves
the other: red, green, blue, and the class of the pixel.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rfbench.data import decode
from rfbench.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from rfbench.data.decode import BadImage
from rfbench.data.segmentation import masks
from rfbench.data.segmentation.masks import Values
from rfbench.errors import RfbenchError

IGNORED = masks.IGNORED
CHANNELS = 4


class ArrayPairs:
    """Images of one size in memory: `pixels` is (n, H, W, 4) uint8."""

    def __init__(self, pixels: np.ndarray, name: str) -> None:
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels))
        self.labels = np.zeros(len(pixels), np.int64)  # the loader's, of whole images
        self._name = name

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, i: int) -> str:
        """What image i is called in messages."""
        return f"{self._name}/{i}"

    def read(self, i: int) -> Tensor:
        """Image i with its mask, (H, W, 4) uint8."""
        return self.pixels[i]


class FilePairs:
    """Images and masks in files; image i is `images[i]`, its mask `labels[i]`."""

    def __init__(
        self,
        images: Sequence[str],
        labels: Sequence[str],
        values: Values,
        upright: bool | None = None,
    ) -> None:
        """values: what a mask's pixels mean. upright: turn images as EXIF says; None: unknown."""
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} masks")
        # arrays, which the processes of a loader share
        self._images = np.array([os.fsencode(path) for path in images], dtype=bytes)
        self._masks = np.array([os.fsencode(path) for path in labels], dtype=bytes)
        self.values = values
        self.upright = upright
        self.labels = np.zeros(len(images), np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """The path of image i."""
        return os.fsdecode(self._images[i])

    def paths(self) -> list[str]:
        """The path of every image."""
        return [os.fsdecode(path) for path in self._images.tolist()]

    def mask_name(self, i: int) -> str:
        """The path of mask i."""
        return os.fsdecode(self._masks[i])

    def read(self, i: int) -> Tensor:
        """Image i with its mask, (H, W, 4) uint8; raises `BadImage`."""
        image = decode.read(self.name(i), bool(self.upright))
        mask = torch.from_numpy(masks.read(self.mask_name(i), self.values))
        if image.shape[:2] != mask.shape:
            raise BadImage(self.mask_name(i), differs(mask.shape, image.shape))
        return torch.cat([image, mask[..., None]], 2)


class Renumbered:
    """Pairs whose classes have other numbers: class i becomes `numbers[i]`."""

    def __init__(self, pairs: "ArrayPairs | FilePairs", numbers: Sequence[int]) -> None:
        self.pairs = pairs
        self.labels = pairs.labels
        self._table = torch.arange(256, dtype=torch.uint8)
        self._table[: len(numbers)] = torch.tensor([*numbers], dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, i: int) -> str:
        """As of the pairs."""
        return self.pairs.name(i)

    def read(self, i: int) -> Tensor:
        """Image i with its mask, (H, W, 4) uint8; raises `BadImage`."""
        pixels = self.pairs.read(i)
        mask = self._table[pixels[..., 3].int()]
        return torch.cat([pixels[..., :3], mask[..., None]], 2)


Pairs = ArrayPairs | FilePairs | Renumbered


def differs(mask: Sequence[int], image: Sequence[int]) -> str:
    """What is wrong with a mask of another size, given (H, W, ...) of both."""
    return f"the mask is {mask[1]}x{mask[0]} px, its image {image[1]}x{image[0]} px"


@dataclass(frozen=True)
class SegSet:
    """A data set with its usual settings, which a configuration may override.

    background: the class that is none of the objects; None: every class is an object or stuff.
    size: (H, W) of every image; None: they differ. crop: (H, W) of a training image. scale: least
    and most factor of a training image's size.
    """

    name: str
    classes: list[str]
    train: Pairs  # empty when only the validation images were asked for
    val: Pairs
    background: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] = (512, 512)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    notes: tuple[str, ...] = ()  # remarks for the user, one line each

    def __post_init__(self) -> None:
        """Raise RfbenchError for classes that figures by name, or masks of bytes, cannot hold."""
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise RfbenchError(f"{self.name}: two classes are called {twice!r}")
        if len(self.classes) > IGNORED:
            raise RfbenchError(f"{self.name} has {len(self.classes)} classes; at most {IGNORED}")


def none(values: Values) -> FilePairs:
    """A split without images."""
    return FilePairs([], [], values)
