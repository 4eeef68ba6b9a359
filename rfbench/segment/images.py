"""The images of a run with their masks: the data set, and the share that this process reads."""

import dataclasses
import logging
import math
from collections.abc import Sequence

from torch import Tensor

from rfbench.data import augment, sources
from rfbench.data.dataset import MOST_PIXELS, some
from rfbench.data.loader import Batch, Loader
from rfbench.data.segmentation import check
from rfbench.data.segmentation.augment import ScaledCrop, Whole
from rfbench.data.segmentation.pairs import CHANNELS, Renumbered, SegSet
from rfbench.data.segmentation.sources import SOURCES
from rfbench.errors import RfbenchError, UsageError
from rfbench.runs import streams
from rfbench.runs.processes import Processes
from rfbench.schemas.seg import SegConfig
from rfbench.training.images import Reader
from rfbench.training.split import Split as Shares

logger = logging.getLogger(__name__)

Found = set[int]  # of classes


class Images(Reader):
    """A data set with its crop and augmentation: as configured, else the data set's defaults."""

    set: SegSet
    channels = CHANNELS  # with the mask

    def __init__(self, config: SegConfig, group: Processes, eval_only: bool = False) -> None:
        """List the files without reading them. Raises RfbenchError for an unexpected layout."""
        data = config.data
        found = sources.open_set(SOURCES, data.name, data.root, eval_only, data.options)
        super().__init__(found, group, data.workers)
        self._own_classes = found.classes  # as masks number them, see `follow`
        self.val_sizes: dict[tuple[int, int], str] = {}  # and the name of an image, see `check`
        self.config = config
        self.crop = data.crop or self.set.crop
        self.scale = data.scale or self.set.scale
        self.flip = self.set.flip if data.flip is None else data.flip
        self._refuse(eval_only)
        self._normalize = augment.Normalize(self.set.mean, self.set.std, group.device)

    def _refuse(self, eval_only: bool) -> None:
        """Raise UsageError for settings that do not go with the data set."""
        if self.config.best_metric == "foreground_mIoU" and self.set.background is None:
            names = "data.options.background=CLASS names it" if self.set.name == "folder" else ""
            raise UsageError(
                f"best_metric: {self.set.name} has no background, so there is no foreground_mIoU. "
                + (f"With -o {names}." if names else "Choose another.")
            )
        read = tuple(max(1, round(side / self.scale[0])) for side in self.crop)
        if max(math.prod(read), math.prod(self.crop)) > MOST_PIXELS and not eval_only:
            raise UsageError(
                f"data.crop {self.crop[1]}x{self.crop[0]} px, at the least data.scale "
                f"{self.scale[0]:g} {read[1]}x{read[0]} px of an image, is more than "
                f"{MOST_PIXELS >> 20} million pixels"
            )

    def memory(self, split: Shares) -> int:
        """The bytes of shared memory that the loaders of this process take."""
        height, width = (
            max(sides) for sides in zip(self.crop, self.set.size or self.crop, strict=True)
        )
        return self._memory(split, height * width * CHANNELS)

    def check(self) -> list[check.Seen]:
        """What this process's images of each split are; `val_sizes` are those of validation.

        Raises RfbenchError that names the masks that cannot be used; the processes share them.
        """
        values, group = self.config.data.check == "values", self.group
        splits = (self.set.train, self.set.val)
        train, val = (check.check(split, values, group.rank, group.world) for split in splits)
        self.val_sizes = val.sizes
        return [train, val]

    def check_masks(self) -> None:
        """`check` by all processes; RfbenchError for masks without a pixel that counts.

        A note tells the classes without one: names may stand in another order than the indices.
        """
        mine = [seen.classes for seen in self.group.alike(self.check)]
        every = self.group.gather(mine)
        train, val = ([one[place] for one in every] for place in (0, 1))
        self.group.alike(lambda: self._note_classes("training", len(self.set.train), train))
        self.group.alike(lambda: self._note_classes("validation", len(self.set.val), val))

    def _note_classes(self, kind: str, count: int, parts: list[Found | None]) -> None:
        """See `check_masks`; parts: the classes in the masks of each process."""
        known = [part for part in parts if part is not None]
        if not count or len(known) < len(parts):
            return
        seen = Found().union(*known)
        if not seen:
            raise RfbenchError(
                f"every pixel of all {count} {kind} masks is ignored, so there is nothing to learn "
                "or to measure"
            )
        if kind == "training" and len(seen) == 1 < len(self._own_classes):
            self._one_class(f"of all {count} training masks", self._own_classes[min(seen)])
        if lacking := [name for i, name in enumerate(self._own_classes) if i not in seen]:
            logger.info("no %s mask has a pixel of %s", kind, some(lacking))

    def _one_class(self, which: str, name: str) -> None:
        """Raise RfbenchError for one's own masks of one class; a warning for those of others."""
        told = f"every pixel that counts {which} is of {name}, so there is nothing to learn"
        if self.set.name != "folder":
            logger.warning(told)
            return
        raise RfbenchError(
            f"{told}. Ignored pixels (255) do not count: masks of 0 and 255 are read with "
            "data.options.colors=[[0,0,0],[255,255,255]]"
        )

    def follow(self, classes: Sequence[str] | None) -> None:
        """Number the classes as a checkpoint does, whose outputs stand in its own order.

        classes: the same names; None: not told.
        """
        own = self.set.classes
        if classes is None or list(classes) == own:
            return
        numbers = [list(classes).index(name) for name in own]
        train, val = (Renumbered(part, numbers) for part in (self.set.train, self.set.val))  # type: ignore[arg-type]
        ground = self.set.background
        self.set = dataclasses.replace(
            self.set,
            classes=list(classes),
            train=train,
            val=val,
            background=None if ground is None else numbers[ground],
        )

    def make_loader(self, which: str) -> Loader:
        """The loader of the training images, augmented, or of the validation images, whole."""
        train = which == "train"
        fill = tuple(round(255 * value) for value in self.set.mean)
        crop = ScaledCrop(self.crop, self.scale, self.flip, (fill[0], fill[1], fill[2]))
        return Loader(
            self.set.train if train else self.set.val,
            crop if train else Whole(self.set.size),
            train=train,
            seed=self.config.seed,
            workers=self.workers,
            pin_memory=self.group.device.type == "cuda",
            used=self.used,
            max_bad_share=self.config.data.max_bad_share,
            channels=self.channels,
        )

    def val_batch(self, largest: int) -> int:
        """How many validation images are evaluated at once: one where their sizes differ."""
        return largest if self.set.size else 1

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W), normalised, and the classes of their pixels (N, H, W) int64."""
        return self.split(streams.to_device(batch.images, self.group.device))

    def split(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 4) uint8 as images and classes; see `on_device`."""
        images = self._normalize(pixels[..., :3])
        if not self.config.channels_last:
            images = images.contiguous()
        return images, pixels[..., 3].long()

    def described(self) -> str:
        """'voc: 1464 training images, 1449 validation images, 21 classes, crops of 512x512 px'."""
        data = self.set
        return (
            f"{data.name}: {len(data.train)} training images, {len(data.val)} validation images, "
            f"{len(data.classes)} classes, crops of {self.crop[1]}x{self.crop[0]} px"
        )
