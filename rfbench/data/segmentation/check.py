"""Every mask is looked at before training: whether it is there, its size, its values."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rfbench.data.decode import BadImage
from rfbench.data.segmentation import masks
from rfbench.data.segmentation.pairs import FilePairs, Pairs, Renumbered, differs
from rfbench.errors import RfbenchError

SHOWN = 8  # problems that are told one by one
THREADS = 8  # PIL decodes beside Python


@dataclass(frozen=True)
class Seen:
    """What this process's images are. classes: of their pixels; None: they were not looked at.

    sizes: (H, W) in px, and the first image that has it.
    """

    classes: set[int] | None
    sizes: dict[tuple[int, int], str]


def check(pairs: Pairs, values: bool = True, rank: int = 0, world: int = 1) -> Seen:
    """Look at this process's images and masks.

    Raises RfbenchError that names the masks that cannot be used, a line each. values: false: look
    at sizes only, which is faster. rank, world: this process's share.
    """
    pairs = pairs.pairs if isinstance(pairs, Renumbered) else pairs
    if not isinstance(pairs, FilePairs):  # drawn, or checked when they were read
        height, width = pairs.pixels.shape[1:3]
        return Seen(None, {(height, width): pairs.name(0)} if len(pairs) else {})
    mine = range(rank, len(pairs), world)
    workers = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        looked = list(pool.map(lambda i: look(pairs, i, values), mine))
    if found := [text for text, _, _ in looked if text]:
        raise RfbenchError(*shortened(found))
    if values and not pairs.values.colors:
        _check_palettes(
            pairs, [(i, classes) for i, (*_, classes) in zip(mine, looked, strict=True)]
        )
    sizes: dict[tuple[int, int], str] = {}
    for i, (_, size, _) in zip(mine, looked, strict=True):
        sizes.setdefault(size, pairs.name(i))
    return Seen(set[int]().union(*(own for *_, own in looked)) if values else None, sizes)


Looked = tuple[str | None, tuple[int, int], set[int]]


def look(pairs: FilePairs, i: int, values: bool = True) -> Looked:
    """What is wrong with image i and its mask, None if nothing is; its size; its classes."""
    try:
        *image, turn = masks.size(pairs.name(i))
        *mask, _ = masks.size(pairs.mask_name(i))
        if turn != 1 and pairs.upright is None:
            return f"{pairs.name(i)}: {_turned(turn)}", (0, 0), set()
        if turn > 4 and pairs.upright:
            image.reverse()
        if image != mask:
            return f"{pairs.mask_name(i)}: {differs(mask, image)}", (0, 0), set()
        read = masks.read(pairs.mask_name(i), pairs.values) if values else None
    except BadImage as error:
        return str(error), (0, 0), set()
    height, width = image
    return (
        None,
        (height, width),
        set() if read is None else {*np.unique(read).tolist()} - {masks.IGNORED},
    )


def _check_palettes(pairs: FilePairs, looked: Sequence[tuple[int, set[int]]]) -> None:
    """Raise RfbenchError if one colour has another index in two masks.

    Programs that reduce the colours of a mask, such as PIL's quantize, number them anew in each.
    """
    first: dict[masks.Color, tuple[int, str]] = {}
    for i, classes in looked:
        path = pairs.mask_name(i)
        colors = masks.palette(path) or []
        used = {index: colors[index] for index in sorted(classes) if index < len(colors)}
        if len(set(used.values())) < len(used):  # a palette that shows nothing
            continue
        for index, color in used.items():
            other, where = first.setdefault(color, (index, path))
            if other != index:
                raise RfbenchError(
                    f"{path}: the colour {[*color]} has the index {index}, and {other} in {where}. "
                    "Indices of palettes of another order are no classes: save the masks as colour "
                    "images (data.options.colors), or all with one palette"
                )


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
