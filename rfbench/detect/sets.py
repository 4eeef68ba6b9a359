"""The data sets of a run, checked before training starts."""

import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from rfbench import class_names
from rfbench.data import coco, digits_coco, same_files
from rfbench.data.dataset import some
from rfbench.detect.config import TRAIN, VAL
from rfbench.detect.loaders import register
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import weight_files
from rfbench.runs.processes import Processes
from rfbench.schemas.det import DetData

logger = logging.getLogger(__name__)

# parts of a data set: the name in Detectron2, and COCO's own layout
PARTS = {
    "train": (TRAIN, "annotations/instances_train2017.json", "train2017"),
    "val": (VAL, "annotations/instances_val2017.json", "val2017"),
}

# images that are read before training: an unreadable one to evaluate is noticed hours later
READ = {"train": 200, "val": 1000}


def prepare(data: DetData, group: Processes, eval_only: bool = False) -> dict[str, coco.CocoSet]:
    """Check the sets "train" and "val" and register them with Detectron2.

    Digit scenes are drawn by the first process. Raises RfbenchError if a file is missing or wrong,
    or if the two sets differ in categories; UsageError for files given along with digit scenes.
    """
    refuse_files(data)
    root = root_of(data)
    if data.name == "digits":
        scenes = data.scenes.model_dump()
        group.by_first(lambda: digits_coco.write(root, **scenes))
    checked = {}
    for part in ("val",) if eval_only else ("train", "val"):
        annotations, images = paths(data, part, root)
        checked[part] = group.by_first(
            lambda a=annotations, i=images, n=READ[part]: coco.check(a, i, n)  # type: ignore[misc]
        )
        register(PARTS[part][0], str(annotations), str(images))
        for text in checked[part].notes:
            logger.info(text)
    if empty := [part for part, one in checked.items() if not one.objects]:
        raise RfbenchError(f"{paths(data, empty[0], root)[0]} has no objects.")
    if not eval_only and checked["train"].categories != checked["val"].categories:
        ours, theirs = (set(checked[part].categories.items()) for part in ("train", "val"))
        apart = ", ".join(f"{name} ({number})" for number, name in sorted(ours ^ theirs)[:3])
        raise RfbenchError(
            "the training and validation sets differ in categories: "
            f"{len(ours)} and {len(theirs)}, {len(ours ^ theirs)} in one only: {apart}"
            f"{class_names.hint(*({name for _, name in one} for one in (ours, theirs)))}."
        )
    if not eval_only:
        files = checked["train"].files, checked["val"].files
        check_apart(*files)
        for text in group.by_first(lambda: same_files.told(*files)):
            logger.info(text)
    return checked


def follow(
    data: DetData, parts: dict[str, coco.CocoSet], content: Any, source: str
) -> dict[str, coco.CocoSet]:
    """The sets with their classes in the order of a checkpoint's, if it tells them in another.

    content: of the checkpoint in the file `source`. Raises RfbenchError, with both lists, for other
    classes.
    """
    held = weight_files.classes_in(content, source) if isinstance(content, dict) else None
    own = parts["val"].categories
    if held is None or held == list(own.values()):
        return parts
    weight_files.compare_classes(held, list(own.values()), source)
    number = {name: key for key, name in own.items()}
    ordered = {number[name]: name for name in held}
    for part in parts:
        annotations, images = paths(data, part, root_of(data))
        register(PARTS[part][0], str(annotations), str(images), ordered)
    return {key: dataclasses.replace(one, categories=ordered) for key, one in parts.items()}


def check_apart(train: frozenset[str], val: frozenset[str]) -> None:
    """Raise RfbenchError if images are trained on and evaluated, unless all of them are."""
    if both := sorted(train & val):
        text = (
            f"{len(both)} images are in the training and in the validation set, links followed: "
            f"{some(both, 3)}"
        )
        if train != val:
            raise RfbenchError(f"{text}. Remove them from one.")
        logger.warning("%s: the metrics are those of training images", text)


def refuse_files(data: DetData) -> None:
    """Raise UsageError if files of another set are given along with digit scenes."""
    keys = [f"{part}_{what}" for part in PARTS for what in ("annotations", "images")]
    given = [f"data.{key}" for key in keys if getattr(data, key)]
    if data.name == "digits" and given:
        raise UsageError(
            f"{', '.join(given)}: data.name=digits draws its own scenes. For files: data.name=coco."
        )


def check_masks(cfg: CfgNode, parts: dict[str, coco.CocoSet]) -> None:
    """Raise if the detector needs masks that the sets lack, or have in another encoding."""
    if not cfg.MODEL.MASK_ON:
        return
    for part, data in parts.items():
        if data.bare:
            raise RfbenchError(
                f"{data.bare} of {data.objects} objects in the {part} set have no mask, which "
                "this detector needs. Give another set, or a detector of boxes only."
            )
        if data.rle and cfg.INPUT.MASK_FORMAT != "bitmask":
            raise UsageError(
                f"{data.rle} masks of the {part} set are run lengths: set "
                "opts.INPUT.MASK_FORMAT=bitmask"
            )


def root_of(data: DetData) -> Path:
    """The folder of the files: as configured, else the default one or, of scenes, a cache."""
    if data.name == "digits":
        return Path(data.root) if data.root else cached(data)
    return Path(data.root or "datasets/coco")


def paths(data: DetData, part: str, root: Path) -> tuple[Path, Path]:
    """The JSON file and the folder of images of "train" or "val"."""
    _, annotations, images = PARTS[part]
    given = data.model_dump()
    return (
        Path(given[f"{part}_annotations"] or root / annotations),
        Path(given[f"{part}_images"] or root / images),
    )


def cached(data: DetData) -> Path:
    """The folder in the user's cache for scenes with the settings of `data`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    key = json.dumps(data.scenes.model_dump(), sort_keys=True).encode()
    return cache / "rfbench" / f"digits-coco-{hashlib.sha256(key).hexdigest()[:12]}"
