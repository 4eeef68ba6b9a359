"""Shared memory for the batches of a loader, which is reused.

Allocating it for every batch takes a thirteenth of the reading time: the system clears each page,
and two processes map it.
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
    """Memory for batches; each slot is free, being filled by a worker, or lent to a reader.

    Created before the workers start, so that they share it.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        """Allocate `count` uint8 tensors of `shape`; RuntimeError if there is no room."""
        self.number = next(_numbers)
        self.images = [workers.shared(shape) for _ in range(count)]
        self._free = deque(range(count))
        self._lent: set[int] = set()
        _kept[self.number] = self

    def begin(self) -> None:
        """Free the slots of batches that never arrived; no worker may be writing."""
        self._free = deque(slot for slot in range(len(self.images)) if slot not in self._lent)

    def take(self, length: int) -> int | None:
        """A slot for a batch of `length` images; None if none is free."""
        fits = self._free and length <= len(self.images[0])
        return self._free.popleft() if fits else None

    def lend(self, slot: int) -> Tensor:
        """The batch in the slot, which is free once the tensor and all views of it are gone."""
        self._lent.add(slot)
        # views may outlive a tensor; an array lives as long as any tensor made from it
        array = self.images[slot].numpy()
        weakref.finalize(array, self._back, slot).atexit = False
        return torch.from_numpy(array)

    def copied(self, slot: int) -> None:
        """Free the slot, whose batch has been copied."""
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
        """The images, without a copy."""
        return _kept[self.slots].lend(self.slot)[: self.length]

    def pin_memory(self) -> Tensor:
        """A copy in pinned memory; called by torch's pinning thread."""
        slots = _kept[self.slots]
        pinned = slots.images[self.slot][: self.length].pin_memory()
        slots.copied(self.slot)
        return pinned
