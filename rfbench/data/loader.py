"""Batches of a split, read and augmented by worker processes.

A batch is a pure function of its task: its bytes do not depend on the number of workers, and no
state of a worker has to be saved. An unreadable image is recorded and, in training, replaced by the
next of the epoch's order; too many of them stop the run.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from rfbench.data import workers as processes
from rfbench.data.augment import Transform, image_rng
from rfbench.data.dataset import Split
from rfbench.data.decode import BadImage
from rfbench.data.order import Task, replacements
from rfbench.data.slots import Filled, Slots
from rfbench.errors import RfbenchError

NONE = Slots(0, ())  # of a loader that reuses no memory


PREFETCH = 2  # batches that each worker keeps ready


def held_batches(
    workers: int,
    train: bool,
    most: int | None = None,
    prefetch: int = PREFETCH,
    used: int = 2,
) -> int:
    """How many batches a loader holds in shared memory at once; without workers none.

    most: how many there are in all, which bounds those of evaluation. used: how many the caller
    holds; where batches are pinned, the copy being made takes that place.
    """
    if not workers:
        return 0
    held = workers * prefetch + used
    return held if train or most is None else min(held, most)


@dataclass(frozen=True)
class Batch:
    """Some images of a split, in pinned memory if `pin_memory`."""

    images: Tensor  # (n, size, size, 3) uint8
    labels: Tensor  # (n,) int64
    indices: Tensor  # (n,) int64: which images of the split
    bad: list[BadImage]  # those that could not be read
    task: Task  # their positions in the order


class Loader:
    """Reads batches; a run has one for training and one for evaluation.

    bad: path -> reason of every image that could not be read so far; may be saved and restored.
    """

    def __init__(
        self,
        split: Split,
        transform: Transform,
        *,
        train: bool,
        seed: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        max_bad_share: float = 0.001,
        prefetch: int = PREFETCH,
        channels: int = 3,
        used: int = 2,
    ) -> None:
        """Training shuffles, by (seed, epoch), and replaces bad images; evaluation omits them.

        workers: number of processes; 0: read in this one. prefetch: batches that each keeps ready.
        max_bad_share: share of the split's images above which RfbenchError is raised. channels: of
        an image. used: batches of training that the caller holds at once. A transform's `size` may
        be (H, W); in evaluation None: images of a task share it.
        """
        self.bad: dict[str, str] = {}
        self._split = split
        self._pin = pin_memory
        # never all of them, whatever the share
        self._allowed = min(math.floor(max_bad_share * len(split) + 1e-9), len(split) - 1)
        self._share = max_bad_share
        self._tasks = _Tasks()
        self._workers = workers
        self._begun: tuple[Sequence[Task], Iterator[Any]] | None = None
        self._reader = _Reader(
            split, transform, seed, train, tries=self._allowed + 1, channels=channels
        )
        # none for evaluation, since they would be idle most of the time
        self._kept = held_batches(workers, True, prefetch=prefetch, used=used) if train else 0
        self._loader: DataLoader | None = DataLoader(
            self._reader,
            batch_size=None,
            sampler=self._tasks,
            collate_fn=_identity,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            prefetch_factor=prefetch if workers else None,
            worker_init_fn=processes.prepare,
            multiprocessing_context=processes.context() if workers else None,
            # else it would draw from the global generator, and change the network's random numbers
            generator=torch.Generator(),
        )

    def batches(self, tasks: Sequence[Task]) -> Iterator[Batch]:
        """The batches of `tasks`, in order. Workers start with the first call, and stay.

        Raises RfbenchError if too many images are bad or a worker has died. A new call ends the
        batches of the previous one.
        """
        begun, self._begun = self._begun, None
        results = begun[1] if begun and begun[0] == tasks else self._start(tasks)
        for task in tasks:
            with processes.reported(results):
                images, indices, bad = next(results)
            images = images.lent() if isinstance(images, Filled) else images
            batch = self._batch(task, images, indices, bad)
            del images  # a slot is free once its batch is gone
            yield batch
            del batch

    def begin(self, tasks: Sequence[Task]) -> None:
        """Have the workers begin with the tasks of the next call of `batches`."""
        if self._workers:
            with contextlib.suppress(RfbenchError):  # that call raises it
                self._begun = tasks, self._start(tasks)

    def close(self) -> None:
        """End the workers and drop the batches that they have ready."""
        if self._loader is not None:
            processes.stop(self._loader)
        self._loader = self._begun = None

    def _start(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """Hand the tasks to the workers; what they send."""
        if self._loader is None:
            raise ValueError("this loader is closed")
        self._tasks.now = tasks
        with processes.reported():
            self._keep(tasks)
        return processes.start(self._loader)

    def _keep(self, tasks: Sequence[Task]) -> None:
        """Allocate the memory for the batches, before the workers start."""
        if self._kept and not self._reader.slots.images and len(tasks):
            shape = self._reader.shape(tasks[0])
            self._reader.slots = self._tasks.slots = Slots(self._kept, shape)

    def _batch(self, task: Task, images: Tensor, indices: np.ndarray, bad: list[BadImage]) -> Batch:
        self.bad.update({image.path: image.reason for image in bad})
        if len(self.bad) > self._allowed:
            raise self._too_many()
        labels = torch.from_numpy(self._split.labels[indices])
        labels = labels.pin_memory() if self._pin else labels
        return Batch(images, labels, torch.from_numpy(indices), bad, task)

    def _too_many(self) -> RfbenchError:
        lines = [f"{path}: {reason}" for path, reason in list(self.bad.items())[:20]]
        lines += [f"and {len(self.bad) - 20} more"] if len(self.bad) > 20 else []
        if len(self.bad) == len(self._split):
            return RfbenchError(f"none of {len(self.bad)} images can be read: {'; '.join(lines)}")
        return RfbenchError(
            f"{len(self.bad)} of {len(self._split)} images cannot be read so far, more than "
            f"data.max_bad_share = {self._share:g} allows. Replace them or raise it: "
            + "; ".join(lines)
        )


class _Tasks:
    """A sampler for the DataLoader that yields the current tasks, each with its slot."""

    def __init__(self) -> None:
        self.now: Sequence[Task] = ()
        self.slots = NONE

    def __iter__(self) -> Iterator[tuple[Task, int | None]]:
        self.slots.begin()  # torch has waited for the batches being read
        for task in self.now:
            yield task, self.slots.take(task.stop - task.start)


class _Reader(TorchDataset):
    """(task, slot) -> (images, indices, bad), in a worker and in the main process alike."""

    def __init__(
        self,
        split: Split,
        transform: Transform,
        seed: int,
        train: bool,
        tries: int,
        channels: int,
    ) -> None:
        self.channels = channels
        self.split = split
        self.transform = transform
        self.seed = seed
        self.train = train
        self.tries = tries
        self.slots = NONE

    def __getitem__(
        self, given: tuple[Task, int | None]
    ) -> tuple[Tensor | Filled, np.ndarray, list[BadImage]]:
        task, slot = given
        images = self._memory(task, slot)
        used: list[int] = []
        bad: list[BadImage] = []
        for position in range(task.start, task.stop):
            found = self._read(task.epoch, position, bad)
            if found is not None:
                index, image = found
                if images is None:
                    images = processes.empty((task.stop - task.start, *image.shape))
                images[len(used)].copy_(image)
                used.append(index)
            elif self.train:
                break  # more bad images than allowed: the main process raises the error
        if images is None:
            images = processes.empty((0, 0, 0, self.channels))
        batch = images[: len(used)] if slot is None else Filled(self.slots.number, slot, len(used))
        return batch, np.array(used, dtype=np.int64), bad

    def _memory(self, task: Task, slot: int | None) -> Tensor | None:
        """Where the images of a task are written; None if their size is known only from them."""
        if slot is not None:
            return self.slots.images[slot]
        return None if self.transform.size is None else processes.empty(self.shape(task))

    def shape(self, task: Task) -> tuple[int, int, int, int]:
        """The shape of the images of a task."""
        size: Any = self.transform.size
        height, width = (size, size) if isinstance(size, int) else size
        return task.stop - task.start, height, width, self.channels

    def _read(self, epoch: int, position: int, bad: list[BadImage]) -> tuple[int, Tensor] | None:
        """The index and pixels of the image at a position, or of its replacement; None if none."""
        n = len(self.split)
        indices = replacements(n, self.seed, epoch, position) if self.train else iter([position])
        # a replacement takes the random numbers of the image that it replaces, so that its crop
        # differs from that of its own turn in the epoch
        rng = None
        for index, _ in zip(indices, range(self.tries), strict=False):
            rng = rng or image_rng(self.seed, epoch, index)
            try:
                image = self.split.read(index)
            except BadImage as error:
                bad.append(error)
                continue
            return index, self.transform(image, rng)
        return None


def _identity(result: Any) -> Any:
    return result
