"""Shared memory that the batches of a loader are written into, again and again.

New memory for every batch would cost a twentieth of all reading: the system clears each page of it.
"""

import weakref
from collections import deque

import torch
from torch import Tensor

from rfbench.data import workers


class Slots:
    """Pieces of shared memory; each is free, under way in a worker, or lent to whoever reads it.

    memory: the pieces, uint8; what the workers need of this.
    """

    def __init__(self, count: int, size: int) -> None:
        """`count` pieces of `size` bytes; a RuntimeError where there is no room for them."""
        self.memory = [workers.shared((size,)) for _ in range(count)]
        self._free = deque(range(count))
        self._lent: set[int] = set()

    def begin(self) -> None:
        """No worker writes any more: what was under way and never came is free again."""
        self._free = deque(slot for slot in range(len(self.memory)) if slot not in self._lent)

    def take(self) -> int | None:
        """A piece for a worker to write to, None while all are in use."""
        return self._free.popleft() if self._free else None

    def got(self, slot: int, images: Tensor, copied: bool) -> Tensor:
        """`images`, which lie in the piece, to read; it is free when they and their views are gone.

        copied: they have been taken out of it already, and it is free now.
        """
        if copied:
            self._free.append(slot)
            return images
        self._lent.add(slot)
        # a tensor's end says nothing of its views'; an array that tensors are made from lives
        # as long as any of them
        array = images.numpy()
        weakref.finalize(array, self._back, slot).atexit = False
        return torch.from_numpy(array)

    def _back(self, slot: int) -> None:
        self._lent.discard(slot)
        self._free.append(slot)
