"""The images of a run: the data set, and the share that this process reads."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rfbench.data import augment, moved, sources
from rfbench.data.dataset import Dataset, Split
from rfbench.data.loader import Batch, Loader
from rfbench.runs import streams
from rfbench.runs.processes import Processes
from rfbench.schemas.cls import ClsConfig
from rfbench.training.images import Reader
from rfbench.training.split import Split as Shares

logger = logging.getLogger(__name__)


class Images(Reader):
    """A data set with its size and augmentation: as configured, else the data set's defaults."""

    set: Dataset

    def __init__(self, config: ClsConfig, group: Processes, eval_only: bool = False) -> None:
        """List the files without reading them. Raises RfbenchError for an unexpected layout."""
        data = config.data
        found = sources.open_set(
            sources.SOURCES, data.name, data.root, eval_only, data.all_options()
        )
        super().__init__(found, group, data.workers)
        self.config = config
        self.image_size: int = data.image_size or self.set.image_size
        self.train_size: int = data.train_size or self.image_size
        self.crop_ratio = data.crop_ratio or self.set.crop_ratio
        self.augment: str = data.augment or self.set.augment
        self.flip = self.set.flip if data.flip is None else data.flip
        self._number_of: Tensor | None = None  # of a class of the data, see `follow`
        self._normalize = augment.Normalize(self.set.mean, self.set.std, group.device)

    def moved(self, batch: int) -> tuple[Iterator[Batch], int]:
        """As `val`, of two moved windows of each of `consistency_images` images, see `Moved`."""
        images = min(self.config.consistency_images, len(self.set.val))
        return self.evaluated("moved", 2 * images, batch)

    def follow(self, classes: Sequence[str] | None) -> None:
        """Number the classes as a checkpoint does, whose outputs stand in its own order.

        classes: the same names; None: not told.
        """
        if classes is None or list(classes) == self.set.classes:
            return
        number = {name: i for i, name in enumerate(classes)}
        self._number_of = torch.tensor([number[name] for name in self.set.classes])
        self.set = dataclasses.replace(self.set, classes=list(classes))

    def memory(self, split: Shares) -> int:
        """The bytes of shared memory that the loaders of this process take."""
        return self._memory(split, max(self.image_size, self.train_size) ** 2 * 3)

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), normalised, and labels (N,)."""
        device = self.group.device
        images = self._normalize(streams.to_device(batch.images, device))
        # the loader's batches are already in channels_last order
        if not self.config.channels_last:
            images = images.contiguous()
        labels = batch.labels if self._number_of is None else self._number_of[batch.labels]
        return images, streams.to_device(labels, device)

    def described(self) -> str:
        """'imagenet: 1281167 training images, 50000 validation images, 1000 classes, ...'."""
        data = self.set
        return (
            f"{data.name}: {len(data.train)} training images, {len(data.val)} validation images, "
            f"{len(data.classes)} classes, at {self.image_size} px"
        )

    def make_loader(self, which: str) -> Loader:
        """The loader of "train", "val" or "moved"."""
        split, transform = self._split(which)
        return Loader(
            split,
            transform,
            train=which == "train",
            seed=self.config.seed,
            workers=self.workers,
            pin_memory=self.group.device.type == "cuda",
            used=self.used,
            # "moved" is a part of "val", where the unreadable have been counted
            max_bad_share=1.0 if which == "moved" else self.config.data.max_bad_share,
        )

    def _split(self, which: str) -> tuple[Split, augment.Transform]:
        size, crop = self.image_size, augment.evaluation(self.image_size, self.crop_ratio)
        if which == "train":
            return self.set.train, self._augmented()
        if which == "val":
            return self.set.val, crop
        windows = moved.Moved(self.set.val, crop, self.config.consistency_images)
        return windows, augment.CenterCrop(size, size)

    def _augmented(self) -> augment.Transform:
        base, data = (
            augment.AUGMENTATIONS[self.augment](self.train_size, self.flip),
            self.config.data,
        )
        if not (data.policy or data.erase):
            return base
        from rfbench.data.policies import Augmented  # imports torchvision

        return Augmented(base, data.policy, data.erase, self.set.mean)
