"""Which images make up a batch: pure functions of (seed, epoch) and of the update's number.

An epoch's order is a permutation; update after update takes the next `batch_size` places of it,
and each rank its part of each micro-batch. Nothing is consumed, so a run may start anywhere.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from rfbench.errors import RfbenchError


class Task(NamedTuple):
    """The places `start` .. `stop` - 1 of the order of `epoch`: one batch of one rank."""

    epoch: int
    start: int
    stop: int


@functools.lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 .. n - 1, int64 (n,), read-only; 0.2 s for ImageNet's 1.28 M.

    The ranks of n words of Philox 4x64 keyed with (seed, epoch): NumPy promises that stream for
    all its versions, which it does not for its own `permutation`.
    """
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def replacements(n: int, seed: int, epoch: int, place: int) -> Iterator[int]:
    """The image at `place` of the order, then what replaces it: the next ones, round the end."""
    order = epoch_order(n, seed, epoch)
    return (int(order[(place + step) % n]) for step in range(n))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Full batches of `batch_size` among n images: the rest of an order is left out."""
    if n < batch_size:
        raise RfbenchError(
            f"the training set has {n} images, less than one batch of {batch_size}; "
            "lower batch_size"
        )
    return n // batch_size


@dataclass(frozen=True)
class TrainTasks(Sequence[Task]):
    """The micro-batches of one rank for the updates `first` .. `last` - 1, counted over epochs.

    Update t is batch t % u of epoch t // u, with u updates an epoch. Its `batch_size` places are
    cut into `accumulation` micro-batches, and each of those into `world` ranks' parts, in order:
    two processes see what one process with `accumulation=2` sees. Item i is micro-batch
    i % accumulation of update first + i // accumulation.
    """

    n: int
    batch_size: int  # global: over all ranks and micro-batches
    first: int
    last: int
    accumulation: int = 1
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        steps_per_epoch(self.n, self.batch_size)
        if self.batch_size % (self.accumulation * self.world):
            raise ValueError(
                f"{self.batch_size} does not divide by {self.accumulation} x {self.world}"
            )

    def __len__(self) -> int:
        return max(0, self.last - self.first) * self.accumulation

    @overload
    def __getitem__(self, i: int) -> Task: ...

    @overload
    def __getitem__(self, i: slice) -> list[Task]: ...

    def __getitem__(self, i: int | slice) -> Task | list[Task]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(i)
        update, micro = divmod(i, self.accumulation)
        epoch, batch = divmod(self.first + update, steps_per_epoch(self.n, self.batch_size))
        part = self.batch_size // (self.accumulation * self.world)
        start = batch * self.batch_size + (micro * self.world + self.rank) * part
        return Task(epoch, start, start + part)


def evaluation_tasks(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[Task]:
    """One rank's share of n images in their own order, in batches of at most `batch_size`.

    The ranks' shares are disjoint, differ by at most one image and make up all n: nothing is
    counted twice, so the counts of all ranks may be added up.
    """
    first, last = n * rank // world, n * (rank + 1) // world
    starts = range(first, last, batch_size)
    return [Task(0, start, min(start + batch_size, last)) for start in starts]
