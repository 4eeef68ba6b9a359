"""A data set: class names, and two splits that can name and read each image."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rfbench.data import decode

# the usual mean and standard deviation of ImageNet's training images
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_PIXELS = 1 << 27  # of an input, or a part of an image; PIL takes larger images for attacks


class Split(Protocol):
    """Images with labels, numbered 0 .. len - 1."""

    labels: np.ndarray  # int64 (n,)

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """The path of image i, for messages."""

    def read(self, i: int) -> Tensor:
        """Image i, (H, W, 3) uint8, read-only; raises `BadImage`."""


class FileSplit:
    """Images in files. One array holds all names (1.28 M): workers share it, and start fast."""

    def __init__(
        self,
        folders: Sequence[str],
        folder_of: Sequence[int] | np.ndarray,
        files: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        linked: bool = False,
    ) -> None:
        """Image i is `files[i]`, a path relative to `folders[folder_of[i]]`.

        linked: whether there are symbolic links among files and folders.
        """
        self.linked = linked
        self._folders = list(folders)
        self._folder_of = np.asarray(folder_of, dtype=np.int32)
        self._files = np.array([os.fsencode(file) for file in files], dtype=bytes)
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return os.path.join(self._folders[self._folder_of[i]], os.fsdecode(self._files[i]))

    def read(self, i: int) -> Tensor:
        return decode.read(self.name(i))

    def paths(self) -> list[str]:
        """The path of every image, as `name` tells one."""
        both = zip(self._folder_of.tolist(), self._files.tolist(), strict=True)
        return [os.path.join(self._folders[k], os.fsdecode(file)) for k, file in both]

    def real_names(self) -> set[str]:
        """The real paths of all images, links followed."""
        folders = self.real_folders()
        real: dict[str, str] = {}
        found = set()
        for folder, file in zip(self._folder_of.tolist(), self._files.tolist(), strict=True):
            path = os.path.join(folders[folder], os.fsdecode(file))
            inside, name = os.path.split(path)
            if inside not in real:
                real[inside] = os.path.realpath(inside)
            path = os.path.join(real[inside], name)
            linked = self.linked and os.path.islink(path)
            found.add(os.path.realpath(path) if linked else path)
        return found

    def real_folders(self) -> list[str]:
        """The real paths of the folders."""
        return [os.path.realpath(folder) for folder in self._folders]

    def take(self, which: np.ndarray) -> "FileSplit":
        """A split of only the images `which`."""
        part = FileSplit(self._folders, self._folder_of[which], [], self.labels[which], self.linked)
        part._files = self._files[which]
        return part


class ArraySplit:
    """Images of one size in memory: `images` is (n, H, W, 3) uint8."""

    def __init__(self, images: np.ndarray, labels: Sequence[int] | np.ndarray, name: str) -> None:
        self._images = torch.from_numpy(np.ascontiguousarray(images))
        self._name = name
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return f"{self._name}/{i}"

    def read(self, i: int) -> Tensor:
        return self._images[i]


@dataclass(frozen=True)
class Dataset:
    """A data set with its usual settings, which a configuration may override."""

    name: str
    classes: list[str]
    train: Split  # empty when only the validation images were asked for
    val: Split
    image_size: int = 224
    crop_ratio: float = 0.875  # of the evaluation: crop size over the resized shorter side
    augment: str = "resized_crop"  # a key of AUGMENTATIONS
    flip: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    notes: tuple[str, ...] = ()  # remarks for the user, one line each


def some(names: Sequence[str], n: int = 5) -> str:
    """The first `n` names and the number of others, for a message."""
    rest = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + rest
