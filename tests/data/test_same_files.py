"""Validation images that are copies of training images: found by their bytes, told once."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfbench.classify import images as classify
from rfbench.data import same_files
from rfbench.runs import processes
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.seg import SegConfig
from rfbench.segment import images as segment


def test_copies_are_found_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one size and one end they may still be others; hard links are copies, links are not."""
    folders = [tmp_path / "train", tmp_path / "val"]
    contents = ({"a": b"A", "b": b"B", "c": b"C", "d": b"D"}, {"b": b"E", "a": b"C", "y": b"F"})
    for folder, content in zip(folders, contents, strict=True):
        folder.mkdir()
        (folder / "empty.png").write_bytes(b"")
        for name, first in content.items():
            (folder / f"{name}.png").write_bytes(first + bytes(2 * same_files.TAIL))
    train, val = folders
    (val / "d.png").hardlink_to(train / "d.png")
    (val / "link.png").symlink_to(train / "a.png")
    (train / "c2.png").write_bytes((train / "c.png").read_bytes())
    ours, theirs = ([str(path) for path in folder.iterdir()] for folder in folders)
    same_name = f"{val}/d.png (as {train}/d.png)"
    other_name = f"{val}/a.png (as {train}/c.png)"
    (line,) = same_files.told(ours, theirs)
    assert line == (
        "2 validation images are copies of training images, byte for byte: "
        f"{other_name}, {same_name}. The figures are better than on new images."
    )
    assert same_files.told([*ours, str(tmp_path / "gone")], theirs[:0]) == []
    with monkeypatch.context() as few:
        few.setattr(same_files, "MOST", 1)  # all end as files of training do
        (line,) = same_files.told(ours, theirs)
        assert "(of 5 that end alike, 1 were looked into)" in line and other_name in line
    monkeypatch.setattr(same_files, "MANY", 3)  # of many, those of one name
    (line,) = same_files.told(ours, theirs)
    assert "1 validation image is a copy" in line and same_name in line
    assert "(of 6 training images, those of one name were compared)" in line


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_folders_of_classes_and_of_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of classification, also split by a share, and of segmentation; not if none is."""

    def told(config: ClsConfig | SegConfig, eval_only: bool = False) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO), processes.started("cpu") as group:
            kind = classify.Images if isinstance(config, ClsConfig) else segment.Images
            kind(config, group, eval_only).close()  # type: ignore[arg-type]
        return [text for text in caplog.messages if "byte for byte" in text]

    for number, name in enumerate(("train/a/1", "train/b/2", "val/a/3", "val/b/4")):
        image(tmp_path / f"cls/{name}.png", number)
    whole = ClsConfig(data={"name": "folder", "root": str(tmp_path / "cls"), "workers": 0})
    assert told(whole) == []
    image(tmp_path / "cls/val/b/5.png", 1)
    (note,) = told(whole)
    assert "1 validation image is a copy" in note and "val/b/5.png" in note
    assert told(whole, eval_only=True) == []
    for number in range(8):
        image(tmp_path / f"share/a/{number}.png", 0)
        image(tmp_path / f"share/b/{number}.png", 10 + number)
    held = {"name": "folder", "root": str(tmp_path / "share"), "val_share": 0.25, "workers": 0}
    (note,) = told(ClsConfig(data=held))
    assert "2 validation images are copies" in note
    for number, part in enumerate(("train", "val")):
        image(tmp_path / f"seg/images/{part}/{number}.png", 0)
        (tmp_path / f"seg/masks/{part}").mkdir(parents=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / f"seg/masks/{part}/{number}.png")
    (tmp_path / "seg/classes.txt").write_text("a\nb\n")
    masks = {"name": "folder", "root": str(tmp_path / "seg"), "workers": 0}
    (note,) = told(SegConfig(head="fpn", data=masks, optim={"name": "sgd", "lr": 0.1}))
    assert "images/val/1.png (as" in note


def test_detection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("detectron2")
    from rfbench.detect import sets
    from rfbench.schemas.det import DetData
    from tests.data.test_coco import content, save

    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    given = {}
    for part in ("train", "val"):
        annotations, images = save(tmp_path / part, content())
        given |= {f"{part}_annotations": str(annotations), f"{part}_images": str(images)}
    data = DetData(name="coco", **given)
    with caplog.at_level(logging.INFO), processes.started("cpu") as group:
        sets.prepare(data, group)
    (line,) = [text for text in caplog.messages if "copies of training images" in text]
    assert str(tmp_path / "val") in line
