"""Which images make up a batch: pure functions of (seed, epoch) and the step number.

An epoch's order is a permutation; each step takes its next `batch_size` positions, and each rank
its part of each micro-batch. There is no state, so a run may start at any step.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from rfbench.errors import RfbenchError


class Task(NamedTuple):
    """The positions `start` .. `stop` - 1 in the order of `epoch`: one batch of one rank."""

    epoch: int
    start: int
    stop: int


@functools.lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 .. n - 1, int64 (n,), read-only; 0.2 s for ImageNet's 1.28 M.

    The ranks of n numbers of Philox 4x64 with the key (seed, epoch): NumPy guarantees this stream
    in all versions, but not its own `permutation`.
    """
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def replacements(n: int, seed: int, epoch: int, position: int) -> Iterator[int]:
    """The image at `position` in the order, then its replacements: the next ones, cyclically."""
    order = epoch_order(n, seed, epoch)
    return (int(order[(position + i) % n]) for i in range(n))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """The number of full batches of `batch_size` in n images; the rest of an order is dropped."""
    if n < batch_size:
        raise RfbenchError(
            f"the training set has {n} images, fewer than one batch of {batch_size}; "
            "lower batch_size"
        )
    return n // batch_size


@dataclass(frozen=True)
class TrainTasks(Sequence[Task]):
    """The micro-batches of one rank for the steps `first` .. `last` - 1, counted over epochs.

    Step t is batch t % s of epoch t // s, with s steps per epoch. Its `batch_size` positions are
    split into `accumulation` micro-batches, and each of those into the parts of `world` ranks, in
    order: two processes see the same as one process with `accumulation=2`. Item i is micro-batch
    i % accumulation of step first + i // accumulation.
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
        step, micro = divmod(i, self.accumulation)
        epoch, batch = divmod(self.first + step, steps_per_epoch(self.n, self.batch_size))
        part = self.batch_size // (self.accumulation * self.world)
        start = batch * self.batch_size + (micro * self.world + self.rank) * part
        return Task(epoch, start, start + part)


def evaluation_tasks(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[Task]:
    """One rank's share of n images in their own order, in batches of at most `batch_size`.

    The ranks' shares are disjoint, differ in size by at most one image and cover all n, so that the
    counts of all ranks add up.
    """
    first, last = n * rank // world, n * (rank + 1) // world
    starts = range(first, last, batch_size)
    return [Task(0, start, min(start + batch_size, last)) for start in starts]
