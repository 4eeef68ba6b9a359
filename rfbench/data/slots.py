"""Shared memory that the batches of a loader are written into, again and again.

New memory for every batch costs a thirteenth of all reading: the system clears each page of it, and
two processes map it.
"""

import itertools
import weakref
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.data import workers

_numbers = itertools.count()
_kept: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()


class Slots:
    """Room for batches; each slot is free, under way in a worker, or lent to whoever reads it.

    Made before the workers start, which write to the same memory.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        """`count` uint8 tensors of `shape`; a RuntimeError where there is no room for them."""
        self.number = next(_numbers)
        self.images = [workers.shared(shape) for _ in range(count)]
        self._free = deque(range(count))
        self._lent: set[int] = set()
        _kept[self.number] = self

    def begin(self) -> None:
        """No worker writes any more: what was under way and never came is free again."""
        self._free = deque(slot for slot in range(len(self.images)) if slot not in self._lent)

    def take(self, length: int) -> int | None:
        """A slot for a batch of `length` images; None while there is none."""
        fits = self._free and length <= len(self.images[0])
        return self._free.popleft() if fits else None

    def lend(self, slot: int) -> Tensor:
        """What is in the slot; it is free when the tensor and all views of it are gone."""
        self._lent.add(slot)
        # a tensor's end says nothing of its views'; an array that tensors are made from lives
        # as long as any of them
        array = self.images[slot].numpy()
        weakref.finalize(array, self._back, slot).atexit = False
        return torch.from_numpy(array)

    def copied(self, slot: int) -> None:
        """What is in the slot will not be needed."""
        self._free.append(slot)

    def _back(self, slot: int) -> None:
        self._lent.discard(slot)
        self._free.append(slot)


@dataclass(frozen=True)
class Filled:
    """A batch as a worker sends it: the first `length` images of a slot."""

    slots: int  # Slots.number
    slot: int
    length: int

    def lent(self) -> Tensor:
        """The images, where they are."""
        return _kept[self.slots].lend(self.slot)[: self.length]

    def pin_memory(self) -> Tensor:
        """A copy in pinned memory; torch's thread for that calls this."""
        slots = _kept[self.slots]
        pinned = slots.images[self.slot][: self.length].pin_memory()
        slots.copied(self.slot)
        return pinned
