"""Data sets as they lie on people's disks, and the one line that says what is wrong with them."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from rfbench.data.dataset import Split
from rfbench.data.sources import SOURCES, load
from rfbench.errors import RfbenchError, UsageError

WNIDS = ["n01440764", "n01443537", "n02084071"]


def write(path: Path, value: int = 0, kind: str = "JPEG") -> None:
    """An image of one colour at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (value, value, value)).save(path, kind)


def names(split: Split) -> list[str]:
    return [split.name(i) for i in range(len(split))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """ImageNet with three classes, three training images and one for validation in each."""
    for c, wnid in enumerate(WNIDS):
        for i in range(3):
            write(tmp_path / "train" / wnid / f"{wnid}_{i}.JPEG", 10 * c + i)
        write(tmp_path / "val" / wnid / f"ILSVRC2012_val_{c + 1:08d}.JPEG", 100 + c)
    return tmp_path


@pytest.fixture
def flat(tree: Path) -> Path:
    """The same with a flat validation folder; images 1, 2, 3 are of classes 0, 1, 2."""
    for path in list((tree / "val").glob("*/*.JPEG")):
        path.rename(tree / "val" / path.name)
        path.parent.rmdir()
    return tree


# the development kit's numbers 1, 2, 3 are not in the order of WNIDS
KIT = [WNIDS[2], WNIDS[0], WNIDS[1]]


def write_devkit(folder: Path, numbers: list[int]) -> None:
    """meta.mat with the three classes and one inner node, and the ground truth `numbers`."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", object), ("words", object), ("num_children", "f8")]
    rows = [(i, wnid, "a word", 0.0) for i, wnid in enumerate(KIT, 1)]
    synsets = np.array([*rows, (4, "n00000001", "inner node", 2.0)], dtype=kinds)
    savemat(folder / "meta.mat", {"synsets": synsets})
    lines = "".join(f"{number}\n" for number in numbers)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


def write_kaggle(path: Path, classes: list[str]) -> None:
    rows = [f"ILSVRC2012_val_{k:08d},{c} 1 2 3 4 {c} 5 6 7 8" for k, c in enumerate(classes, 1)]
    path.write_text("ImageId,PredictionString\n" + "\n".join(reversed(rows)) + "\n")


def test_imagenet(tree: Path) -> None:
    found = load("imagenet", str(tree))
    assert found.classes == WNIDS
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.val.labels.tolist() == [0, 1, 2]
    assert found.train.labels.dtype == np.int64
    image = found.train.read(4)
    assert image.shape == (9, 12, 3) and image.dtype == torch.uint8
    assert (image == 11).all()
    assert found.train.name(4) == str(tree / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG")


@pytest.mark.parametrize("kit", [".", "val", "ILSVRC2012_devkit_t12/data"])
def test_flat_validation_with_the_development_kit(flat: Path, kit: str) -> None:
    write_devkit(flat / kit, [KIT.index(wnid) + 1 for wnid in WNIDS])
    found = load("imagenet", str(flat))
    assert found.classes == WNIDS
    assert found.val.labels.tolist() == [0, 1, 2]
    assert [int(found.val.read(i)[0, 0, 0]) for i in range(3)] == [100, 101, 102]


def test_flat_validation_with_kaggles_list(flat: Path) -> None:
    write_kaggle(flat / "LOC_val_solution.csv", WNIDS)
    assert load("imagenet", str(flat)).val.labels.tolist() == [0, 1, 2]


def test_kaggles_archive_as_it_unpacks(
    flat: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("kaggle")
    (root / "ILSVRC" / "Data").mkdir(parents=True)
    (root / "ILSVRC" / "Data" / "CLS-LOC").symlink_to(flat)
    write_kaggle(root / "LOC_val_solution.csv", WNIDS)
    found = load("imagenet", str(root))
    assert len(found.train) == 9
    assert found.val.labels.tolist() == [0, 1, 2]


def test_validation_alone(tree: Path) -> None:
    (tree / "train").rename(tree / "elsewhere")
    found = load("imagenet", str(tree), eval_only=True)
    assert (len(found.train), len(found.val)) == (0, 3)
    with pytest.raises(RfbenchError, match="no ImageNet at"):
        load("imagenet", str(tree))


def test_flat_validation_alone(flat: Path) -> None:
    write_kaggle(flat / "LOC_val_solution.csv", WNIDS)
    (flat / "train").rename(flat / "elsewhere")
    assert load("imagenet", str(flat), eval_only=True).classes == WNIDS


def test_no_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RfbenchError) as caught:
        load("imagenet")
    assert str(caught.value) == (
        "no ImageNet at datasets/imagenet. Expected train/<class>/*.JPEG and "
        "val/<class>/*.JPEG there. Set it with -o data.root=PATH."
    )


def test_flat_validation_without_a_list(flat: Path) -> None:
    with pytest.raises(RfbenchError, match="no class folders.*meta.mat, or Kaggle's"):
        load("imagenet", str(flat))


def test_lists_that_do_not_fit(flat: Path) -> None:
    write_kaggle(flat / "LOC_val_solution.csv", WNIDS[:2])
    with pytest.raises(RfbenchError, match="has no class for ILSVRC2012_val_00000003"):
        load("imagenet", str(flat))
    write_kaggle(flat / "LOC_val_solution.csv", [*WNIDS[:2], "n09999999"])
    with pytest.raises(RfbenchError, match="train lacks n09999999"):
        load("imagenet", str(flat))
    write_kaggle(flat / "LOC_val_solution.csv", [WNIDS[0], *WNIDS[:2]])
    with pytest.raises(RfbenchError, match="val lacks n02084071"):
        load("imagenet", str(flat))
    (flat / "LOC_val_solution.csv").write_text("a,b\nc\n")
    with pytest.raises(RfbenchError, match="not Kaggle's list"):
        load("imagenet", str(flat))


def test_a_damaged_development_kit(flat: Path) -> None:
    write_devkit(flat, [1, 2, 9])
    with pytest.raises(RfbenchError, match="not the development kit's files"):
        load("imagenet", str(flat))
    (flat / "meta.mat").write_bytes(b"no matlab")
    with pytest.raises(RfbenchError, match="not the development kit's files"):
        load("imagenet", str(flat))


def test_folder_is_torchvisions_image_folder(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for path in ("b/2.png", "b/10.PNG", "b/deep/er/1.jpg", "B/x.webp", "a b/é.jpeg", "_/1.bmp"):
            kind = {"g": "PNG", "G": "PNG", "p": "BMP"}.get(path[-1], "JPEG")
            write(tmp_path / part / path, kind=kind)
        (tmp_path / part / "b" / "notes.txt").write_text("no picture")
        (tmp_path / part / "list.csv").write_text("no class")
        write(tmp_path / "elsewhere" / part / "1.jpg")
        (tmp_path / part / "link").symlink_to(tmp_path / "elsewhere" / part)
        (tmp_path / part / "b" / "11.png").symlink_to(tmp_path / part / "b" / "notes.txt")
    found = load("folder", str(tmp_path))
    theirs = datasets.ImageFolder(str(tmp_path / "train"))
    assert found.classes == theirs.classes
    assert list(zip(names(found.train), found.train.labels, strict=True)) == theirs.samples


def test_folder_with_other_names(tree: Path) -> None:
    (tree / "val").rename(tree / "test")
    assert len(load("folder", str(tree), val="test").val) == 3
    with pytest.raises(RfbenchError, match=r"no ImageFolder at .*val/<class>/.*") as error:
        load("folder", str(tree))
    assert "There are: test/, train/. Name others with -o data.options.val=NAME" in str(error.value)


def test_parts_of_a_data_set_are_not_taken_for_classes(tree: Path) -> None:
    """As `train` against `test`, a network would be trained to tell the parts apart."""
    (tree / "val").rename(tree / "test")
    with pytest.raises(UsageError, match="has test/, train/: parts of a data set, not its classes"):
        load("folder", str(tree), val_share=0.5)


def test_folder_that_is_divided(tmp_path: Path) -> None:
    for c, count in {"a": 20, "b": 30, "c": 4}.items():
        for i in range(count):
            write(tmp_path / c / f"{i}.jpg")
    found = load("folder", str(tmp_path), val_share=0.1)
    assert np.bincount(found.train.labels).tolist() == [18, 27, 3]
    assert np.bincount(found.val.labels).tolist() == [2, 3, 1]
    assert len({*names(found.train), *names(found.val)}) == 54
    assert names(found.val) == names(load("folder", str(tmp_path), val_share=0.1).val)
    found.val.read(3)
    with pytest.raises(RfbenchError, match="none is left to train on"):
        load("folder", str(tmp_path), val_share=0.99)
    with pytest.raises(UsageError, match="between 0 and 1"):
        load("folder", str(tmp_path), val_share=1.5)
    for part in ("train", "val"):
        write(tmp_path / part / "a" / "1.jpg")
    with pytest.raises(UsageError, match="is already split into train/ and val/"):
        load("folder", str(tmp_path), val_share=0.1)
    with pytest.raises(RfbenchError, match="no folder of classes at"):
        load("folder", str(tmp_path / "a"), val_share=0.5)


def test_classes_that_differ_are_named(tree: Path) -> None:
    write(tree / "val" / "n05" / "1.JPEG")
    (tree / "val" / WNIDS[0]).rename(tree / "val" / "n06")
    for name in ("imagenet", "folder"):
        with pytest.raises(RfbenchError) as caught:
            load(name, str(tree))
        assert str(caught.value) == (
            f"{tree}: train and val differ in classes: val lacks {WNIDS[0]}; train lacks n05, n06"
        )


def test_empty_classes_are_named(tree: Path) -> None:
    for i in range(7):
        for part in ("train", "val"):
            (tree / part / f"n1{i}").mkdir()
    with pytest.raises(RfbenchError, match=r"val|train: no image in the class n10, .* and 2 more"):
        load("imagenet", str(tree))


def test_unknown_names_and_options(tree: Path) -> None:
    with pytest.raises(UsageError, match="unknown data set 'cifar'. Did you mean: cifar1"):
        load("cifar")
    with pytest.raises(UsageError, match="There are: imagenet, folder"):
        load("mnist")
    with pytest.raises(UsageError, match="'imagenet' has no option 'val_share'"):
        load("imagenet", str(tree), val_share=0.1)
    assert load("imagenet", str(tree), val_share=None).classes == WNIDS


def write_cifar(root: Path, kind: type[datasets.CIFAR10], classes: int) -> dict[str, str]:
    """Files of CIFAR's form with few images: MD5s by name."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    key = "labels" if classes == 10 else "fine_labels"
    sums = {}
    for name in [entry[0] for entry in kind.train_list + kind.test_list]:
        data = np.full((6, 3072), len(name), dtype=np.uint8)
        data[:, :1024] = 200  # red first: CIFAR stores channel by channel
        content = {"data": data, key: [i % classes for i in range(6)]}
        sums[name] = _dump(folder / name, content)
    labels = [f"class{i}" for i in range(classes)]
    sums["meta"] = _dump(folder / kind.meta["filename"], {kind.meta["key"]: labels})
    return sums


def _dump(path: Path, content: object) -> str:
    file = io.BytesIO()
    pickle.dump(content, file)
    path.write_bytes(file.getvalue())
    return hashlib.md5(file.getvalue()).hexdigest()


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [("cifar10", datasets.CIFAR10, 10), ("cifar100", datasets.CIFAR100, 100)],
)
def test_cifar(
    name: str,
    kind: type[datasets.CIFAR10],
    classes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RfbenchError, match=rf"no CIFAR-{classes} at .*{kind.base_folder}/"):
        load(name, str(tmp_path))
    sums = write_cifar(tmp_path, kind, classes)
    with pytest.raises(RfbenchError, match="missing or damaged"):
        load(name, str(tmp_path))  # these are not the real files
    for part in ("train_list", "test_list"):
        known = [[entry[0], sums[entry[0]]] for entry in getattr(kind, part)]
        monkeypatch.setattr(kind, part, known)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["meta"]})
    found = load(name, str(tmp_path))
    assert len(found.classes) == classes
    assert len(found.train) == 6 * len(kind.train_list)
    assert found.val.labels.tolist() == [0, 1, 2, 3, 4, 5]
    image = found.train.read(0)
    assert image.shape == (32, 32, 3) and image.is_contiguous()
    assert (image[..., 0] == 200).all() and (image[..., 1] != 200).all()
    assert (found.image_size, found.augment, found.flip) == (32, "pad_crop", True)
    assert len(load(name, str(tmp_path), eval_only=True).train) == 0


def test_every_source_is_callable_the_same_way() -> None:
    assert set(SOURCES) == {"imagenet", "folder", "cifar10", "cifar100", "digits"}
