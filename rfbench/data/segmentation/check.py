"""Every mask is looked at before training: whether it is there, its size, its values."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rfbench.data.decode import BadImage
from rfbench.data.segmentation import masks
from rfbench.data.segmentation.pairs import FilePairs, Pairs, Renumbered, differs
from rfbench.errors import RfbenchError

SHOWN = 8  # problems that are told one by one
THREADS = 8  # PIL decodes beside Python


def check(pairs: Pairs, values: bool = True, rank: int = 0, world: int = 1) -> set[int] | None:
    """The classes of the pixels in this process's masks; None where they were not looked at.

    Raises RfbenchError that names the masks that cannot be used, a line each. values: false: look
    at sizes only, which is faster. rank, world: this process's share.
    """
    pairs = pairs.pairs if isinstance(pairs, Renumbered) else pairs
    if not isinstance(pairs, FilePairs):  # drawn, or checked when they were read
        return None
    mine = range(rank, len(pairs), world)
    workers = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        looked = list(pool.map(lambda i: look(pairs, i, values), mine))
    if found := [text for text, _ in looked if text]:
        raise RfbenchError(*shortened(found))
    return set[int]().union(*(own for _, own in looked)) if values else None


def look(pairs: FilePairs, i: int, values: bool = True) -> tuple[str | None, set[int]]:
    """What is wrong with image i and its mask, None if nothing is; the classes of its pixels."""
    try:
        *image, turn = masks.size(pairs.name(i))
        *mask, _ = masks.size(pairs.mask_name(i))
        if turn != 1 and pairs.upright is None:
            return f"{pairs.name(i)}: {_turned(turn)}", set()
        if turn > 4 and pairs.upright:
            image.reverse()
        if image != mask:
            return f"{pairs.mask_name(i)}: {differs(mask, image)}", set()
        read = masks.read(pairs.mask_name(i), pairs.values) if values else None
    except BadImage as error:
        return str(error), set()
    return None, set() if read is None else {*np.unique(read).tolist()} - {masks.IGNORED}


def _turned(turn: int) -> str:
    return (
        f"EXIF turns this image (orientation {turn}), and nothing tells whether its mask was drawn "
        "on the turned image. With data.name=folder: data.options.upright=true turns images, false "
        "reads them as they are stored; or save it without EXIF"
    )


def shortened(problems: Sequence[str]) -> list[str]:
    """The first few, and the number of others."""
    rest = [f"and {len(problems) - SHOWN} more masks"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *rest]
