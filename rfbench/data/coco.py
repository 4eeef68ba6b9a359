"""A data set in COCO's format, looked over before a training that it would end hours later.

The real COCO 2017 passes. It has pictures without annotations (1,021 in train), boxes that reach a
little outside, two boxes without height (annotation 918 is one), run lengths where things crowd.
"""

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rfbench.data.coco_json import (
    Found,
    box,
    entries,
    flag,
    number,
    numbers,
    read,
    side,
    text,
    whole,
)
from rfbench.errors import RfbenchError

SAMPLE = 200  # pictures whose real size is read
SLACK = 1.0  # px that a box may reach outside by
TOLERATED = 1e-4  # the share of annotations that may have a poor box: Detectron2 drops or clips it
EXIF_ORIENTATION = 0x0112
# what training and evaluation read of each list
KINDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "categories": {"id": whole, "name": text},
    "images": {"id": whole, "file_name": text, "width": side, "height": side},
    "annotations": {
        **{"id": whole, "image_id": whole, "category_id": whole},
        **{"bbox": box, "area": number, "iscrowd": flag},
    },
}


@dataclass(frozen=True)
class CocoSet:
    """What a data set holds. `notes` is what a user should know, one line each."""

    categories: dict[int, str]  # id -> name
    pictures: int
    objects: int  # annotations that are not crowds
    crowds: int
    polygons: int  # objects whose mask is polygons
    rle: int  # objects whose mask is run lengths: Detectron2 wants INPUT.MASK_FORMAT=bitmask
    bare: int  # objects without a mask: they stop a training or an evaluation of masks
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the search for cycles, which goes over millions of small lists again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def check(annotations: Path, images: Path) -> CocoSet:
    """Check a JSON file in COCO's format and the folder with its pictures.

    Raises RfbenchError with everything that is wrong, one line each with the number and the first
    three. Looks into the headers of up to 200 pictures; the others are looked up by name.
    """
    content = read(annotations, images)
    found = Found(annotations)
    categories, pictures, objects = (
        entries(content, name, kinds, found) for name, kinds in KINDS.items()
    )
    _check_ids(content, objects, found)
    _check_files(pictures, images, found)
    _check_boxes(pictures, objects, found)
    masks = _check_masks(pictures, objects, found)
    if found.faults:
        raise RfbenchError("\n".join(found.faults))
    crowds = sum(one["iscrowd"] for one in objects)
    return CocoSet(
        {one["id"]: one["name"] for one in categories},
        len(pictures),
        len(objects) - crowds,
        crowds,
        **masks,
        notes=tuple(found.notes),
    )


def _check_ids(content: dict[str, Any], objects: list[dict[str, Any]], found: Found) -> None:
    """That every id is there once, and that annotations are of pictures and categories there."""
    known = {}
    for name in ("categories", "images", "annotations"):
        # also of entries that are wrong elsewhere: one fault need not be told twice
        ids = Counter(
            one["id"] for one in content[name] if type(one) is dict and whole(one.get("id"))
        )
        found.fault(f"ids that come again in '{name}'", [i for i in ids if ids[i] > 1])
        known[name] = ids.keys()
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        strange = [one for one in objects if one[key] not in known[name]]
        shown = [f"{one[key]} in annotation {one['id']}" for one in strange]
        found.fault(f"'{key}' that is not in '{name}'", shown)
        used = {one[key] for one in objects}
        idle = [i for i in known[name] if i not in used]
        found.note(f"'{name}' without annotations, of {len(known[name])}", idle)
    ignored = [one["id"] for one in objects if one.get("ignore")]
    found.fault("annotations with 'ignore', which Detectron2 does not know", ignored)
    if 0 in known["annotations"]:  # it takes the id for "no match"
        found.note("annotations whose match pycocotools counts as a miss; number from 1", ["id 0"])
    if all(one["iscrowd"] for one in objects):
        found.fault("annotations that are crowds, which is all", [one["id"] for one in objects])


def _check_files(pictures: list[dict[str, Any]], images: Path, found: Found) -> None:
    """That every picture is there, and some of them of the size that the JSON file says."""
    listed: dict[str, set[str]] = {}
    absent: list[dict[str, Any]] = []
    present: list[dict[str, Any]] = []
    for one in pictures:
        folder, name = os.path.split(one["file_name"])
        if folder not in listed:  # one listing is faster than 118,287 looks
            listed[folder] = _names(images / folder)
        (present if name in listed[folder] else absent).append(one)
    found.fault(f"pictures that are not in {images}", [one["file_name"] for one in absent])
    names = Counter(one["file_name"] for one in pictures)
    found.note("files that are named more than once", [name for name in names if names[name] > 1])
    unreadable, other = [], []
    sample = range(0, len(present), -(-len(present) // SAMPLE) or 1)
    for one in (present[i] for i in sample):
        try:
            size = _size(images / one["file_name"])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            unreadable.append(one["file_name"])
            continue
        if size != (one["width"], one["height"]):
            shown = f"{size[0]}x{size[1]}, not {one['width']}x{one['height']}"
            other.append(f"{one['file_name']} is {shown}")
    looked = f"of {len(sample)} looked into"
    found.fault(f"pictures that cannot be read, {looked}", unreadable)
    found.fault(f"pictures of another size than the JSON file says, {looked}", other)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as Detectron2 reads it: turned as EXIF says."""
    with Image.open(path) as picture:
        width, height = picture.size
        turned = picture.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _check_boxes(
    pictures: list[dict[str, Any]], objects: list[dict[str, Any]], found: Found
) -> None:
    """That boxes have an area and lie within their pictures.

    A few that do not are a note: of them Detectron2 clips some and drops the others.
    """
    sizes = {one["id"]: (one["width"], one["height"]) for one in pictures}
    placed = [one for one in objects if one["image_id"] in sizes]
    boxes = np.array([one["bbox"] for one in placed], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, :2] + boxes[:, 2:]
    limits = np.array([sizes[one["image_id"]] for one in placed]).reshape(-1, 2)
    outside = np.maximum(-boxes[:, :2], corners - limits).max(1, initial=0)

    def shown(which: Any) -> list[str]:
        return [f"{placed[i]['bbox']} of annotation {placed[i]['id']}" for i in which.nonzero()[0]]

    flat, negative = (boxes[:, 2:] == 0).any(1), (boxes[:, 2:] < 0).any(1)
    far = (outside > SLACK) & ~negative
    found.fault("boxes of negative width or height", shown(negative))
    for what, which in (
        ("boxes without area", flat & ~negative),
        (f"boxes [x, y, width, height] that reach more than {SLACK:g} px outside", far),
    ):
        tell = found.note if which.sum() <= TOLERATED * len(objects) else found.fault
        tell(what, shown(which))
    near = (outside > 0) & (outside <= SLACK) & ~negative
    found.note(f"boxes that reach up to {SLACK:g} px outside", shown(near))


def _check_masks(
    pictures: list[dict[str, Any]], objects: list[dict[str, Any]], found: Found
) -> dict[str, int]:
    """How many objects, crowds apart, have "polygons", "rle", or are "bare"."""
    sizes = {one["id"]: [one["height"], one["width"]] for one in pictures}
    counts = {"polygons": 0, "rle": 0, "bare": 0}
    unfit, other, short = [], [], []
    for one in objects:
        mask = one.get("segmentation")
        kind = "polygons" if type(mask) is list and mask else "rle" if mask else "bare"
        counts[kind] += not one["iscrowd"]
        if type(mask) is list:
            if not all(map(numbers, mask)):
                unfit.append(one["id"])
            elif mask and not any(len(p) >= 6 and len(p) % 2 == 0 for p in mask):
                short.append(one["id"])
        elif type(mask) is dict:
            if type(mask.get("counts")) not in (list, str):
                unfit.append(one["id"])
            elif mask.get("size") != sizes.get(one["image_id"], mask.get("size")):
                other.append(one["id"])
        elif mask is not None:
            unfit.append(one["id"])
    found.fault("'segmentation' that is neither polygons nor run lengths", unfit)
    found.fault("run lengths of another size than their picture", other)
    found.note("polygons of less than three points, whose annotations are dropped", short)
    return counts
