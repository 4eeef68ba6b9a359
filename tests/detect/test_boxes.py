"""Where boxes lie, against cases where the answer is known."""

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools", reason="run `make install-det`")

from rfbench.detect.boxes import jitter, match, means, registration

Box = dict[str, Any]


def box(x: float, y: float, w: float = 20, h: float = 10, **other: Any) -> Box:
    return {"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9, **other}


def truth(images: int = 12, seed: int = 0) -> list[Box]:
    """Boxes of two categories, two an image, apart."""
    rng = np.random.default_rng(seed)
    return [
        box(*rng.uniform(5, 20, 2), *rng.uniform(15, 40, 2), image_id=i, category_id=c)
        for i in range(images)
        for c in (3, 90)
    ]


def shifted(boxes: list[Box], dx: float, dy: float, dw: float = 0, dh: float = 0) -> list[Box]:
    def move(x: float, y: float, w: float, h: float) -> list[float]:
        return [x + dx - dw / 2, y + dy - dh / 2, w + dw, h + dh]

    return [{**one, "bbox": move(*one["bbox"])} for one in boxes]


def test_a_perfect_detector_has_no_error() -> None:
    found = registration(truth(), truth())
    assert found["pairs"] == 24
    assert found["AP90"] == pytest.approx(100)
    for name in ("dx", "dy", "dw", "dh"):
        assert found[name] == 0 and found[f"{name}_se"] == 0


def test_a_shifted_detector_shows_its_shift() -> None:
    found = registration(truth(), shifted(truth(), 2, -1, 1.5, -0.5))
    expected = {"dx": 2, "dy": -1, "dw": 1.5, "dh": -0.5}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert max(found[f"{name}_se"] or 0 for name in expected) < 1e-12
    assert found["pairs"] == 24
    assert found["AP90"] == 0  # 2 px of 40 are an IoU of 0.90 at the very best


def test_the_direction_is_detection_minus_truth() -> None:
    assert registration([box(10, 10)], [box(13, 10)])["dx"] == 3


def test_nothing_detected_and_nothing_there() -> None:
    for found in (registration(truth(), []), registration([], [])):
        assert found["pairs"] == 0 and found["dx"] is None and found["dx_se"] is None
    assert registration(truth(), [])["AP90"] == 0
    assert registration([], truth())["AP90"] is None


def test_ap90_falls_with_every_miss() -> None:
    good = truth()
    assert registration(good, good[::2])["AP90"] == 50  # all of one category, none of the other
    # a better scored detection of nothing, in every image, halves the precision
    wrong = [{**one, "bbox": [60, 60, 5, 5], "score": 0.95} for one in good]
    assert registration(good, good + wrong)["AP90"] == pytest.approx(50, abs=0.1)


def test_ap90_counts_what_overlaps_by_ninety_percent() -> None:
    one = [box(0, 0, 100, 100)]
    assert registration(one, [box(0, 0, 91, 100)])["AP90"] == pytest.approx(100)
    assert registration(one, [box(0, 0, 89, 100)])["AP90"] == 0


def test_images_without_objects_count_in_ap90() -> None:
    empty = [{**one, "image_id": 100 + i, "score": 0.99} for i, one in enumerate(truth())]
    found = registration(truth(), truth() + empty)
    assert found["pairs"] == 24
    assert found["AP90"] is not None and 40 < found["AP90"] < 60


def pairs(first: list[Box], second: list[Box]) -> list[list[int]]:
    return match(first, second).tolist()


def test_the_best_score_chooses_first() -> None:
    # the second overlaps more, but the first is surer
    detections = [box(12, 10, score=0.9), box(10, 10, score=0.6)]
    assert pairs([box(10, 10)], detections) == [[0, 0]]
    detections[1]["score"] = 0.95
    assert pairs([box(10, 10)], detections) == [[0, 1]]


def test_of_what_is_left_the_largest_overlap() -> None:
    objects = [box(10, 10), box(14, 10)]
    assert pairs(objects, [box(13, 10), box(11, 10, score=0.8)]) == [[1, 0], [0, 1]]


def test_an_iou_of_a_half_is_the_least() -> None:
    assert pairs([box(0, 0, 10, 10)], [box(0, 0, 10, 5)]) == [[0, 0]]
    assert pairs([box(0, 0, 10, 10)], [box(0, 0, 10, 4.9)]) == []


def test_other_categories_and_images_do_not_match() -> None:
    assert pairs([box(10, 10)], [box(10, 10, category_id=2)]) == []
    assert pairs([box(10, 10)], [box(10, 10, image_id=2)]) == []


def test_crowds_match_nothing() -> None:
    assert pairs([box(10, 10, iscrowd=1)], [box(10, 10)]) == []
    assert pairs([box(10, 10, iscrowd=1), box(11, 10)], [box(10, 10)]) == [[1, 0]]
    found = registration([box(10, 10, iscrowd=1), box(60, 60)], [box(10, 10), box(60, 60)])
    assert found["AP90"] == pytest.approx(100) and found["pairs"] == 1


def test_the_standard_error_is_the_usual_one_with_one_box_an_image() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1, 3, (50, 1))
    found = means(("a",), values, range(50))
    assert found["a"] == pytest.approx(values.mean())
    assert found["a_se"] == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_boxes_of_one_image_are_not_independent() -> None:
    values = np.random.default_rng(0).normal(0, 1, (20, 1))
    once = means(("a",), values, range(20))
    copied = means(("a",), np.repeat(values, 5, 0), np.repeat(np.arange(20), 5))
    assert copied["a_se"] == pytest.approx(once["a_se"])
    assert means(("a",), values, ["one"] * 20)["a_se"] is None


# --- jitter: an image with bright squares; the "detectors" find them by looking ------------------


def scene(*corners: tuple[int, int], size: int = 12) -> np.ndarray:
    """(80, 100, 3), black, with a square of a brightness of its own at every (x, y)."""
    found = np.zeros((80, 100, 3), np.uint8)
    for number, (x, y) in enumerate(corners, start=1):
        found[y : y + size, x : x + size] = number
    return found


def look(view: np.ndarray) -> list[Box]:
    """A perfect detector: the tight box of every brightness, which is its category."""
    assert view.shape == (80, 100, 3) and view.flags.c_contiguous
    found = []
    for label in range(1, int(view.max()) + 1):
        rows, columns = np.nonzero(view[..., 0] == label)
        if len(rows):
            x, y = int(columns.min()), int(rows.min())
            w, h = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
            found.append({"category_id": label, "bbox": [x, y, w, h], "score": 0.9})
    return found


def on_grid(view: np.ndarray) -> list[Box]:
    """A detector whose boxes begin on multiples of 4 px."""
    return [
        {**one, "bbox": [4 * (v // 4) for v in one["bbox"][:2]] + one["bbox"][2:]}
        for one in look(view)
    ]


def test_a_perfect_detector_does_not_jitter() -> None:
    found = jitter(look, [scene((20, 30), (60, 50)), scene((33, 21))])
    assert found == {
        **{"pairs": 3, "jitter": 0, "jitter_se": 0},
        **{"dx": 0, "dx_se": 0, "dy": 0, "dy_se": 0},
    }


def test_a_shifted_detector_does_not_jitter_either() -> None:
    found = jitter(lambda view: shifted(look(view), 3, -2), [scene((20, 30)), scene((40, 9))])
    assert found["pairs"] == 2 and found["jitter"] == 0


def test_a_detector_on_a_grid_of_4_px_jitters_as_it_must() -> None:
    # of four places three stay while the image moves (1 px too little), one jumps by 4
    for y, expected in (
        (20, [math.hypot(1, 1)] * 3 + [math.hypot(3, 1)]),  # y stays
        (23, [math.hypot(1, 3)] * 3 + [math.hypot(3, 3)]),  # y jumps, from 20 to 24
    ):
        found = jitter(on_grid, [scene((x, y), size=30) for x in (20, 21, 22, 23)])
        assert found["pairs"] == 4
        assert found["jitter"] == pytest.approx(np.mean(expected))
        assert found["dx"] == pytest.approx(np.mean([-1, -1, -1, 3]))
        assert found["dy"] == pytest.approx(-1 if y == 20 else 3)
        assert found["jitter_se"] == pytest.approx(np.std(expected, ddof=1) / 2)


def test_over_a_whole_grid_the_signed_jitter_is_none() -> None:
    places = [(x, y) for x in range(20, 24) for y in range(30, 34)]
    found = jitter(on_grid, [scene(corner, size=30) for corner in places])
    assert found["pairs"] == 16
    assert found["dx"] == pytest.approx(0) and found["dy"] == pytest.approx(0)
    by_hand = (9 * math.sqrt(2) + 6 * math.sqrt(10) + math.sqrt(18)) / 16
    assert found["jitter"] == pytest.approx(by_hand)


def test_boxes_at_the_edge_are_left_out() -> None:
    # 2 px inside on every side, also when moved; one less is too near
    assert jitter(look, [scene((2, 2))])["pairs"] == 1
    assert jitter(look, [scene((1, 2))])["pairs"] == 0
    assert jitter(look, [scene((85, 65))])["pairs"] == 1
    assert jitter(look, [scene((85, 66))])["pairs"] == 0


def test_the_first_row_and_column_come_twice() -> None:
    ramp = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    seen: list[np.ndarray] = []
    jitter(lambda view: seen.append(view) or [], [ramp])  # type: ignore[func-returns-value]
    assert np.array_equal(seen[0], ramp)
    assert np.array_equal(seen[1][1:, 1:], ramp[:-1, :-1])
    assert np.array_equal(seen[1][0, 1:], ramp[0, :-1]) and np.array_equal(
        seen[1][1:, 0], ramp[:-1, 0]
    )


def test_unsure_boxes_are_left_out() -> None:
    def unsure(view: np.ndarray) -> list[Box]:
        return [{**one, "score": 0.2} for one in look(view)]

    assert jitter(unsure, [scene((20, 30))])["pairs"] == 0
    assert jitter(unsure, [scene((20, 30))], min_score=0.2)["pairs"] == 1
    assert jitter(unsure, [])["jitter"] is None
