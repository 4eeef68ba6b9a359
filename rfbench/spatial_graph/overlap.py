"""Which tensors share memory, and whether they do so in any entry."""

from typing import Any

import numpy as np
from torch import Tensor


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors on one memory may have an entry in common."""
    (first, last), (begin, end) = _extent(one), _extent(other)
    if first >= end or begin >= last:
        return False
    if max(one.numel(), other.numel()) > MOST or one.element_size() != other.element_size():
        return True
    return bool(np.isin(_places(one), _places(other)).any())


MOST = 2**16  # entries that are looked at one by one


def _places(tensor: Tensor) -> np.ndarray:
    """Where in its memory the entries of a tensor are."""
    at = np.array([tensor.storage_offset()])
    for n, step in zip(tensor.shape, tensor.stride(), strict=True):
        at = np.add.outer(at, np.arange(n) * step).reshape(-1)
    return at


def _extent(tensor: Tensor) -> tuple[Any, Any]:
    """From which byte of its memory to which a tensor reaches."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    length = 1 + sum((n - 1) * step for n, step in steps) if tensor.numel() else 0
    size, first = tensor.element_size(), tensor.storage_offset()
    return first * size, (first + length) * size
