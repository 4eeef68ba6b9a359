"""ImageNet (ILSVRC 2012) in its usual layouts.

train/<wnid>/*.JPEG, and the 50,000 validation images either in val/<wnid>/, or flat in val/ with a
list of their classes, from the development kit or Kaggle. A class's index is the rank of its
WordNet id, as in every framework; the development kit numbers classes differently.
"""

import csv
import os

from rfbench import files
from rfbench.data import text, walk
from rfbench.data.dataset import Dataset, FileSplit, some
from rfbench.data.folder import (
    check_apart,
    class_names,
    described,
    list_classes,
    missing,
    train_and_val,
)
from rfbench.errors import RfbenchError, one_line

EXPECTED = "train/<class>/*.JPEG and val/<class>/*.JPEG"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
KAGGLE = "LOC_val_solution.csv"


def imagenet(root: str, eval_only: bool = False) -> Dataset:
    """ImageNet below `root`; with `eval_only` the training folder is neither needed nor read."""
    data = os.path.join(root, "ILSVRC", "Data", "CLS-LOC")  # as Kaggle's archive unpacks
    data = data if os.path.isdir(data) else root
    notes: list[str] = []
    if not _is_flat(os.path.join(data, "val")):
        parts = train_and_val(data, "ImageNet", EXPECTED, "train", "val", eval_only, notes)
        return Dataset("imagenet", *parts, notes=tuple(notes))
    truth, source = _ground_truth(data, [root, data])
    train = FileSplit([], [], [], [])
    classes = sorted(set(truth.values()))
    if not eval_only:
        classes = class_names(os.path.join(data, "train"), EXPECTED, "ImageNet", data, notes)
        train = list_classes(os.path.join(data, "train"), classes, notes)
    val = _flat_split(data, classes, truth, source, notes)
    notes += check_apart(train, val)
    return Dataset("imagenet", classes, train, val, notes=tuple(notes))


def _is_flat(folder: str) -> bool:
    """Whether `folder` holds images and no folders."""
    try:
        with os.scandir(folder) as entries:
            kinds = [entry.is_dir() for entry in entries if not walk.is_junk(entry.name)]
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise missing("ImageNet", os.path.dirname(folder), EXPECTED) from None
        raise RfbenchError(f"{folder}: cannot be listed: {error.strerror}") from None
    return bool(kinds) and not any(kinds)


def _flat_split(
    root: str, classes: list[str], truth: dict[str, str], source: str, notes: list[str]
) -> FileSplit:
    """The split of val/*.JPEG; `truth` maps an image's stem to its wnid and comes from `source`."""
    folder = os.path.join(root, "val")
    found = walk.images(folder)
    notes += described(folder, found)
    files = found.names
    rank = {wnid: i for i, wnid in enumerate(classes)}
    stems = [os.path.splitext(os.path.basename(file))[0] for file in files]
    if unknown := [stem for stem in stems if stem not in truth]:
        raise RfbenchError(f"{source}: has no class for {some(unknown)} of {folder}")
    if foreign := sorted({truth[stem] for stem in stems} - set(classes)):
        raise RfbenchError(f"{root}: train and val differ in classes: train lacks {some(foreign)}")
    if absent := sorted(set(classes) - {truth[stem] for stem in stems}):
        raise RfbenchError(f"{root}: train and val differ in classes: val lacks {some(absent)}")
    labels = [rank[truth[stem]] for stem in stems]
    return FileSplit([folder], [0] * len(files), files, labels, found.linked)


def _ground_truth(data: str, roots: list[str]) -> tuple[dict[str, str], str]:
    """(stem of a validation image -> wnid, the file that says so)."""
    folders = [os.path.join(data, "val")]
    for root in roots:
        kits = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data")
        folders += [root, *(os.path.join(root, kit) for kit in kits)]
    for folder in folders:
        truth, meta = os.path.join(folder, TRUTH), os.path.join(folder, "meta.mat")
        if os.path.isfile(truth) and os.path.isfile(meta):
            return _devkit(truth, meta), truth
        if os.path.isfile(kaggle := os.path.join(folder, KAGGLE)):
            return _kaggle(kaggle), kaggle
    raise RfbenchError(
        f"{data}/val has no class folders, and the list of its classes is missing. Put the "
        f"development kit's {TRUTH} and meta.mat, or Kaggle's {KAGGLE}, into {roots[0]}."
    )


def _kaggle(path: str) -> dict[str, str]:
    """Rows "ILSVRC2012_val_00000001,n01751748 111 108 194 258 ...": the first word is the class."""
    try:
        lines = text.of(files.read_bytes(path), path).splitlines()
        rows = [row for row in csv.reader(lines) if row][1:]
        return {stem: prediction.split()[0] for stem, prediction in rows}
    except (OSError, ValueError, IndexError) as error:
        raise RfbenchError(f"{path}: not Kaggle's list of validation classes: {error}") from None


def _devkit(truth: str, meta: str) -> dict[str, str]:
    """Line k of `truth` is the kit's number for image k's class; `meta` maps numbers to wnids."""
    from scipy.io import loadmat  # here: slow to import, and rarely needed

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        # inner nodes of the WordNet tree follow the 1000 classes, and have children
        wnids = {
            int(number): str(wnid)
            for number, wnid, children in zip(
                synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True
            )
            if not children
        }
        with open(truth, encoding="ascii") as file:
            numbers = [int(line) for line in file.read().split()]
        names = {f"ILSVRC2012_val_{k:08d}": wnids[number] for k, number in enumerate(numbers, 1)}
    except Exception as error:  # scipy raises many kinds of errors on damaged files
        why = one_line(error)
        raise RfbenchError(f"{truth}, {meta}: not the development kit's files: {why}") from None
    return names
