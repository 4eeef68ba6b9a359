"""Where a run's images lie; they are checked before anything is trained."""

import hashlib
import json
import logging
import os
from pathlib import Path

from detectron2.config import CfgNode

from rfbench.data import coco, digits_coco
from rfbench.detect.config import TRAIN, VAL
from rfbench.detect.loaders import register
from rfbench.errors import RfbenchError, UsageError
from rfbench.runs.processes import Processes
from rfbench.schemas.det import DetData

logger = logging.getLogger(__name__)

# parts of a data set: the name in Detectron2, and COCO's own layout
PARTS = {
    "train": (TRAIN, "annotations/instances_train2017.json", "train2017"),
    "val": (VAL, "annotations/instances_val2017.json", "val2017"),
}


def prepare(data: DetData, group: Processes, eval_only: bool = False) -> dict[str, coco.CocoSet]:
    """Check the sets "train" and "val" and make them known to Detectron2.

    Digit scenes are drawn by the first process. Raises RfbenchError where a file is missing or
    wrong, and where the two sets have other categories; UsageError for files beside digit scenes.
    """
    refuse_files(data)
    root = Path(data.root or "datasets/coco")
    if data.name == "digits":
        root = Path(data.root) if data.root else cached(data)
        scenes = data.scenes.model_dump()
        group.by_first(lambda: digits_coco.write(root, **scenes))
    found = {}
    for part in ("val",) if eval_only else ("train", "val"):
        annotations, images = places(data, part, root)
        found[part] = group.by_first(lambda a=annotations, i=images: coco.check(a, i))  # type: ignore[misc]
        register(PARTS[part][0], str(annotations), str(images))
        for text in found[part].notes:
            logger.info(text)
    if empty := [part for part, one in found.items() if not one.objects]:
        raise RfbenchError(f"{places(data, empty[0], root)[0]} has no objects.")
    if not eval_only and found["train"].categories != found["val"].categories:
        ours, theirs = (set(found[part].categories.items()) for part in ("train", "val"))
        apart = ", ".join(f"{name} ({number})" for number, name in sorted(ours ^ theirs)[:3])
        raise RfbenchError(
            "the sets to train on and to evaluate on have other categories: "
            f"{len(ours)} and {len(theirs)}, {len(ours ^ theirs)} in one only: {apart}."
        )
    return found


def refuse_files(data: DetData) -> None:
    """Raise UsageError where the files of another set are given along with digit scenes."""
    keys = [f"{part}_{what}" for part in PARTS for what in ("annotations", "images")]
    given = [f"data.{key}" for key in keys if getattr(data, key)]
    if data.name == "digits" and given:
        raise UsageError(
            f"{', '.join(given)}: data.name=digits draws its own scenes. For files: data.name=coco."
        )


def check_masks(cfg: CfgNode, found: dict[str, coco.CocoSet]) -> None:
    """Raise where the detector puts out masks that the sets do not have, or not in its words."""
    if not cfg.MODEL.MASK_ON:
        return
    for part, data in found.items():
        if data.bare:
            raise RfbenchError(
                f"{data.bare} of {data.objects} objects in the {part} set have no mask, which "
                "this detector needs. Give another set, or a detector of boxes alone."
            )
        if data.rle and cfg.INPUT.MASK_FORMAT != "bitmask":
            raise UsageError(
                f"{data.rle} masks of the {part} set are run lengths: set "
                "opts.INPUT.MASK_FORMAT=bitmask"
            )


def places(data: DetData, part: str, root: Path) -> tuple[Path, Path]:
    """The JSON file and the folder of images of "train" or "val"."""
    _, annotations, images = PARTS[part]
    given = data.model_dump()
    return (
        Path(given[f"{part}_annotations"] or root / annotations),
        Path(given[f"{part}_images"] or root / images),
    )


def cached(data: DetData) -> Path:
    """A folder of the user's cache for scenes as `data` wants them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    key = json.dumps(data.scenes.model_dump(), sort_keys=True).encode()
    return cache / "rfbench" / f"digits-coco-{hashlib.sha256(key).hexdigest()[:12]}"
