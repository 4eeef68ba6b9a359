"""Cityscapes: leftImg8bit and gtFine, whose label ids become the 19 classes of the benchmark."""

import os

from rfbench.data.dataset import some
from rfbench.data.folder import missing
from rfbench.data.segmentation import lists, masks
from rfbench.data.segmentation.pairs import IGNORED, FilePairs, SegSet, none

# label id of gtFine -> class, as trainId in cityscapesScripts' helpers/labels.py
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
LAST = 33
IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
EXPECTED = f"leftImg8bit/train/CITY/*{IMAGE} and gtFine/train/CITY/*{MASK}"


def cityscapes(root: str, eval_only: bool = False) -> SegSet:
    """ROOT/leftImg8bit and ROOT/gtFine, fine annotations; other labels than the 19 are ignored.

    Label ids are read, so that no conversion is needed; 255 stands for -1, the licence plates.
    """
    table = {label: IGNORED for label in range(LAST + 1)} | {IGNORED: IGNORED}
    values = masks.numbered(table | {label: i for i, label in enumerate(CLASSES)})
    notes: list[str] = []
    train = none(values) if eval_only else _part(root, "train", values, notes)
    val = _part(root, "val", values, notes)
    names = [*CLASSES.values()]
    return SegSet("cityscapes", names, train, val, crop=(512, 1024), notes=tuple(notes))


def _part(root: str, part: str, values: masks.Values, notes: list[str]) -> FilePairs:
    images, truth = (os.path.join(root, name, part) for name in ("leftImg8bit", "gtFine"))
    if not (os.path.isdir(images) and os.path.isdir(truth)):
        raise missing("Cityscapes", root, EXPECTED)
    found = lists.below(
        images, lambda name: os.path.join(truth, name.removesuffix(IMAGE) + MASK), notes
    )
    pairs = [pair for pair in found if pair[0].endswith(IMAGE)]
    if others := [image for image, _ in found if not image.endswith(IMAGE)]:
        notes.append(f"{images}: left out what is not called *{IMAGE}: {some(others)}")
    lists.note_idle(pairs, truth, notes, MASK)
    return lists.paired(pairs, values, images)
