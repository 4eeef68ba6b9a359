"""Checks of a data set in COCO's format, before a training that it would abort hours later.

The real COCO 2017 passes. It has images without annotations (1,021 in train), boxes that extend
slightly outside, two boxes of height 0 (annotation 918 is one), and run lengths for crowds.
"""

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfbench import class_names
from rfbench.data import coco_boxes, coco_files, coco_masks
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

    categories: dict[int, str]  # id -> name, in the order of a detector's classes
    images: int
    objects: int  # annotations that are not crowds
    crowds: int
    polygons: int  # objects with a mask of polygons
    rle: int  # objects with a mask of run lengths; Detectron2 needs INPUT.MASK_FORMAT=bitmask
    bare: int  # objects without a mask; training or evaluating masks fails on them
    notes: tuple[str, ...] = ()
    files: frozenset[str] = field(default=frozenset(), compare=False)  # real paths of the images
    # (height, width) of the images -> how many have it
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict, compare=False)


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
def check(annotations: Path, folder: Path, sample: int = coco_files.SAMPLE) -> CocoSet:
    """Check a JSON file in COCO's format and the folder with its images.

    Raises RfbenchError with everything that is wrong, a line each with the number and the first
    three. Reads up to `sample` images; of the others only the names are checked.
    """
    content = read(annotations, folder)
    findings = Findings(annotations)
    categories, images, objects = (
        entries(content, name, kinds, findings) for name, kinds in KINDS.items()
    )
    _check_ids(content, objects, findings)
    files = coco_files.check(images, folder, findings, sample)
    sizes = {one["id"]: (one["width"], one["height"]) for one in images}
    coco_boxes.check(objects, sizes, findings)
    masks = coco_masks.check(objects, sizes, findings)
    if findings.faults:
        raise RfbenchError(*findings.faults)
    crowds = sum(one["iscrowd"] for one in objects)
    return CocoSet(
        # Detectron2's order
        {one["id"]: one["name"] for one in sorted(categories, key=lambda one: one["id"])},
        len(images),
        len(objects) - crowds,
        crowds,
        **masks,
        notes=tuple(findings.notes),
        files=files,
        sizes=Counter((one["height"], one["width"]) for one in images),
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
    ignored = [one["id"] for one in objects if one.get("ignore", 0) != 0]
    findings.fault("annotations with 'ignore', which Detectron2 does not support", ignored)
    odd = [one["id"] for one in objects if not _readable(one.get("keypoints"))]
    findings.fault("annotations whose 'keypoints' are not a list of numbers", odd)
    names: dict[str, list[Any]] = {}
    for one in content["categories"]:
        if type(one) is dict and TEXT.fits(one.get("name")):
            names.setdefault(one["name"], []).append(one.get("id"))
    # metrics are kept by name: one of the two APs would be lost
    double = [f"{name}: {' and '.join(map(str, ids))}" for name, ids in names.items() if ids[1:]]
    findings.fault("categories of one name", double)
    findings.note("categories that people would take for one", class_names.alike(names))
    if 0 in known["annotations"]:  # pycocotools reads 0 as "no match"
        findings.note(
            "annotations whose match pycocotools counts as a miss; number from 1", ["id 0"]
        )
    if all(one["iscrowd"] for one in objects):
        findings.fault("no annotations but crowds", [one["id"] for one in objects])


def _readable(keypoints: Any) -> bool:
    """Whether Detectron2 can read 'keypoints', which it does for detectors of boxes too."""
    return not keypoints or numbers(keypoints)
