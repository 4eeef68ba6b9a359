"""Sizes of a set's objects: against Detectron2's own resizing, and counted by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfbench.errors import UsageError
from rfbench.rf.questions.registration.objects import figure, figures, read, table

IMAGES = [{"id": 1, "width": 640, "height": 480}, {"id": 2, "width": 300, "height": 900}]
OBJECTS: list[dict[str, Any]] = [
    {"id": 1, "image_id": 1, "bbox": [0, 0, 30, 40]},
    {"id": 2, "image_id": 1, "bbox": [5, 5, 8, 2.0], "iscrowd": 0},
    {"id": 3, "image_id": 2, "bbox": [5, 5, 100, 100]},
    {"id": 4, "image_id": 2, "bbox": [0, 0, 300, 900], "iscrowd": 1},
    {"id": 5, "image_id": 2, "bbox": [0, 0, 0, 9]},
]
LEVELS = {
    "baseline": [
        {"level": "p2", "stride": 4, "field_size": 35},
        {"level": "p5", "stride": 32, "field_size": 427},
    ]
}


def write(place: Path, **more: Any) -> Path:
    path = place / "annotations.json"
    path.write_text(json.dumps({"images": IMAGES, "annotations": OBJECTS, **more}))
    return path


def test_counted_by_hand(tmp_path: Path) -> None:
    found = read(write(tmp_path), (0, 0))
    assert found.boxes.tolist() == [[40, 30], [2, 8], [100, 100]]
    assert (found.images, found.crowds, found.empty) == (2, 1, 1)
    record = figures(found, LEVELS)
    assert record["quantiles"]["root of area"]["0.5"] == pytest.approx(1200**0.5)
    assert record["quantiles"]["width"]["0.5"] == 30 and record["quantiles"]["height"]["0.5"] == 40
    p2, p5 = record["levels"]["baseline"]
    assert (p2["smaller_than_stride"], p2["larger_than_field"]) == (0, 1 / 3)  # 4 is not less
    assert (p5["smaller_than_stride"], p5["larger_than_field"]) == (1 / 3, 0)
    assert table(record)[0] == "3 objects in 2 images, not resized; left out: 1 crowds, 1 empty"
    assert table(record)[-1].split() == ["baseline", "p5", "32", "427", "33.3%", "0.0%"]
    figure(found, record, "Objects").canvas.draw()


@pytest.mark.parametrize("resize", [(800, 1333), (240, 1333), (600, 700)])
def test_resized_as_detectron2_does(tmp_path: Path, resize: tuple[int, int]) -> None:
    transforms = pytest.importorskip("detectron2.data.transforms")
    found = read(write(tmp_path), resize)
    rows = []
    for one in OBJECTS[:3]:
        own = IMAGES[one["image_id"] - 1]
        image = np.zeros((own["height"], own["width"], 3), np.uint8)
        change = transforms.ResizeShortestEdge(resize[0], resize[1]).get_transform(image)
        x, y, w, h = one["bbox"]
        (left, top), (right, bottom) = change.apply_coords(
            np.array([[x, y], [x + w, y + h]], float)
        )
        rows.append([bottom - top, right - left])
    np.testing.assert_allclose(found.boxes, rows, rtol=1e-12)
    short = f"resized to {resize[0]} px, at most {resize[1]} px"
    assert short in table(figures(found, LEVELS))[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"images": None}, "no list 'images'; expected annotations in COCO's format"),
        ({"annotations": {}}, "no list 'annotations'"),
        ({"images": [{"id": 1}]}, "an image has no height and width: {'id': 1}"),
        ({"annotations": [{"id": 1, "image_id": 1}]}, "an annotation has no bbox: {'id': 1"),
        ({"annotations": [{"id": 1, "bbox": [1, 2, 3, "4"]}]}, "an annotation has no bbox"),
        (
            {"annotations": [{"id": 7, "image_id": 9, "bbox": [1, 2, 3, 4]}]},
            "annotation 7 is of image 9, which is not there",
        ),
        ({"annotations": []}, "no object has a box"),
        ({"annotations": OBJECTS[3:]}, "no object has a box"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **more)
    with pytest.raises(UsageError, match=f"^{path}: ") as error:
        read(path, (800, 1333))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_no_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing.json: "):
        read(tmp_path / "nothing.json", (0, 0))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UsageError, match="a.json: "):
        read(tmp_path / "a.json", (0, 0))
