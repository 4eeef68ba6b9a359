"""The images of a run: the data set, and the share that this process reads."""

import dataclasses
import logging
import math
import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rfbench.data import augment, moved, sources, workers
from rfbench.data.dataset import ArraySplit, Dataset, Split
from rfbench.data.loader import Batch, Loader, held_batches
from rfbench.data.order import TrainTasks, evaluation_tasks
from rfbench.errors import UsageError
from rfbench.runs.processes import Processes
from rfbench.schemas.cls import ClsConfig
from rfbench.training.split import Split as Shares

logger = logging.getLogger(__name__)


class Images:
    """A data set with its size and augmentation: as configured, else the data set's defaults."""

    def __init__(self, config: ClsConfig, group: Processes, eval_only: bool = False) -> None:
        """List the files without reading them. Raises RfbenchError for an unexpected layout."""
        data = config.data
        self.set: Dataset = sources.load(data.name, data.root, eval_only, **data.all_options())
        for note in self.set.notes:
            logger.info(note)
        self.config = config
        self.group = group
        self.image_size: int = data.image_size or self.set.image_size
        self.train_size: int = data.train_size or self.image_size
        self.crop_ratio = data.crop_ratio or self.set.crop_ratio
        self.augment: str = data.augment or self.set.augment
        self.flip = self.set.flip if data.flip is None else data.flip
        self.workers = self._workers()
        self._loaders: dict[str, Loader] = {}
        self._bad: dict[str, str] = {}
        self._number_of: Tensor | None = None  # of a class of the data, see `follow`
        self._normalize = augment.Normalize(self.set.mean, self.set.std, group.device)

    def train(self, first: int, last: int, split: Shares) -> Iterator[Batch]:
        """This process's micro-batches for the steps `first` .. `last` - 1."""
        n, group = len(self.set.train), self.group
        tasks = TrainTasks(n, split.batch, first, last, split.accumulation, group.rank, group.world)
        return self._loader("train").batches(tasks)

    def val(self, batch: int) -> tuple[Iterator[Batch], int]:
        """This process's share of the validation images, and the most batches of any process."""
        if not len(self.set.val):
            raise UsageError(f"the data set '{self.set.name}' has no validation images")
        return self._evaluated("val", len(self.set.val), batch)

    def moved(self, batch: int) -> tuple[Iterator[Batch], int]:
        """As `val`, of two moved windows of each of `consistency_images` images, see `Moved`."""
        images = min(self.config.consistency_images, len(self.set.val))
        return self._evaluated("moved", 2 * images, batch)

    def _evaluated(self, which: str, n: int, batch: int) -> tuple[Iterator[Batch], int]:
        world = self.group.world
        tasks = evaluation_tasks(n, batch, self.group.rank, world)
        return self._loader(which).batches(tasks), math.ceil(math.ceil(n / world) / batch)

    def follow(self, classes: Sequence[str] | None) -> None:
        """Number the classes as a checkpoint does, whose outputs stand in its own order.

        classes: the same names; None: not told.
        """
        if classes is None or list(classes) == self.set.classes:
            return
        number = {name: i for i, name in enumerate(classes)}
        self._number_of = torch.tensor([number[name] for name in self.set.classes])
        self.set = dataclasses.replace(self.set, classes=list(classes))

    def check_memory(self, split: Shares) -> None:
        """Raise RfbenchError if the shared memory is too small for the loaders' batches.

        That of validation would be noticed after the first epoch.
        """
        loaders = ((self.set.train, True), (self.set.val, False))
        count = sum(
            held_batches(self.workers, train, math.ceil(len(part) / split.world / split.micro))
            for part, train in loaders
        )
        workers.check_room(count * split.micro * self.image_size**2 * 3)

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), normalised, and labels (N,)."""
        device = self.group.device
        images = self._normalize(batch.images.to(device, non_blocking=True))
        # the loader's batches are already in channels_last order
        if not self.config.channels_last:
            images = images.contiguous()
        labels = batch.labels if self._number_of is None else self._number_of[batch.labels]
        return images, labels.to(device, non_blocking=True)

    def described(self) -> str:
        """'imagenet: 1281167 training images, 50000 validation images, 1000 classes, ...'."""
        data = self.set
        return (
            f"{data.name}: {len(data.train)} training images, {len(data.val)} validation images, "
            f"{len(data.classes)} classes, at {self.image_size} px"
        )

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each split."""
        return {"train": len(self.set.train), "val": len(self.set.val)}

    @property
    def bad(self) -> dict[str, str]:
        """Path and reason of every image that this process could not read."""
        bad = dict(self._bad)
        for loader in self._loaders.values():
            bad.update(loader.bad)
        return bad

    def restore_bad(self, bad: dict[str, str]) -> None:
        """Go on counting from an earlier part of the run."""
        self._bad = dict(bad)

    def close(self) -> None:
        """End the DataLoader workers."""
        for loader in self._loaders.values():
            loader.close()

    def _loader(self, which: str) -> Loader:
        """The loader of "train", "val" or "moved", which stays."""
        if which not in self._loaders:
            split, transform = self._split(which)
            self._loaders[which] = Loader(
                split,
                transform,
                train=which == "train",
                seed=self.config.seed,
                workers=self.workers,
                pin_memory=self.group.device.type == "cuda",
                # "moved" is a part of "val", where the unreadable have been counted
                max_bad_share=1.0 if which == "moved" else self.config.data.max_bad_share,
            )
            if which == "train":
                self._loaders[which].bad.update(self._bad)
        return self._loaders[which]

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

    def _workers(self) -> int:
        """As configured, else one per CPU core, shared by the processes of this machine."""
        if self.config.data.workers is not None:
            return self.config.data.workers
        if self.group.device.type == "cpu":  # its cores are busy with training
            return 0 if isinstance(self.set.train, ArraySplit) else 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        # set by torchrun; srun binds each process to its own cores
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return max(1, min(32, (cores or 1) // max(1, here)))
