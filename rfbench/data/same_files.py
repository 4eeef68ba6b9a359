"""Validation images that are copies of training images, byte for byte, under another name.

`--check-images` compares the pixels of all images; this is done before every training, so that it
looks at sizes first, and reads only files of one size.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Collection
from typing import Any

from rfbench import files
from rfbench.errors import counted, printable

MANY = 20_000  # of more training images, only those of a validation image's name are compared
MOST = 1_000  # of more that seem to be copies, as many are read to their end
SHOWN = 2
TAIL = 4096  # bytes: files of one size seldom end alike


def notes(train: Any, val: Any) -> list[str]:
    """A line on copies, or none. train, val: splits; of those in memory nothing is known."""
    if not (hasattr(train, "paths") and hasattr(val, "paths") and len(train) and len(val)):
        return []
    return told(train.paths(), val.paths())


def told(train: Collection[str], val: Collection[str]) -> list[str]:
    """A line on the copies among these files, or none."""
    found, looked = copies(train, val)
    # links, and one folder for both, are told or refused elsewhere
    found = [pair for pair in found if len({*map(os.path.realpath, pair)}) > 1]
    if not found:
        return []
    shown = [printable(f"{path} (as {first})") for path, first in found[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    many = f" (of {len(train):,} training images, those of one name were compared)"
    part = f" (of {looked:,} that end alike, {MOST:,} were looked into)" if looked > MOST else ""
    images = counted(len(found), "validation image")
    verb = "is a copy of a training image" if len(found) == 1 else "are copies of training images"
    return [
        f"{images} {verb}, byte for byte{many if len(train) > MANY else part}: "
        f"{', '.join(shown)}{more}. The figures are better than on new images."
    ]


def copies(train: Collection[str], val: Collection[str]) -> tuple[list[tuple[str, str]], int]:
    """(pairs of a validation image and the training image that it is a copy of, a number).

    The number: of those that seem to be copies by size and end, of which `MOST` are looked into.
    """
    if len(train) > MANY:
        names = {os.path.basename(path) for path in val}
        train = [path for path in train if os.path.basename(path) in names]
        names = {os.path.basename(path) for path in train}
        val = [path for path in val if os.path.basename(path) in names]
    ours: dict[str, Any] = dict.fromkeys(sorted(train))
    theirs: dict[str, Any] = dict.fromkeys(sorted(val))
    looked = 0
    keys: tuple[Callable[[str], Any], ...] = (_size, _tail, _digest)
    for key in keys:  # each is slower, and looks into fewer files
        if key is _digest:
            ours, theirs, looked = _some(ours, theirs)
        ours, theirs = ({path: key(path) for path in paths} for paths in (ours, theirs))
        both = ({*ours.values()} & {*theirs.values()}) - {None}
        ours, theirs = ({p: k for p, k in one.items() if k in both} for one in (ours, theirs))
    first = {key: path for path, key in reversed(ours.items())}
    return [(path, first[key]) for path, key in theirs.items()], looked


def _some(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """At most `MOST` of the second, evenly spaced, with all of the first that end as they do."""
    chosen = dict(list(theirs.items())[:: -(-len(theirs) // MOST) or 1])
    ends = {*chosen.values()}
    return {path: end for path, end in ours.items() if end in ends}, chosen, len(theirs)


def _size(path: str) -> int | None:
    with contextlib.suppress(OSError):  # what cannot be read is told elsewhere
        found = os.stat(path)
        return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size else None
    return None


def _tail(path: str) -> tuple[int, bytes] | None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - TAIL))
        return size, file.read()
    return None


def _digest(path: str) -> bytes | None:
    with contextlib.suppress(OSError):
        return hashlib.blake2b(files.read_bytes(path)).digest()
    return None
