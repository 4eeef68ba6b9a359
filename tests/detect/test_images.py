"""Predictions beside ground truth: complete, within the image, the same every time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools", reason="run `make install-det`")

from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from rfbench.data import digits_coco
from rfbench.detect import images as drawing
from rfbench.errors import RfbenchError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "set"
    digits_coco.write(path, train=1, val=5)
    return path


def paths(root: Path) -> tuple[Path, Path]:
    return root / "annotations/instances_val2017.json", root / "val2017"


def predictions(root: Path) -> list[dict[str, Any]]:
    found = json.loads(paths(root)[0].read_text())["annotations"]
    return [{**one, "score": (0.9, 0.1)[i % 2]} for i, one in enumerate(found)]


def test_one_file_per_image(root: Path, tmp_path: Path) -> None:
    names = drawing.save(*paths(root), predictions(root), tmp_path, 3)
    assert names == [f"predictions/{i:03d}-{2 * i:012d}.png" for i in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == [
        Path(name).name for name in names
    ]
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert image.width == 1400  # 7 inches
    drawing.save(*paths(root), predictions(root), tmp_path / "again", 3)
    for name in names:
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_no_more_images_than_there_are(root: Path, tmp_path: Path) -> None:
    assert len(drawing.save(*paths(root), [], tmp_path, 99)) == 5


def test_an_image_without_a_prediction_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    draw = drawing.draw
    monkeypatch.setattr(
        drawing, "draw", lambda i, sides, *a: told.extend(sides) or draw(i, sides, *a)
    )
    low = [{**one, "score": 0.1} for one in predictions(root)]
    for found in (predictions(root), low):
        drawing.save(*paths(root), found, tmp_path, 1)
    assert told[1::2] == [
        "predictions (score of 0.3 or more)",
        "no prediction (none with a score of 0.3 or more)",
    ]


def tool(count: int = 1) -> Any:
    from pycocotools.coco import COCO

    found = COCO()
    found.dataset = {
        "images": [{"id": 1, "width": 64, "height": 48}],
        "categories": [{"id": i + 1, "name": f"thing {i + 1}"} for i in range(count)],
        "annotations": [],
    }
    found.createIndex()
    return found


def drawn(boxes: list[dict[str, Any]], count: int = 1, size: tuple[int, int] = (48, 64)) -> Any:
    truth = tool(count)
    image = np.full((*size, 3), 90, np.uint8)
    sides = {"ground truth": [], "predictions": boxes}
    return drawing.draw(image, sides, truth, drawing.palette(sorted(truth.cats))).axes[1]


def box(x: float, y: float, w: float, h: float, **other: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": 0.87, **other}


def test_what_is_written() -> None:
    axes = drawn([box(5, 9, 20, 10), box(30, 20, 9, 9, category_id=2, score=0.304)], count=2)
    assert sorted(text.get_text() for text in axes.texts) == ["thing 1 0.87", "thing 2 0.30"]
    truth = [{key: one[key] for key in one if key != "score"} for one in [box(5, 9, 20, 10)]]
    assert [text.get_text() for text in drawn(truth).texts] == ["thing 1"]
    (crowd,) = drawn([{**truth[0], "iscrowd": 1}]).texts
    assert crowd.get_text() == "thing 1 (crowd)"


def test_boxes_lie_on_the_edges_of_pixels() -> None:
    axes = drawn([box(5, 9, 20, 10)])
    for patch in axes.patches:
        assert isinstance(patch, Rectangle)
        assert [*patch.get_xy(), patch.get_width(), patch.get_height()] == [5, 9, 20, 10]
    assert axes.images[0].get_extent() == [0, 64, 48, 0]


def test_masks_take_their_classs_colour() -> None:
    mask = {"size": [48, 64], "counts": [0, 48 * 10, 48 * 54]}  # the first ten columns
    found = drawn([box(0, 0, 10, 48, segmentation=mask)]).images[0].get_array()
    ground = 90 / 255
    assert np.allclose(found[:, 10:], ground)
    color = np.array(drawing.palette([1])[1])
    assert np.allclose(found[:, :10], ground + drawing.ALPHA * (color - ground), atol=1e-6)


def test_masks_are_drawn_where_a_detector_has_them(root: Path, tmp_path: Path) -> None:
    """Of boxes alone both sides show the image as it is, but for boxes and their labels."""
    for masks in (True, False):
        (name,) = drawing.save(*paths(root), [], tmp_path, 1, masks=masks)
        with Image.open(tmp_path / name) as drawn:
            side = np.asarray(drawn.convert("RGB"))[50:, :690].astype(int)
            other = np.asarray(drawn.convert("RGB"))[50:, 710:1400].astype(int)
        apart = (np.abs(side - other).sum(2) > 30).mean()
        assert (apart > 0.1) == masks


def extents(axes: Any) -> list[Bbox]:
    axes.figure.canvas.draw()
    return [text.get_bbox_patch().get_window_extent() for text in axes.texts]


@pytest.mark.parametrize("at", [(0, 0), (58, 0), (0, 43), (58, 43), (-3, 20), (20, 46)])
def test_labels_stay_within_the_image(at: tuple[int, int]) -> None:
    axes = drawn([box(*at, 6, 5)])
    (extent,) = extents(axes)
    within = axes.get_window_extent()
    assert extent.x0 >= within.x0 - 0.5 and extent.x1 <= within.x1 + 0.5
    assert extent.y0 >= within.y0 - 0.5 and extent.y1 <= within.y1 + 0.5


def test_labels_of_coinciding_boxes_do_not_hide_each_other() -> None:
    axes = drawn([box(20, 20, 16, 12, category_id=i + 1) for i in range(4)], count=4)
    found = extents(axes)
    for i, one in enumerate(found):
        for other in found[:i]:
            assert drawing.shared(one, other) < 1


def test_tall_images_keep_within_a_page() -> None:
    width, height = drawn([], size=(300, 50)).figure.get_size_inches()
    assert height <= drawing.TALLEST + drawing.HEAD + 1e-9 and width < 2


def test_categories_have_colours_of_their_own() -> None:
    assert len(set(drawing.palette(range(10)).values())) == 10
    assert len(drawing.palette(range(80))) == 80


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(RfbenchError, match=r"x\.jpg: not an image of a known format"):
        drawing.read(tmp_path / "x.jpg")
