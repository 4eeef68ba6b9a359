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

    Also where no pixel of any mask counts. values: false: look at sizes only, which is faster.
    rank, world: this process's share.
    """
    pairs = pairs.pairs if isinstance(pairs, Renumbered) else pairs
    if not isinstance(pairs, FilePairs):  # drawn, or checked when they were read
        return
    mine = range(rank, len(pairs), world)
    workers = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        looked = list(pool.map(lambda i: look(pairs, i, values), mine))
    if found := [text for text, _ in looked if text]:
        raise RfbenchError(*shortened(found))
    others = (i for i in range(len(pairs)) if i not in mine)
    # of other processes' masks only as many as it takes to find one that counts
    counted = any(own for _, own in looked) or any(look(pairs, i)[1] for i in others)
    if values and len(pairs) and not counted:
        raise RfbenchError(
            f"{pairs.mask_name(0)} and the {len(pairs) - 1} others: every pixel is ignored, so "
            "there is nothing to learn or to measure"
        )


def look(pairs: FilePairs, i: int, values: bool = True) -> tuple[str | None, bool]:
    """What is wrong with image i and its mask, None if nothing is; whether any pixel counts."""
    try:
        image, mask = masks.size(pairs.name(i)), masks.size(pairs.mask_name(i))
        if image != mask:
            return f"{pairs.mask_name(i)}: {differs(mask, image)}", False
        read = masks.read(pairs.mask_name(i), pairs.values) if values else None
    except BadImage as error:
        return str(error), False
    return None, read is None or bool((read != masks.IGNORED).any())


def shortened(problems: Sequence[str]) -> list[str]:
    """The first few, and the number of others."""
    rest = [f"and {len(problems) - SHOWN} more masks"] if len(problems) > SHOWN else []
    return [*problems[:SHOWN], *rest]
