"""Any ImageFolder: one folder a class. Classes, extensions and order are torchvision's."""

import os
from pathlib import Path

import numpy as np

from rfbench import class_names as naming
from rfbench.data import walk
from rfbench.data.dataset import Dataset, FileSplit, some
from rfbench.errors import RfbenchError, UsageError


def folder(
    root: str,
    train: str = "train",
    val: str = "val",
    val_share: float | None = None,
    eval_only: bool = False,
) -> Dataset:
    """ROOT/train/<class>/ and ROOT/val/<class>/, or ROOT/<class>/ split by `val_share`.

    `val_share` holds out this share of each class (at least one image), always the same images.
    With `eval_only` the training folder is neither needed nor read.
    """
    notes: list[str] = []
    if val_share is not None:
        if not 0 < val_share < 1:
            raise UsageError(f"val_share must lie between 0 and 1 (it is {val_share})")
        classes = class_names(root, f"{root}/<class>/*.jpg", "folder of classes", notes=notes)
        if {train, val} <= set(classes):
            raise UsageError(
                f"{root} is already split into {train}/ and {val}/: leave data.val_share out, "
                f"or set data.root to {os.path.join(root, train)} to split that."
            )
        if all(name.lower() in SPLITS for name in classes):
            raise UsageError(
                f"{root} has {some([f'{name}/' for name in classes])}: parts of a data set, not "
                f"its classes. Set data.root to one, such as {os.path.join(root, classes[-1])}"
            )
        split = list_classes(root, classes, notes)
        train_split, val_split = _hold_out(split, val_share)
    else:
        expected = f"{train}/<class>/*.jpg and {val}/<class>/*.jpg"
        parts = train_and_val(root, "ImageFolder", expected, train, val, eval_only, notes)
        classes, train_split, val_split = parts
    notes += [f"{root}: the classes {pair}" for pair in naming.alike(classes)]
    return Dataset("folder", classes, train_split, val_split, notes=tuple(notes))


SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def train_and_val(
    root: str,
    what: str,
    expected: str,
    train: str,
    val: str,
    eval_only: bool,
    notes: list[str],
) -> tuple[list[str], FileSplit, FileSplit]:
    """(classes, training split, validation split) of two folders with the same classes.

    notes: gets lines on what was left out.
    """
    val_folder = os.path.join(root, val)
    val_classes = class_names(val_folder, expected, what, root, notes)
    if eval_only:
        return val_classes, FileSplit([], [], [], []), list_classes(val_folder, val_classes, notes)
    train_folder = os.path.join(root, train)
    classes = class_names(train_folder, expected, what, root, notes)
    only_train = sorted(set(classes) - set(val_classes))
    only_val = sorted(set(val_classes) - set(classes))
    if only_train or only_val:
        lacks = [f"{val} lacks {some(only_train)}"] if only_train else []
        lacks += [f"{train} lacks {some(only_val)}"] if only_val else []
        raise RfbenchError(
            f"{root}: {train} and {val} differ in classes: {'; '.join(lacks)}"
            f"{naming.hint(only_train, only_val)}"
        )
    training = list_classes(train_folder, classes, notes)
    validation = list_classes(val_folder, classes, notes)
    notes += check_apart(training, validation)
    return classes, training, validation


def class_names(
    folder: str,
    expected: str,
    what: str,
    root: str | None = None,
    notes: list[str] | None = None,
) -> list[str]:
    """The sorted names of the folders in `folder`, without hidden ones and what programs leave.

    Raises RfbenchError naming `expected` if there are none, and for a link to nothing. notes: gets
    a line on what was left out.
    """
    names: list[str] = []
    beside: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (names if walk.is_folder(entry) else beside).append(entry.name)
    except OSError:
        names = []
    classes = sorted(name for name in names if not walk.is_junk(name))
    if not classes:
        raise missing(what, root or folder, expected)
    beside = [name for name in beside if not walk.is_junk(name)]
    for name in beside:
        walk.refuse_dangling(os.path.join(folder, name))
    if notes is not None:
        junk = [name for name in names if walk.is_junk(name)]
        images = [name for name in beside if name.lower().endswith(walk.EXTENSIONS)]
        notes += described(folder, walk.Files(junk=junk))
        notes += described(folder, walk.Files(other=images), "images that are in no class's folder")
    return classes


def missing(what: str, root: str, expected: str) -> RfbenchError:
    """The error for a data set that is not at `root`."""
    names = sorted(path.name for path in Path(root).glob("*/") if not walk.is_junk(path.name))
    there = f" There are: {some([f'{name}/' for name in names])}." if names else ""
    if what == "ImageFolder" and SPLITS & {name.lower() for name in names}:
        there += " Name others with -o data.options.val=NAME, data.options.train=NAME."
    return RfbenchError(
        f"no {what} at {root}. Expected {expected} there. Set it with -o data.root=PATH.{there}"
    )


def list_classes(folder: str, classes: list[str], notes: list[str] | None = None) -> FileSplit:
    """Every image below `folder`/<class>/, including sub-folders; class i has label i.

    Links are followed, and each real file is listed once; hidden files and folders are left out.
    notes: gets a line on what was left out. Raises RfbenchError for a class without images, and
    for an image of two classes.
    """
    found = [walk.images(os.path.join(folder, name)) for name in classes]
    empty = [name for name, inside in zip(classes, found, strict=True) if not inside.names]
    if empty:
        kinds = " *".join(walk.EXTENSIONS)
        raise RfbenchError(f"{folder}: no image in the class {some(empty)} (looked for *{kinds})")
    labels = np.repeat(np.arange(len(classes)), [len(inside.names) for inside in found])
    files = [name for inside in found for name in inside.names]
    real = [path for inside in found for path in inside.real]
    if len(set(real)) < len(real):
        raise RfbenchError(f"{folder}: {_in_two_classes(real, labels, classes)}")
    left_out = walk.Files()
    for name, inside in zip(classes, found, strict=True):
        left_out.add(inside, name)
    if notes is not None:
        notes += described(folder, left_out)
    folders = [os.path.join(folder, name) for name in classes]
    return FileSplit(folders, labels, files, labels, any(inside.linked for inside in found))


def _in_two_classes(real: list[str], labels: np.ndarray, classes: list[str]) -> str:
    first: dict[str, int] = {}
    for path, label in zip(real, labels.tolist(), strict=True):
        if path in first:
            one, other = classes[first[path]], classes[label]
            return f"the classes {one} and {other} both have {path}, links followed"
        first[path] = label
    return "no file is in two classes"


OTHER = f"files that are no images by their names (these are: {' '.join(walk.EXTENSIONS)})"


def described(folder: str, files: walk.Files, other: str = OTHER) -> list[str]:
    """A line each for what was left out of a folder. other: what `files.other` are."""
    kinds = {
        "hidden or left behind by a program": files.junk,
        "links to what is there": files.again,
        other: files.other,
    }
    return [
        f"{folder}: left out {len(names)} {what}: {some(sorted(names), 3)}"
        for what, names in kinds.items()
        if names
    ]


def check_apart(train: FileSplit, val: FileSplit) -> list[str]:
    """Raise RfbenchError if images are trained on and evaluated, links followed.

    If they are all the same images, as to see whether a network learns at all, this is a note.
    """
    # without links, and in folders of their own, they are: no call for each of a million files
    apart = {*train.real_folders()}.isdisjoint(val.real_folders())
    if apart and not (train.linked or val.linked):
        return []
    ours, theirs = train.real_names(), val.real_names()
    if not (both := sorted(ours & theirs)):
        return []
    text = f"{len(both)} images are trained on and evaluated, links followed: {some(both, 3)}"
    if ours != theirs:
        raise RfbenchError(f"{text}. Remove them from one.")
    return [f"{text}: the accuracy is that on training images"]


def _hold_out(split: FileSplit, share: float) -> tuple[FileSplit, FileSplit]:
    """Two disjoint parts of a split, the second with `share` of each class, by a fixed draw."""
    # a random number per image; of each class the images with the smallest are held out
    words = np.random.Philox(key=0).random_raw(len(split))
    held = np.zeros(len(split), dtype=bool)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        count = max(1, round(share * len(members)))
        if count == len(members):
            raise RfbenchError(
                f"{os.path.dirname(split.name(members[0]))}: {count} of its {count} images "
                f"would be held out by val_share = {share}; none is left to train on"
            )
        held[members[np.argsort(words[members], kind="stable")[:count]]] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))
