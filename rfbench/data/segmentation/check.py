"""Every mask is looked at before training: whether it is there, its size, its values."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rfbench.data.decode import BadImage
from rfbench.data.segmentation import masks
from rfbench.data.segmentation.pairs import FilePairs, Pairs, Renumbered, differs
from rfbench.errors import RfbenchError

SHOWN = 8  # problems that are told one by one
THREADS = 8  # PIL decodes beside Python


def check(pairs: Pairs, values: bool = True, rank: int = 0, world: int = 1) -> None:
    """Raise RfbenchError that names the masks that cannot be used, a line each.

    values: false: look at sizes only, which is faster. rank, world: this process's share.
    """
    pairs = pairs.pairs if isinstance(pairs, Renumbered) else pairs
    if not isinstance(pairs, FilePairs):  # drawn, or checked when they were read
        return
    mine = range(rank, len(pairs), world)
    workers = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        found = [text for text in pool.map(lambda i: problem(pairs, i, values), mine) if text]
    if found:
        raise RfbenchError(*shortened(found))


def problem(pairs: FilePairs, i: int, values: bool = True) -> str | None:
    """What is wrong with image i and its mask; None if nothing is."""
    try:
        image, mask = masks.size(pairs.name(i)), masks.size(pairs.mask_name(i))
        if image != mask:
            return f"{pairs.mask_name(i)}: {differs(mask, image)}"
        if values:
            masks.read(pairs.mask_name(i), pairs.values)
    except BadImage as error:
        return str(error)
    return None


def shortened(problems: Sequence[str]) -> list[str]:
    """The first few, and the number of others."""
    rest = [f"and {len(problems) - SHOWN} more masks"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *rest]
