"""Masks are checked before pycocotools reads them, which checks nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfbench.data import coco, coco_masks
from rfbench.errors import RfbenchError

SIZE = (40, 30)  # width, height
SQUARE = [4.0, 4.0, 14.0, 4.0, 14.0, 14.0, 4.0, 14.0]


@pytest.fixture
def tools() -> Any:
    return pytest.importorskip("pycocotools.mask")


def compressed(tools: Any, mask: np.ndarray) -> str:
    return str(tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_run_lengths_are_those_of_pycocotools(tools: Any, share: float) -> None:
    rng = np.random.RandomState(1)
    for height, width in ((30, 40), (1, 1), (700, 900), (3, 2000)):
        mask = rng.rand(height, width) < share
        mask[: height // 2] = share > 0.5  # long runs, of several characters
        text = compressed(tools, mask)
        runs = coco_masks.decompressed(text)
        assert runs is not None and sum(runs) == height * width
        column = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
        assert np.array_equal(column, mask)
        found = {"size": [height, width], "counts": text}
        wanted = [] if mask.any() else [coco_masks.EMPTY]
        assert [*coco_masks.problems(found, (width, height))] == wanted
        assert [*coco_masks.problems({**found, "counts": runs}, (width, height))] == wanted


def rle(counts: Any, size: Any = (30, 40)) -> dict[str, Any]:
    return {"size": list(size), "counts": counts}


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        ([[2, 2, 2, 2, 2, 2]], coco_masks.EMPTY),
        ([[1, 1, 5, 5, 9, 9]], coco_masks.EMPTY),
        ([[1, 1, 5, 1, 5, 1, 1, 1]], coco_masks.EMPTY),
        ([[3, 1, 3, 9, 3, 4, 3, 2]], coco_masks.EMPTY),
        (rle([1200]), coco_masks.EMPTY),
        (rle([1200, 0]), coco_masks.EMPTY),
        (rle([10, 50_000]), coco_masks.OTHER_SUM),
        (rle([10, 20]), coco_masks.OTHER_SUM),
        (rle([]), coco_masks.OTHER_SUM),
        (rle([1300, -100]), coco_masks.NO_RUNS),
        (rle([1200.0]), coco_masks.NO_RUNS),
        (rle(["1200"]), coco_masks.NO_RUNS),
        (rle([True, 1199]), coco_masks.NO_RUNS),
        (rle([1200, None]), coco_masks.NO_RUNS),
        (rle([10**400]), coco_masks.OTHER_SUM),
        (rle("PPYo0"), coco_masks.OTHER_SUM),
        (rle(""), coco_masks.NO_TEXT),
        (rle("o"), coco_masks.NO_TEXT),  # says that it continues
        (rle("O"), coco_masks.NO_TEXT),  # -1
        (rle("  "), coco_masks.NO_TEXT),
        (rle("é" * 9), coco_masks.NO_TEXT),
        (rle("\0"), coco_masks.NO_TEXT),
        (rle("o" * 20 + "1"), coco_masks.NO_TEXT),
        (rle(None), coco_masks.UNFIT),
        (rle({}), coco_masks.UNFIT),
        ({}, coco_masks.UNFIT),
        ({"counts": [1200]}, coco_masks.OTHER_SIZE),
        (rle([1200], [40, 30]), coco_masks.OTHER_SIZE),
        (rle([1200], [30.0, 40.0]), coco_masks.OTHER_SIZE),
        (rle([1200], [30]), coco_masks.OTHER_SIZE),
        ("text", coco_masks.UNFIT),
        (7, coco_masks.UNFIT),
        ([1, 2, 3, 4, 5, 6], coco_masks.UNFIT),
        ([[1, 2, 3, 4, 5, "6"]], coco_masks.UNFIT),
        ([[1, 2, 3, 4, 5, float("nan")]], coco_masks.UNFIT),
        ([[1, 2, 3, 4, 5, float("inf")]], coco_masks.UNFIT),
        ([[1, 2, 3, 4, 5, 10**400]], coco_masks.UNFIT),
        ([[]], coco_masks.SHORT),
        ([[4, 4, 10, 10]], coco_masks.SHORT),  # a box
        ([[1, 1, 5, 5], SQUARE], coco_masks.SHORT),
        ([[1, 2, 3, 4, 5, 6, 7]], coco_masks.SHORT),
        ([[], SQUARE], coco_masks.SHORT),
        ([SQUARE, []], coco_masks.PART),
        ([SQUARE, [1, 1, 5, 5]], coco_masks.PART),
        ([SQUARE, [1, 2, 3, 4, 5, 6, 7]], coco_masks.PART),
        ([[*SQUARE[:-1], 2e8]], coco_masks.FAR),
        ([[*SQUARE[:-1], -2e8]], coco_masks.FAR),
        ([SQUARE, [*SQUARE[:-1], 1e300]], coco_masks.FAR),
        ([[-2, *SQUARE[1:]]], coco_masks.OUTSIDE),
        ([[43, *SQUARE[1:]]], coco_masks.OUTSIDE),
        ([[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], coco_masks.TINY),
        ([SQUARE], None),
        ([[-1, 0, 41, 0, 41, 31]], None),  # rounding
        ([], None),
    ],
)
def test_a_mask(mask: Any, what: str | None) -> None:
    assert [*coco_masks.problems(mask, SIZE)] == [what] * bool(what)


def checked(folder: Path, *masks: Any, **values: Any) -> coco.CocoSet:
    """A set with an object of each mask, numbered from 7."""
    Image.new("RGB", SIZE).save(folder / "a.png")
    rest = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 10, 10], "area": 100, "iscrowd": 0}
    found = {
        "images": [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {**rest, "id": 7 + i, "segmentation": mask, **values} for i, mask in enumerate(masks)
        ],
    }
    (folder / "a.json").write_text(json.dumps(found))
    return coco.check(folder / "a.json", folder)


def test_faults_name_annotations(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError) as error:
        checked(tmp_path, [SQUARE], rle([10, 50_000]), [[]], rle([0, 1200]), [SQUARE, [1, 1, 2, 2]])
    short, runs, part = str(error.value).splitlines()
    assert short.endswith("1 (9)") and "first polygon is empty, odd or of fewer" in short
    assert runs.endswith("run lengths that do not sum to height x width: 1 (8)")
    assert part.endswith("training drops them: 1 (11)")


def test_a_crowd_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match=r"do not sum to height x width: 1 \(8\)"):
        checked(tmp_path, [SQUARE], rle([10, 5]), iscrowd=1)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"area": 0}, "'area' of 0: 1 (0 of annotation 7)"),
        ({"area": 150}, "'area' larger than the box: 1 (150 of annotation 7)"),
        (
            {"area": 100 / 1200},  # of the image's: every object would be small
            "'area' far below the box, as in normalised coordinates (COCO's is in px): "
            "1 (0.08333333333333333 of annotation 7)",
        ),
        (
            {"area": 9, "segmentation": None},
            "'area' far below the box, as in normalised coordinates (COCO's is in px): "
            "1 (9 of annotation 7)",
        ),
        (
            {"bbox": [0.1, 0.1, 0.3, 0.25], "area": 0.075},
            "boxes within one pixel, as normalised coordinates are (COCO's are in px): "
            "1 ([0.1, 0.1, 0.3, 0.25] of annotation 7)",
        ),
    ],
)
def test_what_is_odd_is_a_note(values: dict[str, Any], note: str, tmp_path: Path) -> None:
    notes = checked(tmp_path, [SQUARE], **values).notes
    assert [text.partition(": ")[2] for text in notes] == [note]


def test_a_mask_may_cover_little_of_its_box(tmp_path: Path) -> None:
    assert checked(tmp_path, [SQUARE], area=1).notes == ()
    assert checked(tmp_path, None, area=10).notes == ()


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"area": -1}, "'area' below 0: 1 (-1 of annotation 7)"),
        ({"area": 10**400}, "'area' that is not a number: 1 (1000"),
        ({"area": float("nan")}, "'area' that is not a number: 1 (NaN in"),
        ({"bbox": [4, 4, 10, 10**400]}, "'bbox' that is not four numbers"),
        ({"bbox": [4, 4, 10, float("inf")]}, "'bbox' that is not four numbers"),
        ({"bbox": ["4", 4, 10, 10]}, "'bbox' that is not four numbers"),
        ({"id": 2**53}, "'id' that is not a whole number"),  # NumPy would round it
        ({"ignore": None}, "annotations with 'ignore'"),
        ({"keypoints": ["a", "b", "c"]}, "annotations whose 'keypoints' are not a list of"),
        ({"keypoints": 7}, "annotations whose 'keypoints' are not a list of numbers"),
    ],
)
def test_what_would_fail_or_mislead_later_is_a_fault(
    values: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(RfbenchError) as error:
        checked(tmp_path, [SQUARE], **values)
    assert f"a.json: {fault}" in str(error.value)


def test_a_polygon_whose_first_points_are_on_one_line_has_an_area() -> None:
    assert [*coco_masks.problems([[1, 1, 5, 5, 9, 9, 9, 1]], SIZE)] == []
    assert [*coco_masks.problems([[1, 1, 1, 1, 9, 1, 9, 9]], SIZE)] == []
    assert [*coco_masks.problems([[1, 1, 5, 5, 9, 9], SQUARE], SIZE)] == []
