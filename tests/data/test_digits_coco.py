"""Digit scenes as a COCO data set: exact masks, whole folders, the same bytes for the same seed."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfbench.data import coco, decode, digits_coco
from rfbench.data.digits import load_digits
from rfbench.data.digits_coco import CATEGORY_IDS, PARTS, run_lengths, scenes, segmentation, write
from rfbench.errors import RfbenchError, UsageError

SMALL: dict[str, Any] = {"train": 12, "val": 8, "size": 96, "scale": (1.3, 3.0)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set, not to be changed."""
    path = tmp_path_factory.mktemp("digits") / "set"
    write(path, **SMALL)
    return path


def read(root: Path, part: str) -> dict[str, Any]:
    return json.loads((root / f"annotations/instances_{part}2017.json").read_text())


def files(root: Path) -> dict[str, bytes]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_it_is_a_faultless_coco_set(root: Path) -> None:
    for part, count in (("train", 12), ("val", 8)):
        found = coco.check(root / f"annotations/instances_{part}2017.json", root / f"{part}2017")
        assert found.images == count
        assert found.categories == dict(zip(CATEGORY_IDS, "0123456789", strict=True))
        assert found.polygons and found.rle
        assert not [note for note in found.notes if "'categories' without" not in note]


def test_decoded_masks_are_the_exact_ones(root: Path) -> None:
    masks = pytest.importorskip("pycocotools.coco")
    for part in PARTS:
        content = read(root, part)
        tool = masks.COCO()
        tool.dataset = content
        tool.createIndex()
        drawn = list(scenes(part, content["info"]["settings"]))
        assert len(drawn) == len(content["images"])
        for image, (_, placed) in zip(content["images"], drawn, strict=True):
            annotations = tool.loadAnns(tool.getAnnIds(imgIds=image["id"]))
            for annotation, one in zip(annotations, placed, strict=True):
                mask = tool.annToMask(annotation).astype(bool)
                assert (mask & one.mask).sum() / (mask | one.mask).sum() == 1
                assert annotation["area"] == mask.sum()
                x0, y0, x1, y1 = one.box
                assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
                assert annotation["category_id"] == CATEGORY_IDS[one.label]


def test_the_files_are_the_scenes(root: Path) -> None:
    content = read(root, "val")
    for image, (picture, _) in zip(
        content["images"], scenes("val", content["info"]["settings"]), strict=True
    ):
        read_back = decode.read(str(root / "val2017" / image["file_name"])).numpy()
        assert read_back.shape == (96, 96, 3)
        # JPEG: the noise is coarser, the image the same
        assert np.abs(read_back.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("scale", [(1.3, 4.1)])
def test_digits_are_of_the_size_that_was_asked_for(scale: tuple[float, float]) -> None:
    settings = {"seed": 0, "scenes": {"val": 60}, "size": 128, "objects": [1, 1]}
    settings |= {"scale": list(scale), "distractors": 0, "thicken": 1}
    sides = [
        max(one.box[2] - one.box[0], one.box[3] - one.box[1])
        for _, placed in scenes("val", settings)
        for one in placed
    ]
    assert 26 <= min(sides) < 36 and 80 < max(sides) <= 91


def test_holes_are_written_as_run_lengths() -> None:
    ring = np.zeros((6, 7), dtype=bool)
    ring[1:5, 1:6] = True
    ring[2:4, 2:5] = False
    # down the columns: 7 of 0, 4 of 1, ...
    assert segmentation(ring) == {
        "size": [6, 7],
        "counts": [7, 4, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 4, 7],
    }
    ring[2:4, 2:5] = True
    (polygon,) = segmentation(ring)  # type: ignore[misc]
    assert min(polygon[::2]) == 1 and max(polygon[::2]) == 6
    assert min(polygon[1::2]) == 1 and max(polygon[1::2]) == 5


def test_run_lengths_begin_with_those_of_zero() -> None:
    assert run_lengths(np.array([[1, 0], [1, 1]], dtype=bool)) == [0, 2, 1, 1]
    assert run_lengths(np.zeros((2, 3), dtype=bool)) == [6]
    assert run_lengths(np.ones((2, 3), dtype=bool)) == [0, 6]


def test_parts_apart_are_several_polygons() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[1:3, 1:3] = mask[5:7, 4:7] = True
    assert len(segmentation(mask)) == 2


def test_equal_seeds_give_equal_bytes_and_others_do_not(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", **SMALL)
    assert files(tmp_path / "again") == files(root)
    write(tmp_path / "other", seed=1, **SMALL)
    assert not set(files(tmp_path / "other").values()) & set(files(root).values())


def test_a_complete_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set", **SMALL)
    monkeypatch.setattr(digits_coco, "scenes", None)  # drawing again would fail
    write(tmp_path / "set", **SMALL)
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("damage", ["picture", "json", "settings"])
def test_an_incomplete_set_or_one_of_other_settings_is_replaced(
    damage: str, root: Path, tmp_path: Path
) -> None:
    write(tmp_path / "set", **{**SMALL, "val": 3} if damage == "settings" else SMALL)
    if damage == "picture":
        next((tmp_path / "set/val2017").iterdir()).unlink()
    if damage == "json":
        (tmp_path / "set/annotations/instances_val2017.json").write_text("{")
    write(tmp_path / "set", **SMALL)
    assert files(tmp_path / "set") == files(root)
    assert os.listdir(tmp_path) == ["set"]


def test_what_is_not_its_own_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "set/annotations").mkdir(parents=True)
    (tmp_path / "set/annotations/instances_train2017.json").write_text('{"info": {}}')
    with pytest.raises(RfbenchError, match=r"holds something other.*data\.root"):
        write(tmp_path / "set", **SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(RfbenchError, match="holds something other"):
        write(tmp_path / "file", **SMALL)
    assert sorted(os.listdir(tmp_path)) == ["file", "set"]


def test_a_stop_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digits_coco.simplejpeg, "encode_jpeg", full)
    with pytest.raises(RfbenchError, match="cannot write the digit scenes: No space left"):
        write(tmp_path / "set", **SMALL)
    assert not os.listdir(tmp_path)


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become = digits_coco._become

    def late(aside: Path, root: Path, settings: dict[str, Any]) -> None:
        monkeypatch.setattr(digits_coco, "_become", become)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write(root, **SMALL)
        become(aside, root, settings)

    monkeypatch.setattr(digits_coco, "_become", late)
    write(tmp_path / "set", **SMALL)
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objects": (3, 1)}, r"objects must be \[least, most\] \(it is \[3, 1\]\)"),
        ({"objects": (0, 0)}, "objects must be"),
        ({"scale": (0.5, 0.2)}, "scale must be"),
        ({"scale": (0, 1)}, "scale must be"),
        ({"scale": (1, 5)}, "makes digits of 110 px, which do not fit into 96 px"),
    ],
)
def test_scenes_that_cannot_be_drawn(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        write(tmp_path / "set", **{**SMALL, **options})
    assert not os.listdir(tmp_path)


def test_mnists_digits_have_the_assumed_size() -> None:
    for part in PARTS:
        assert max(max(one.ink.shape) for one in load_digits(part)) == digits_coco.MNIST
