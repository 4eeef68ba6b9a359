"""Checks of the boxes and areas of a COCO set, by themselves and beside their masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfbench.data.coco_json import Findings, numbers
from rfbench.data.coco_masks import LEAST, SLACK, Size

LOOKED = 10_000  # objects whose box is compared with their polygons
SPARSE = 1e-3  # share of its box that a mask covers at least; a note tells of less
FULL = 0.1  # the same without a mask, where 'area' is the box's; a visible part may be less
LITTLE = 0.5  # intersection over union of a box and that of its polygons; amodal boxes have more


def check(objects: list[dict[str, Any]], sizes: dict[int, Size], findings: Findings) -> None:
    """Check that boxes have an area, lie within their images, and are those of their masks.

    A few that do not are only a note: Detectron2 clips or drops them.
    """
    known = [one for one in objects if one["image_id"] in sizes]
    boxes = np.array([one["bbox"] for one in known], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, :2] + boxes[:, 2:]
    limits = np.array([sizes[one["image_id"]] for one in known]).reshape(-1, 2)
    outside = np.maximum(-boxes[:, :2], corners - limits).max(1, initial=0)

    def shown(which: Any) -> list[str]:
        return [f"{known[i]['bbox']} of annotation {known[i]['id']}" for i in which.nonzero()[0]]

    # in Detectron2's numbers, in which a very small side vanishes
    with np.errstate(over="ignore"):  # sides without end are refused below
        empty = (corners.astype(np.float32) <= boxes[:, :2].astype(np.float32)).any(1)
    negative = (boxes[:, 2:] < 0).any(1)
    far = (outside > SLACK) & ~negative
    findings.fault("boxes of negative width or height", shown(negative))
    findings.tolerate("boxes without area", shown(empty & ~negative), len(objects))
    findings.tolerate(
        f"boxes [x, y, width, height] that extend more than {SLACK:g} px outside",
        shown(far),
        len(objects),
    )
    near = (outside > 0) & (outside <= SLACK) & ~negative
    findings.note(f"boxes that extend up to {SLACK:g} px outside", shown(near))
    tiny = (corners <= 1).all(1) & (boxes >= 0).all(1) & ~empty
    findings.note(
        "boxes within one pixel, as normalised coordinates are (COCO's are in px)", shown(tiny)
    )
    _check_repeated(objects, findings)
    _check_masks(objects, findings)
    _check_areas(known, boxes[:, 2] * boxes[:, 3], findings)


def _check_areas(known: list[dict[str, Any]], boxes: np.ndarray, findings: Findings) -> None:
    """Check 'area', by which evaluation tells small, medium and large. boxes: their areas, (n,)."""
    areas = np.array([one["area"] for one in known], dtype=np.float64)

    def shown(which: Any) -> list[str]:
        return [f"{known[i]['area']} of annotation {known[i]['id']}" for i in which.nonzero()[0]]

    findings.fault("'area' below 0", shown(areas < 0))
    findings.note("'area' of 0", shown(areas == 0))
    # rounded corners make a little difference
    findings.note("'area' larger than the box", shown(areas > boxes * 1.01 + 1))
    least = np.where([bool(one.get("segmentation")) for one in known], SPARSE, FULL) * boxes
    findings.note(
        "'area' far below the box, as in normalised coordinates (COCO's is in px)",
        shown((areas > 0) & (areas < least)),
    )


def _check_repeated(objects: list[dict[str, Any]], findings: Findings) -> None:
    """Of two alike, evaluation counts one as missed whatever is predicted."""
    first: dict[tuple[Any, ...], int] = {}
    again = []
    for one in objects:
        key = (one["image_id"], one["category_id"], one["iscrowd"], *one["bbox"])
        if first.setdefault(key, one["id"]) != one["id"]:
            again.append(f"{one['id']} as {first[key]}")
    findings.note("annotations of the image, category and box of another", again)


def _check_masks(objects: list[dict[str, Any]], findings: Findings) -> None:
    """Check some boxes against their polygons, which shows corners and sides in another order."""
    drawn = [
        one
        for one in objects
        # those of no area, and normalised ones, are told otherwise
        if not one["iscrowd"] and min(one["bbox"][2:]) > 1 and _drawn(one.get("segmentation"))
    ]
    drawn = drawn[:: -(-len(drawn) // LOOKED) or 1]
    if not drawn:
        return
    boxes, masks = (
        _corners(given)
        for given in (
            [one["bbox"] for one in drawn],
            [_around(one["segmentation"]) for one in drawn],
        )
    )
    common = np.minimum(boxes[:, 2:], masks[:, 2:]) - np.maximum(boxes[:, :2], masks[:, :2])
    areas = [np.prod(each, 1) for each in (np.maximum(common, 0), _sides(boxes), _sides(masks))]
    thin = (np.abs(boxes - masks) <= 2).all(1)  # of these a pixel is much
    other = ((1 + LITTLE) * areas[0] < LITTLE * (areas[1] + areas[2])) & ~thin
    found = (
        f"boxes [x, y, width, height] that are not those of their polygons, of {len(drawn)} "
        "looked into"
    )
    shown = [f"{drawn[i]['bbox']} of annotation {drawn[i]['id']}" for i in other.nonzero()[0]]
    (findings.fault if 2 * len(shown) > len(drawn) else findings.note)(found, shown)


def _corners(given: Sequence[Sequence[float]]) -> np.ndarray:
    """[x, y, width, height] of n boxes as corners, (n, 4)."""
    boxes = np.array(given, dtype=np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def _sides(corners: np.ndarray) -> np.ndarray:
    return corners[:, 2:] - corners[:, :2]


def _drawn(mask: Any) -> bool:
    """Whether a mask is of polygons that can be read."""
    return type(mask) is list and any(map(_whole, mask)) and all(map(numbers, mask))


def _whole(polygon: Any) -> bool:
    return type(polygon) is list and len(polygon) >= LEAST and len(polygon) % 2 == 0


def _around(mask: list[list[float]]) -> tuple[float, float, float, float]:
    """The box [x, y, width, height] around polygons."""
    points = np.concatenate([np.reshape(one, (-1, 2)) for one in mask if _whole(one)])
    (x, y), (right, bottom) = points.min(0), points.max(0)
    return x, y, right - x, bottom - y
