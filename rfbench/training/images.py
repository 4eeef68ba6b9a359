"""The share of a data set's images that a process reads."""

import logging
import math
from collections.abc import Iterator
from typing import Any

from rfbench import machine
from rfbench.data import same_files
from rfbench.data.dataset import ArraySplit
from rfbench.data.loader import Batch, Loader, held_batches
from rfbench.data.order import TrainTasks, evaluation_tasks
from rfbench.data.segmentation.pairs import ArrayPairs
from rfbench.errors import UsageError
from rfbench.runs.processes import Processes
from rfbench.training.split import Split

logger = logging.getLogger(__name__)


class Reader:
    """The loaders of a data set's two splits; a training adds what it makes of their images.

    data: a `Dataset` or `SegSet`. group: the processes that share the images. loaders: their
    processes, as configured; None: one per CPU core of this process but one.
    """

    channels = 3  # of an image as it is read

    def __init__(self, data: Any, group: Processes, loaders: int | None) -> None:
        self.set = data
        self.group = group
        self.workers = self._workers() if loaders is None else loaders
        self.used = 2  # batches of training that the loop holds at once, see `train`
        self._loaders: dict[str, Loader] = {}
        self._bad: dict[str, str] = {}
        for note in (*data.notes, *same_files.notes(data.train, data.val)):
            logger.info(note, extra={"once": True})

    def make_loader(self, which: str) -> Loader:
        """The loader of "train", "val" or another set of a training's, with its transform."""
        raise NotImplementedError

    def train(self, first: int, last: int, split: Split) -> Iterator[Batch]:
        """This process's micro-batches for the steps `first` .. `last` - 1."""
        self.used = self._used(split)
        return self._loader("train").batches(self._tasks(first, last, split))

    def ahead(self, first: int, last: int, split: Split) -> None:
        """Begin to read these steps' images while others are evaluated; `train` comes next."""
        self._loader("train").begin(self._tasks(first, last, split))

    def _tasks(self, first: int, last: int, split: Split) -> TrainTasks:
        n, group = len(self.set.train), self.group
        return TrainTasks(n, split.batch, first, last, split.accumulation, group.rank, group.world)

    def _used(self, split: Split) -> int:
        """Those of this step and of the next, which are pinned for a GPU and so no longer there."""
        return 2 if self.group.device.type == "cuda" else 2 * split.accumulation

    def val(self, batch: int) -> tuple[Iterator[Batch], int]:
        """This process's share of the validation images, and the most batches of any process."""
        if not len(self.set.val):
            raise UsageError(f"the data set '{self.set.name}' has no validation images")
        return self.evaluated("val", len(self.set.val), batch)

    def evaluated(self, which: str, n: int, batch: int) -> tuple[Iterator[Batch], int]:
        """This process's share of the `n` images of a loader, and the most batches of any."""
        world = self.group.world
        tasks = evaluation_tasks(n, batch, self.group.rank, world)
        return self._loader(which).batches(tasks), math.ceil(math.ceil(n / world) / batch)

    def memory(self, split: Split) -> int:
        """The bytes of shared memory that the loaders of this process take."""
        raise NotImplementedError

    def _memory(self, split: Split, image: int) -> int:
        """The same. image: bytes of one."""
        loaders = ((self.set.train, True), (self.set.val, False))
        count = sum(
            held_batches(
                self.workers,
                train,
                math.ceil(len(part) / split.world / split.micro),
                used=self._used(split) if train else 2,
            )
            for part, train in loaders
        )
        return count * split.micro * image

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
        """Go on counting from an earlier part of the run; ValueError for what is no such count."""
        if not all(isinstance(text, str) for pair in dict(bad).items() for text in pair):
            raise ValueError("the unreadable images are not told by path and reason")
        self._bad = dict(bad)

    def close(self) -> None:
        """End the DataLoader workers."""
        for loader in self._loaders.values():
            loader.close()

    def _loader(self, which: str) -> Loader:
        """A loader, which stays."""
        if which not in self._loaders:
            self._loaders[which] = self.make_loader(which)
            if which == "train":
                self._loaders[which].bad.update(self._bad)
        return self._loaders[which]

    def _workers(self) -> int:
        if self.group.device.type == "cpu":  # its cores are busy with training
            return 0 if isinstance(self.set.train, ArraySplit | ArrayPairs) else 1
        return max(1, min(32, machine.cores() - 1))  # one core is the main process's
