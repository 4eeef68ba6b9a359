"""Checks of the masks of a COCO set: polygons and run lengths.

pycocotools checks neither. Run lengths of another sum than height x width let it write outside its
memory or loop forever, and a polygon costs it memory by the length of its outline.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rfbench.data.coco_json import Findings, numbers

Size = tuple[int, int]  # width, height

SLACK = 1.0  # px that a box or a polygon may extend outside the image
LEAST = 6  # numbers of a polygon: three points

UNFIT = "'segmentation' that is neither polygons nor run lengths"
SHORT = (
    "masks whose first polygon is empty, odd or of fewer than three points ([x, y, width, height] "
    "is none), which training and evaluation would read differently; mend them, or remove "
    "'segmentation' to train on boxes alone"
)
PART = "further polygons that are empty, odd or of fewer than three points; training drops them"
FAR = "polygons with points farther outside than the image is large"
OUTSIDE = f"polygons that extend more than {SLACK:g} px outside"
TINY = "polygons within one pixel, as normalised coordinates are (COCO's are in px)"
OTHER_SIZE = "run lengths of another size than their image"
NO_RUNS = "run lengths that are not whole numbers from 0 up"
NO_TEXT = "compressed run lengths that cannot be decoded"
OTHER_SUM = "run lengths that do not sum to height x width"
EMPTY = (
    "masks of no pixel (points on one line, run lengths of background), which no prediction can "
    "match"
)
FAULTS = (UNFIT, SHORT, FAR, OTHER_SIZE, NO_RUNS, NO_TEXT, OTHER_SUM)
NOTES = (OUTSIDE, TINY)


def check(
    objects: Iterable[dict[str, Any]], sizes: dict[int, Size], findings: Findings
) -> dict[str, int]:
    """Check every 'segmentation'; faults and notes name annotation ids.

    sizes: of the images, by id. Returns the numbers of objects, without crowds, that have
    "polygons" or "rle" or are "bare".
    """
    counts = {"polygons": 0, "rle": 0, "bare": 0}
    ids: dict[str, list[int]] = defaultdict(list)
    for one in objects:
        mask = one.get("segmentation")
        kind = "polygons" if type(mask) is list and mask else "rle" if mask else "bare"
        counts[kind] += not one["iscrowd"]
        if mask is not None and (size := sizes.get(one["image_id"])):
            for what in problems(mask, size):
                ids[what].append(one["id"])
    for what in FAULTS:
        findings.fault(what, ids[what])
    findings.tolerate(PART, ids[PART], counts["polygons"])
    findings.tolerate(EMPTY, ids[EMPTY], counts["polygons"] + counts["rle"])
    for what in NOTES:
        findings.note(what, ids[what])
    return counts


def problems(mask: Any, size: Size) -> Iterator[str]:
    """What is wrong with a mask in an image of `size`: of FAULTS the first, of NOTES all."""
    if type(mask) is dict:
        fault = _run_lengths(mask, size)
    elif type(mask) is list and all(map(numbers, mask)):
        fault = _polygons(mask, size)
    else:
        fault = UNFIT
    if fault:
        yield fault
    elif type(mask) is list and mask:
        if any(len(polygon) < LEAST or len(polygon) % 2 for polygon in mask):
            yield PART
        points = [*filter(None, mask)]
        if min(map(min, points)) < -SLACK or max(map(max, points)) > max(size) + SLACK:
            yield OUTSIDE
        if max(map(max, points)) <= 1:
            yield TINY


def _polygons(mask: list[list[float]], size: Size) -> str | None:
    # pycocotools decides by the first what all of them are
    if mask and (len(mask[0]) < LEAST or len(mask[0]) % 2):
        return SHORT
    side = max(size)
    far = any(min(polygon) < -side or max(polygon) > 2 * side for polygon in mask if polygon)
    if far:
        return FAR
    return EMPTY if mask and not any(map(_has_area, mask)) else None


def _has_area(polygon: list[float]) -> bool:
    """Whether the points of a polygon are not on one line."""
    if len(polygon) < LEAST or len(polygon) % 2:
        return False
    x, y = polygon[:2]
    if (polygon[2] - x) * (polygon[5] - y) != (polygon[3] - y) * (polygon[4] - x):
        return True  # of nearly all, three points tell
    points = np.reshape(polygon, (-1, 2))
    right, down = (points[1:] - points[0]).T
    far = np.argmax(right * right + down * down)
    return bool((right * down[far] != down * right[far]).any())


def _run_lengths(mask: dict[str, Any], size: Size) -> str | None:
    width, height = size
    counts: Any = mask.get("counts")
    given: Any = mask.get("size")
    if type(counts) not in (list, str):
        return UNFIT
    if given != [height, width] or {*map(type, given)} != {int}:
        return OTHER_SIZE
    if type(counts) is list and any(type(run) is not int or run < 0 for run in counts):
        return NO_RUNS
    runs = decompressed(counts) if type(counts) is str else counts
    if runs is None:
        return NO_TEXT
    if sum(runs) != width * height:
        return OTHER_SUM
    return None if any(runs[1::2]) else EMPTY  # background and object take turns


def decompressed(text: str) -> list[int] | None:
    """The run lengths in a string of pycocotools; None if it holds anything else.

    Six bits a character, from "0": five of a number, lowest first, and one that says that it
    continues; the last one's highest bit is the sign. From the fourth on, a number is the
    difference to the run before the last (`rleToString` in pycocotools' maskApi.c).
    """
    codes = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if length.max() > 7:  # 35 bits; a run has at most 32
        return None
    place = np.arange(len(codes)) - np.repeat(starts, length)
    values = np.add.reduceat((codes & 31) << 5 * place, starts)
    values -= np.where(codes[ends] & 16, 1 << 5 * length, 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return None if runs.min() < 0 else runs.tolist()
