"""Folders as people have them: links, loops, what programs leave behind, pipes."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfbench.data import walk
from rfbench.data.sources import load
from rfbench.errors import RfbenchError


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train and val with the classes a and b, of four and two images each."""
    for part, count in (("train", 4), ("val", 2)):
        for name in "ab":
            for i in range(count):
                write(tmp_path / "data" / part / name / f"{part}{i}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("place", ["train/self", "val/self", "train/a/self"])
def test_a_link_to_itself_is_named(place: str, root: Path) -> None:
    """The whole folder would seem to have no classes."""
    (root / place).symlink_to("self")
    with pytest.raises(RfbenchError, match=f"{place} is a link to self, which is not there"):
        load("folder", str(root))


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_loop_multiplies_nothing(target: str, root: Path) -> None:
    (root / "train" / "a" / "loop").symlink_to(target)
    if target in ("..", "../.."):  # there are images of b below it
        with pytest.raises(RfbenchError, match="the classes a and b both have .*links followed"):
            load("folder", str(root))
        return
    found = load("folder", str(root))
    assert (len(found.train), len(found.val)) == (8, 4)
    assert any("1 links to what is there: a/loop" in note for note in found.notes)


def test_what_has_not_the_name_of_an_image_is_told(root: Path) -> None:
    """ImageFolder passes over it in silence, and a class is smaller than it looks."""
    for name in ("x.HEIC", "x.jpe", "x.svg", "n01440764_10026"):
        (root / "train" / "a" / name).write_bytes(b"x")
    found = load("folder", str(root))
    (note,) = [note for note in found.notes if "no images by their names" in note]
    assert "left out 4 files" in note and ": a/n01440764_10026, a/x.HEIC, a/x.jpe" in note
    assert len(found.train) == 8


@pytest.mark.parametrize("part", ["train", "val"])
def test_images_beside_the_classes_are_told(part: str, root: Path) -> None:
    write(root / part / "loose.png")
    (root / part / "labels.txt").write_bytes(b"x")
    found = load("folder", str(root))
    assert [*found.notes] == [
        f"{root / part}: left out 1 images that are in no class's folder: loose.png"
    ]


@pytest.mark.parametrize("place", ["train/c", "val/c", "train/a/more"])
def test_a_folder_on_a_disk_that_is_not_there_is_named(place: str, root: Path) -> None:
    """Its class, or a part of one, would be missing without a word."""
    (root / place).symlink_to("/nowhere/c")
    with pytest.raises(RfbenchError, match=f"{place} is a link to /nowhere/c, which is not there"):
        load("folder", str(root))


def test_a_loop_leaks_nothing_into_training(root: Path) -> None:
    (root / "train" / "a" / "again").symlink_to(".")
    (root / "train" / "b" / "x.png").symlink_to("train0.png")
    found = load("folder", str(root / "train"), val_share=0.25)
    real = [{os.path.realpath(s.name(i)) for i in range(len(s))} for s in (found.train, found.val)]
    assert [len(found.train), len(found.val)] == [len(one) for one in real] == [6, 2]
    assert real[0].isdisjoint(real[1])


def test_links_are_followed(root: Path, tmp_path: Path) -> None:
    """To a file, and to a folder, elsewhere; and the folder of a class may be one."""
    write(tmp_path / "pool" / "1.png")
    write(tmp_path / "pool" / "deep" / "2.png")
    (root / "train" / "a" / "0.png").symlink_to(tmp_path / "pool" / "1.png")
    (root / "train" / "a" / "more").symlink_to(tmp_path / "pool" / "deep")
    os.rename(root / "val" / "b", tmp_path / "b")
    (root / "val" / "b").symlink_to(tmp_path / "b")
    found = load("folder", str(root))
    assert (len(found.train), len(found.val), found.notes) == (10, 4, ())


@pytest.mark.parametrize("link", ["file", "folder", "class"])
def test_images_of_both_parts_are_refused(link: str, root: Path) -> None:
    if link == "file":
        (root / "train" / "a" / "x.png").symlink_to("../../val/a/val0.png")
    elif link == "folder":
        (root / "train" / "a" / "more").symlink_to("../../val/a")
    else:
        os.rename(root / "train" / "b", root / "unused")
        (root / "train" / "b").symlink_to("../val/b")
    with pytest.raises(RfbenchError, match="trained on and evaluated, links followed: .*val0.png"):
        load("folder", str(root))


def test_training_images_may_be_evaluated_on_purpose(root: Path) -> None:
    found = load("folder", str(root), val="train")
    assert len(found.train) == len(found.val) == 8
    assert "the accuracy is that on training images" in found.notes[-1]


def test_an_image_in_two_classes_is_refused(root: Path) -> None:
    (root / "train" / "b" / "x.png").symlink_to("../a/train1.png")
    with pytest.raises(RfbenchError, match="the classes a and b both have .*/a/train1.png"):
        load("folder", str(root))


def test_what_programs_leave_is_no_class_and_no_image(root: Path) -> None:
    for part in ("train", "val"):
        write(root / part / ".ipynb_checkpoints" / "x.png")
        write(root / part / "@eaDir" / "x.png")
        write(root / part / "a" / ".ipynb_checkpoints" / "train0-checkpoint.png")
        write(root / part / "a" / "@eaDir" / "x.png")
        (root / part / "a" / "._train0.png").write_bytes(b"\0\5\x16\7")
        (root / part / "a" / "Thumbs.db").write_bytes(b"x")
        (root / part / "a" / ".DS_Store").write_bytes(b"x")
    found = load("folder", str(root))
    assert found.classes == ["a", "b"] and (len(found.train), len(found.val)) == (8, 4)
    folder = root / "train"
    assert [note for note in found.notes if note.startswith(f"{folder}: ")] == [
        f"{folder}: left out 2 hidden or left behind by a program: .ipynb_checkpoints, @eaDir",
        f"{folder}: left out 3 hidden or left behind by a program: "
        "a/._train0.png, a/.ipynb_checkpoints, a/@eaDir",
    ]


def test_flat_validation_images_beside_a_hidden_folder(root: Path) -> None:
    """A hidden folder does not make them look sorted into classes."""
    for path in list((root / "val").glob("*/*.png")):
        path.unlink()
    for name in "ab":
        (root / "val" / name).rmdir()
        write(root / "val" / f"{name}.png")
    write(root / "val" / ".ipynb_checkpoints" / "a.png")
    rows = "ImageId,PredictionString\na,a 1 2 3 4\nb,b 1 2 3 4\n"
    (root / "LOC_val_solution.csv").write_text(rows)
    found = load("imagenet", str(root))
    assert found.classes == ["a", "b"] and found.val.labels.tolist() == [0, 1]
    assert any("hidden" in note for note in found.notes)


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_named_at_once(linked: bool, root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png" if linked else root / "train" / "a" / "pipe.png")
    if linked:
        (root / "train" / "a" / "pipe.png").symlink_to(tmp_path / "pipe.png")
    with pytest.raises(RfbenchError, match=r"a/pipe.png is not a regular file"):
        load("folder", str(root))


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(root: Path) -> None:
    (root / "train" / "a" / "x.png").symlink_to("nowhere.png")
    found = load("folder", str(root))
    assert len(found.train) == 9
    with pytest.raises(RfbenchError, match="x.png: No such file"):
        found.train.read(4)


def test_a_folder_of_many_links_is_listed_once(tmp_path: Path) -> None:
    """Ten links to the parent in each of three folders: no path is walked twice."""
    for name in "abc":
        write(tmp_path / name / "1.png")
        for i in range(10):
            (tmp_path / name / f"up{i}").symlink_to("..")
    found = walk.images(str(tmp_path))
    assert len(found.names) == len(set(found.real)) == 3
    assert len(found.again) == 30


def test_the_digits_cache_is_checked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = load("digits", train_scenes=6, val_scenes=3)
    (path,) = (tmp_path / "rfbench").glob("*train*.npz")
    with np.load(path) as arrays:
        held = dict(arrays)
    changed = [
        {**held, "labels": held["labels"][::-1]},
        {**held, "labels": held["labels"] + 100},
        {**held, "labels": held["labels"][:5]},
        {**held, "images": 255 - held["images"]},
        {**held, "images": held["images"].astype(np.float32)},
        {key: held[key] for key in ("images", "labels")},  # from an older version
    ]
    for one in changed:
        np.savez(path, **one)
        again = load("digits", train_scenes=6, val_scenes=3)
        assert again.train.labels.tolist() == whole.train.labels.tolist()
        assert all(bool((again.train.read(i) == whole.train.read(i)).all()) for i in range(6))
        with np.load(path) as arrays:
            assert np.array_equal(arrays["labels"], held["labels"])  # written anew
