"""Any ImageFolder: one folder a class. Classes, extensions and order are torchvision's."""

import os

import numpy as np

from rfbench.data.dataset import Dataset, FileSplit, some
from rfbench.errors import RfbenchError, UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


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
    if val_share is not None:
        if not 0 < val_share < 1:
            raise UsageError(f"val_share must lie between 0 and 1 (it is {val_share})")
        classes = class_names(root, f"{root}/<class>/*.jpg", "folder of classes")
        if {train, val} <= set(classes):
            raise UsageError(
                f"{root} is already split into {train}/ and {val}/: leave data.val_share out, "
                f"or set data.root to {os.path.join(root, train)} to split that."
            )
        return Dataset("folder", classes, *_hold_out(list_classes(root, classes), val_share))
    expected = f"{train}/<class>/*.jpg and {val}/<class>/*.jpg"
    return Dataset("folder", *train_and_val(root, "ImageFolder", expected, train, val, eval_only))


def train_and_val(
    root: str, what: str, expected: str, train: str, val: str, eval_only: bool
) -> tuple[list[str], FileSplit, FileSplit]:
    """(classes, training split, validation split) of two folders with the same classes."""
    val_folder = os.path.join(root, val)
    val_classes = class_names(val_folder, expected, what, root)
    if eval_only:
        return val_classes, FileSplit([], [], [], []), list_classes(val_folder, val_classes)
    train_folder = os.path.join(root, train)
    classes = class_names(train_folder, expected, what, root)
    only_train = sorted(set(classes) - set(val_classes))
    only_val = sorted(set(val_classes) - set(classes))
    if only_train or only_val:
        lacks = [f"{val} lacks {some(only_train)}"] if only_train else []
        lacks += [f"{train} lacks {some(only_val)}"] if only_val else []
        raise RfbenchError(f"{root}: {train} and {val} differ in classes: {'; '.join(lacks)}")
    return classes, list_classes(train_folder, classes), list_classes(val_folder, classes)


def class_names(folder: str, expected: str, what: str, root: str | None = None) -> list[str]:
    """The sorted names of the folders in `folder`; an error naming `expected` if there are none."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        names = []
    if not names:
        raise missing(what, root or folder, expected)
    return names


def missing(what: str, root: str, expected: str) -> RfbenchError:
    """The error for a data set that is not at `root`."""
    return RfbenchError(
        f"no {what} at {root}. Expected {expected} there. Set it with -o data.root=PATH."
    )


def list_classes(folder: str, classes: list[str]) -> FileSplit:
    """Every image below `folder`/<class>/, including sub-folders; class i has label i."""
    files: list[str] = []
    counts = []
    for name in classes:
        inside = list_files(os.path.join(folder, name))
        counts.append(len(inside))
        files += inside
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise RfbenchError(
            f"{folder}: no image in the class {some(empty)} (looked for *{' *'.join(EXTENSIONS)})"
        )
    labels = np.repeat(np.arange(len(classes)), counts)
    return FileSplit([os.path.join(folder, name) for name in classes], labels, files, labels)


def list_files(folder: str) -> list[str]:
    """The images below `folder`, relative to it, in torchvision's order."""
    files = []
    for path, _, names in sorted(os.walk(folder, followlinks=True, onerror=_refuse)):
        below = os.path.relpath(path, folder) if path != folder else ""
        files += [
            os.path.join(below, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS)
        ]
    return files


def _refuse(error: OSError) -> None:
    raise RfbenchError(f"{error.filename}: cannot be listed: {error.strerror}")


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
