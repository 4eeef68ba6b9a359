"""Checks of a data set in COCO's format, before a training that it would abort hours later.

The real COCO 2017 passes. It has images without annotations (1,021 in train), boxes that extend
slightly outside, two boxes of height 0 (annotation 918 is one), and run lengths for crowds.
"""

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rfbench.data.coco_json import (
    BOX,
    FLAG,
    NUMBER,
    SIDE,
    TEXT,
    WHOLE,
    Findings,
    Kind,
    entries,
    numbers,
    read,
)
from rfbench.errors import RfbenchError

SAMPLE = 200  # images whose actual size is read
SLACK = 1.0  # px that a box may extend outside the image
TOLERATED = 1e-4  # share of annotations with a bad box, which Detectron2 drops or clips
EXIF_ORIENTATION = 0x0112
# keys that training and evaluation read from each list
KINDS: dict[str, dict[str, Kind]] = {
    "categories": {"id": WHOLE, "name": TEXT},
    "images": {"id": WHOLE, "file_name": TEXT, "width": SIDE, "height": SIDE},
    "annotations": {
        **{"id": WHOLE, "image_id": WHOLE, "category_id": WHOLE},
        **{"bbox": BOX, "area": NUMBER, "iscrowd": FLAG},
    },
}


@dataclass(frozen=True)
class CocoSet:
    """The contents of a data set. `notes`: remarks for the user, one line each."""

    categories: dict[int, str]  # id -> name
    images: int
    objects: int  # annotations that are not crowds
    crowds: int
    polygons: int  # objects with a mask of polygons
    rle: int  # objects with a mask of run lengths; Detectron2 needs INPUT.MASK_FORMAT=bitmask
    bare: int  # objects without a mask; training or evaluating masks fails on them
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector, which would scan millions of small lists repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def check(annotations: Path, folder: Path) -> CocoSet:
    """Check a JSON file in COCO's format and the folder with its images.

    Raises RfbenchError with everything that is wrong, a line each with the number and the first
    three. Reads the headers of up to 200 images; of the others only the names are checked.
    """
    content = read(annotations, folder)
    findings = Findings(annotations)
    categories, images, objects = (
        entries(content, name, kinds, findings) for name, kinds in KINDS.items()
    )
    _check_ids(content, objects, findings)
    _check_files(images, folder, findings)
    _check_boxes(images, objects, findings)
    masks = _check_masks(images, objects, findings)
    if findings.faults:
        raise RfbenchError(*findings.faults)
    crowds = sum(one["iscrowd"] for one in objects)
    return CocoSet(
        {one["id"]: one["name"] for one in categories},
        len(images),
        len(objects) - crowds,
        crowds,
        **masks,
        notes=tuple(findings.notes),
    )


def _check_ids(content: dict[str, Any], objects: list[dict[str, Any]], findings: Findings) -> None:
    """Check that ids are unique, and that annotations refer to known images and categories."""
    known = {}
    for name in ("categories", "images", "annotations"):
        # includes entries with other faults, so that one fault is not reported twice
        ids = Counter(
            one["id"] for one in content[name] if type(one) is dict and WHOLE.fits(one.get("id"))
        )
        findings.fault(f"duplicate ids in '{name}'", [i for i in ids if ids[i] > 1])
        known[name] = ids.keys()
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        strange = [one for one in objects if one[key] not in known[name]]
        shown = [f"{one[key]} in annotation {one['id']}" for one in strange]
        findings.fault(f"'{key}' that is not in '{name}'", shown)
        used = {one[key] for one in objects}
        idle = [i for i in known[name] if i not in used]
        findings.note(f"'{name}' without annotations, of {len(known[name])}", idle)
    ignored = [one["id"] for one in objects if one.get("ignore")]
    findings.fault("annotations with 'ignore', which Detectron2 does not support", ignored)
    if 0 in known["annotations"]:  # pycocotools reads 0 as "no match"
        findings.note(
            "annotations whose match pycocotools counts as a miss; number from 1", ["id 0"]
        )
    if all(one["iscrowd"] for one in objects):
        findings.fault("no annotations but crowds", [one["id"] for one in objects])


def _check_files(images: list[dict[str, Any]], root: Path, findings: Findings) -> None:
    """Check that every image exists, and that a sample has the size in the JSON file."""
    listings: dict[str, set[str]] = {}
    absent: list[dict[str, Any]] = []
    present: list[dict[str, Any]] = []
    for one in images:
        folder, name = os.path.split(one["file_name"])
        if folder not in listings:  # one listing is faster than 118,287 checks
            listings[folder] = _names(root / folder)
        (present if name in listings[folder] else absent).append(one)
    findings.fault(f"images that are not in {root}", [one["file_name"] for one in absent])
    names = Counter(one["file_name"] for one in images)
    findings.note(
        "files that are named more than once", [name for name in names if names[name] > 1]
    )
    unreadable, other = [], []
    sample = range(0, len(present), -(-len(present) // SAMPLE) or 1)
    for one in (present[i] for i in sample):
        try:
            size = _size(root / one["file_name"])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            unreadable.append(one["file_name"])
            continue
        if size != (one["width"], one["height"]):
            shown = f"{size[0]}x{size[1]}, not {one['width']}x{one['height']}"
            other.append(f"{one['file_name']} is {shown}")
    looked = f"of {len(sample)} looked into"
    findings.fault(f"images that cannot be read, {looked}", unreadable)
    findings.fault(f"images of another size than the JSON file says, {looked}", other)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of an image as Detectron2 reads it: rotated as EXIF says."""
    with Image.open(path) as image:
        width, height = image.size
        rotated = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if rotated else (width, height)


def _check_boxes(
    images: list[dict[str, Any]], objects: list[dict[str, Any]], findings: Findings
) -> None:
    """Check that boxes have an area and lie within their images.

    A few that do not are only a note: Detectron2 clips or drops them.
    """
    sizes = {one["id"]: (one["width"], one["height"]) for one in images}
    known = [one for one in objects if one["image_id"] in sizes]
    boxes = np.array([one["bbox"] for one in known], dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, :2] + boxes[:, 2:]
    limits = np.array([sizes[one["image_id"]] for one in known]).reshape(-1, 2)
    outside = np.maximum(-boxes[:, :2], corners - limits).max(1, initial=0)

    def shown(which: Any) -> list[str]:
        return [f"{known[i]['bbox']} of annotation {known[i]['id']}" for i in which.nonzero()[0]]

    empty, negative = (boxes[:, 2:] == 0).any(1), (boxes[:, 2:] < 0).any(1)
    far = (outside > SLACK) & ~negative
    findings.fault("boxes of negative width or height", shown(negative))
    for what, which in (
        ("boxes without area", empty & ~negative),
        (f"boxes [x, y, width, height] that extend more than {SLACK:g} px outside", far),
    ):
        report = findings.note if which.sum() <= TOLERATED * len(objects) else findings.fault
        report(what, shown(which))
    near = (outside > 0) & (outside <= SLACK) & ~negative
    findings.note(f"boxes that extend up to {SLACK:g} px outside", shown(near))


def _check_masks(
    images: list[dict[str, Any]], objects: list[dict[str, Any]], findings: Findings
) -> dict[str, int]:
    """Numbers of objects, without crowds, that have "polygons" or "rle" or are "bare"."""
    sizes = {one["id"]: [one["height"], one["width"]] for one in images}
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
    findings.fault("'segmentation' that is neither polygons nor run lengths", unfit)
    findings.fault("run lengths of another size than their image", other)
    findings.note("polygons of fewer than three points, whose annotations are dropped", short)
    return counts
