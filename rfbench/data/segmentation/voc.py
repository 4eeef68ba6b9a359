"""Pascal VOC: palette PNGs of SegmentationClass, by the lists of ImageSets/Segmentation."""

import os

from rfbench.data.folder import missing
from rfbench.data.segmentation import lists, masks
from rfbench.data.segmentation.pairs import FilePairs, SegSet, none
from rfbench.errors import UsageError

CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()
EXPECTED = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ of VOCdevkit/VOC2012"


def voc(
    root: str,
    train: str = "train",
    val: str = "val",
    masks_folder: str = "SegmentationClass",
    eval_only: bool = False,
) -> SegSet:
    """VOCdevkit, or a year of it; 21 classes, index 255 (the objects' contours) is ignored.

    train, val: lists of ImageSets/Segmentation, without .txt: "trainaug" with masks_folder
    "SegmentationClassAug" are the 10,582 images with SBD's masks (Hariharan et al. 2011).
    """
    folder = _year(root)
    values = masks.indices(len(CLASSES))

    def part(name: str) -> FilePairs:
        path = os.path.join(folder, "ImageSets", "Segmentation", f"{name}.txt")
        pairs = [
            (
                os.path.join(folder, "JPEGImages", f"{one}.jpg"),
                os.path.join(folder, masks_folder, f"{one}.png"),
            )
            for one in lists.names_in(path)
        ]
        return lists.paired(pairs, values, path)

    training = none(values) if eval_only else part(train)
    validation = part(val)
    lists.apart(training, validation)
    return SegSet("voc", CLASSES, training, validation, background=0, crop=(512, 512))


def _year(root: str) -> str:
    """ROOT itself, ROOT/VOCdevkit/VOC20xx or ROOT/VOC20xx; UsageError if there are several."""
    inner = os.path.join(root, "VOCdevkit")
    for folder in (root, inner):
        if os.path.isdir(os.path.join(folder, "JPEGImages")):
            return folder
        found = sorted(name for name in _names(folder) if name.startswith("VOC20"))
        if len(found) > 1:
            years = ", ".join(found)
            raise UsageError(
                f"{folder} has {years}: choose one, as in -o data.root="
                f"{os.path.join(folder, found[-1])}"
            )
        if found:
            return os.path.join(folder, found[0])
    raise missing("Pascal VOC", root, EXPECTED)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
