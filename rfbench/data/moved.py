"""Images moved by a little, for a classifier's consistency (Zhang, 2019, section 4.1).

The window of the evaluation is moved over the image that the evaluation resizes, to two different
positions that are at most 1/8 of the window apart along each axis. ImageNet's usual crop (224 of
256 px) has pixels enough for that; elsewhere the image is mirrored at its edges, see
`CenterCrop.window`. Images and moves are the same for every run, whatever its seed.
"""

import random

import numpy as np
from torch import Tensor

from rfbench.data.augment import CenterCrop, image_rng
from rfbench.data.dataset import Split
from rfbench.data.order import epoch_order

SEED = 0
PART = 8  # of the window's side


def reach(size: int) -> int:
    """The largest distance in px, along an axis, between two windows of `size` px."""
    return size // PART


def moves(rng: random.Random, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two different moves (down, right) in whole px, each from -r // 2 to r - r // 2; r: `reach`.

    Raises ValueError if there is only one, the window being smaller than 8 px.
    """
    side = reach(size) + 1
    if side < 2:
        raise ValueError(f"1/{PART} of {size} px is less than one pixel")
    first = int(rng.random() * side**2)
    other = int(rng.random() * (side**2 - 1))
    other += other >= first  # any but the first
    return _move(first, side), _move(other, side)


def _move(number: int, side: int) -> tuple[int, int]:
    """The move of that number among side * side."""
    down, right = divmod(number, side)
    return down - (side - 1) // 2, right - (side - 1) // 2


class Moved:
    """A split of two windows of each of `count` images: numbers 2 i and 2 i + 1 are of one image.

    The images are chosen at random among all. crop: the evaluation's.
    """

    def __init__(self, split: Split, crop: CenterCrop, count: int) -> None:
        self._split = split
        self._crop = crop
        self._chosen = np.sort(epoch_order(len(split), SEED, 0)[:count])
        self.labels = np.repeat(split.labels[self._chosen], 2)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """The path of the image that window i is of."""
        return self._split.name(int(self._chosen[i // 2]))

    def read(self, i: int) -> Tensor:
        """Window i, (size, size, 3) uint8; raises `BadImage`."""
        index = int(self._chosen[i // 2])
        move = moves(image_rng(SEED, 0, index), self._crop.size)[i % 2]
        return self._crop.window(self._split.read(index), *move)
