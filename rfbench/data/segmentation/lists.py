"""Pairs of images and masks by their names, and what is wrong where one of them is missing."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence

from rfbench import files
from rfbench.data import text, walk
from rfbench.data.dataset import some
from rfbench.data.segmentation.masks import Values
from rfbench.data.segmentation.pairs import FilePairs
from rfbench.errors import RfbenchError, counted, one_line, printable

Pair = tuple[str, str]  # paths of an image and its mask
SHOWN = 5  # missing files that are named
MOST = 256 << 20  # bytes of a list of names


def paired(
    pairs: Sequence[Pair], values: Values, where: str, upright: bool | None = None
) -> FilePairs:
    """The pairs; RfbenchError if there are none, for files that are not there or named twice.

    where: the folder or list that they come from, for errors. upright: see `FilePairs`.
    """
    if not pairs:
        raise RfbenchError(f"{where} names no images")
    for place, told in ((0, "names images more than once"), (1, "has images of one mask")):
        counts = Counter(pair[place] for pair in pairs)
        if twice := [pair[0] for pair in pairs if counts[pair[place]] > 1]:
            raise RfbenchError(f"{where} {told}: {some([*dict.fromkeys(twice)], SHOWN)}")
    for what, place in (("a mask", 1), ("an image", 0)):
        gone = [pair[place] for pair in pairs if not os.path.isfile(pair[place])]
        if gone:
            one, more = f"{what} is missing", f"{len(gone)} {what.split()[1]}s are missing"
            many = more if len(gone) > 1 else one
            raise RfbenchError(f"{where}: {many}: {some(gone, SHOWN)}{_beside(gone[0])}")
    real: dict[str, str] = {}
    for image, _ in pairs:
        other = real.setdefault(os.path.realpath(image), image)
        if other != image:
            raise RfbenchError(f"{where}: {other} and {image} are one file")
    return FilePairs([image for image, _ in pairs], [mask for _, mask in pairs], values, upright)


def _beside(path: str) -> str:
    """' (there is NAME)' if a file differs from a missing one in case or extension alone."""
    if os.path.lexists(path):
        return " (what is there is no regular file)"
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0].casefold()
    try:
        found = sorted(os.listdir(folder))
    except OSError:
        return ""
    near = [other for other in found if os.path.splitext(other)[0].casefold() == stem]
    return f" (there is {some(near, 2)})" if near and name not in near else ""


def below(folder: str, mask_of: Callable[[str], str], notes: list[str]) -> list[Pair]:
    """Every image below `folder` with the mask that `mask_of(its path below)` names.

    notes: gets a line on links, junk and other formats that are left out.
    """
    found = walk.images(folder)
    left_out = [*found.junk, *found.again, *found.other]
    if left_out:
        notes.append(f"{folder}: left out {some(left_out)}")
    return [(os.path.join(folder, name), mask_of(name)) for name in found.names]


def masks_below(folder: str) -> list[str]:
    """The paths of every mask below `folder`."""
    return [os.path.join(folder, name) for name in walk.images(folder).names]


def note_idle(pairs: Sequence[Pair], folder: str, notes: list[str], ending: str = "") -> None:
    """Add to `notes` the masks below `folder` whose image is not there. ending: of masks' names."""
    used = {mask for _, mask in pairs}
    every = (path for path in masks_below(folder) if path.endswith(ending))
    if idle := sorted({*every} - used):
        notes.append(f"{folder}: masks without an image: {some(idle)}")


def names_in(path: str) -> list[str]:
    """The lines of a text file, without empty ones; RfbenchError if it cannot be read."""
    return [line for line in lines_of(path) if line]


def lines_of(path: str) -> list[str]:
    """The lines of a text file, without spaces around; RfbenchError if it cannot be read."""
    try:
        found = text.of(files.read_bytes(path, MOST), path)
    except FileNotFoundError:
        raise RfbenchError(f"{path}: no such file") from None
    except OSError as error:
        raise RfbenchError(f"{path} cannot be read: {one_line(error)}") from None
    return [line.strip() for line in re.split("\r\n|\n|\r", found)]


def shared(pairs: FilePairs) -> list[str]:
    """A line on masks that are one file by links, or none: meant for empty ones, else a mistake."""
    first: dict[tuple[int, int], str] = {}
    found = []
    for i in range(len(pairs)):
        path = pairs.mask_name(i)
        status = os.stat(path)
        other = first.setdefault((status.st_dev, status.st_ino), path)
        if other != path:
            found.append(printable(f"{path} (is {other})"))
    if not found:
        return []
    masks = counted(len(found), "mask")
    verb = "is another image's" if len(found) == 1 else "are other images'"
    return [f"{masks} {verb}, by links: {some(found, SHOWN)}"]


def apart(train: FilePairs, val: FilePairs) -> None:
    """Raise RfbenchError for images that are in both splits."""
    own = {os.path.realpath(train.name(i)) for i in range(len(train))}
    both = [val.name(i) for i in range(len(val)) if os.path.realpath(val.name(i)) in own]
    if both:
        raise RfbenchError(
            f"{len(both)} images are for training and for validation: {some(both, SHOWN)}"
        )
