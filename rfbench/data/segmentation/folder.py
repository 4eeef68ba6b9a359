"""One's own images and masks: images/ and masks/ of the same names, masks as index PNGs."""

import os
import re
from typing import Any

from rfbench import class_names
from rfbench.data.folder import missing
from rfbench.data.order import epoch_order
from rfbench.data.segmentation import lists, masks
from rfbench.data.segmentation.lists import Pair
from rfbench.data.segmentation.pairs import IGNORED, FilePairs, SegSet, none
from rfbench.errors import RfbenchError, UsageError

NAMES = "classes.txt"
EXPECTED = "images/train/*.jpg and masks/train/*.png, images/val/ and masks/val/"


def folder(
    root: str,
    classes: list[str | int] | None = None,
    ignored: list[int] | None = None,
    colors: list[list[int]] | None = None,
    background: str | int | None = None,
    val_share: float | None = None,
    upright: bool | None = None,
    eval_only: bool = False,
) -> SegSet:
    """ROOT/images/train/** with ROOT/masks/train/**.png, and val; or images/** split by val_share.

    classes: their names, in the order of the indices; null: the lines of ROOT/classes.txt. ignored:
    indices that count nowhere, 255 by default. colors: masks are colour images; [red, green, blue]
    of every class, in their order; white is ignored unless a class has it. background: the class
    that is none of the objects, for the foreground's mIoU. upright: whether images are turned as
    EXIF says; null: images that it turns are refused, as their masks may be turned too or not.
    """
    names = _names(root, None if classes is None else [str(name) for name in classes])
    values = _values(names, ignored, colors)
    background = None if background is None else str(background)
    if background is not None and background not in names:
        raise UsageError(
            f"data.options.background: no class '{background}'. There are: {', '.join(names)}."
        )
    number = None if background is None else names.index(background)
    notes = [f"{root}: the classes {pair}" for pair in class_names.alike(names)]

    def paired(pairs: list[Pair], *below: str) -> FilePairs:
        return lists.paired(pairs, values, os.path.join(root, "images", *below), upright)

    if val_share is not None:
        if not 0 < val_share < 1:
            raise UsageError(f"val_share must lie between 0 and 1 (it is {val_share})")
        if all(os.path.isdir(os.path.join(root, "images", part)) for part in ("train", "val")):
            raise UsageError(
                f"{root} is already split into images/train/ and images/val/: leave "
                "data.options.val_share out, or rename one of them to split all images again."
            )
        pairs = _part(root, "", notes)
        held = max(1, round(len(pairs) * val_share))
        if pairs and held == len(pairs):
            raise RfbenchError(
                f"{root}/images: all {held} images would be held out by val_share = {val_share}; "
                "none is left to train on"
            )
        chosen = {int(i) for i in epoch_order(len(pairs), 0, 0)[:held]}  # always the same
        val = paired([p for i, p in enumerate(pairs) if i in chosen])
        rest = [p for i, p in enumerate(pairs) if i not in chosen]
        train = none(values) if eval_only else paired(rest)
    else:
        val = paired(_part(root, "val", notes), "val")
        train = none(values) if eval_only else paired(_part(root, "train", notes), "train")
    lists.apart(train, val)
    notes += lists.shared(train) + lists.shared(val)
    return SegSet(
        "folder", names, train, val, background=number, crop=(256, 256), notes=tuple(notes)
    )


def _names(root: str, classes: list[str] | None) -> list[str]:
    path = os.path.join(root, NAMES)
    if classes is None and not os.path.isfile(path):
        if not os.path.isdir(os.path.join(root, "images")):
            raise missing("images with masks", root, EXPECTED)
        raise UsageError(
            f"which classes do the masks of {root} have? Name them in {path}, one a line in the "
            "order of their indices, or with -o data.options.classes=[background,...]."
        )
    names = _lines(path) if classes is None else classes
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not 1 < len(names) < IGNORED:
        what = f"{twice[0]!r} is there twice" if twice else f"they are {len(names)}"
        raise UsageError(f"classes must be 2 to 254 different names ({what})")
    return names


def _lines(path: str) -> list[str]:
    """The lines of classes.txt; UsageError for an empty one between others.

    It may stand for an index without a class, or for nothing: the classes behind it would be
    others.
    """
    names = lists.lines_of(path)
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise UsageError(
            f"{path}: line {names.index('') + 1} is empty. Each line names the class of an index, "
            "the first that of 0: name this one too, or remove the line."
        )
    numbers = _numbers(names)
    wrong = next((i for i, number in enumerate(numbers) if number != i), None)
    if wrong is not None:
        raise UsageError(
            f"{path}: line {wrong + 1} is '{names[wrong]}', but it names the class of index "
            f"{wrong}: each line names that of an index, the first that of 0. Sort the lines and "
            "leave the numbers out. If they belong to the names: -o data.options.classes=[...]."
        )
    return names


# a line of classes.txt with a number of its own: '1 tree', '1: tree', '1. tree'; 'tree,1'
NUMBERED = (
    r"(?P<number>\d{1,9})(\s+|\s*[:=,;]\s*|[.)]\s+|\s*-\s+)(?P<name>.*\D.*)",
    r"(?P<name>.*\D.*?)(\s+|\s*[:=,;]\s*)(?P<number>\d{1,9})",
)


def _numbers(names: list[str]) -> list[int]:
    """The numbers that every line has beside another name; [] if there are none.

    Of names that are the same but for them, such as level 1 and level 2, they are a part.
    """
    for pattern in NUMBERED:
        found = [one for name in names if (one := re.fullmatch(pattern, name))]
        if len(found) == len(names) == len({one["name"] for one in found}):
            return [int(one["number"]) for one in found]
    return []


def _values(
    names: list[str], ignored: list[int] | None, colors: list[list[int]] | None
) -> masks.Values:
    if colors is None:
        left_out = [IGNORED] if ignored is None else ignored
        if wrong := [v for v in left_out if not isinstance(v, int) or not len(names) <= v <= 255]:
            raise UsageError(f"data.options.ignored: {wrong[0]} is not an index beyond the classes")
        return masks.indices(len(names), left_out)
    if ignored is not None:
        raise UsageError("data.options.ignored is of indices; with colors, white is ignored")
    strange = [one for one in colors if not _is_color(one)]
    if len(colors) != len(names) or strange:
        raise UsageError(
            f"data.options.colors must be [red, green, blue], each 0 to 255, for each of "
            f"{len(names)} classes" + (f" (one is {strange[0]})" if strange else "")
        )
    known = {(one[0], one[1], one[2]): i for i, one in enumerate(colors)}
    if len(known) < len(colors):
        raise UsageError("data.options.colors has one colour for two classes")
    return masks.colours([*({(255, 255, 255): IGNORED} | known).items()])


def _is_color(given: Any) -> bool:
    whole = isinstance(given, list) and all(type(value) is int for value in given)
    return whole and len(given) == 3 and all(0 <= value <= 255 for value in given)


def _part(root: str, part: str, notes: list[str]) -> list[Pair]:
    images, truth = (os.path.join(root, name, part) for name in ("images", "masks"))
    if not (os.path.isdir(images) and os.path.isdir(truth)):
        raise missing("images with masks", root, EXPECTED)
    found = lists.below(
        images, lambda name: os.path.join(truth, os.path.splitext(name)[0] + ".png"), notes
    )
    lists.note_idle(found, truth, notes)
    return found
