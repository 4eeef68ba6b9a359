"""A bar on stderr for what may take long."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SOON = 2  # s; what ends earlier shows none


def progress(each: Sequence[T], unit: str) -> Iterable[T]:
    """The same items, with a bar where a person looks on; unit: what one of them is."""
    return tqdm(each, unit=unit, leave=False, disable=None, delay=SOON)
