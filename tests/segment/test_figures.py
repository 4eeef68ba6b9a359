"""The figures against counts that share no code with them: loops, SciPy's erosion, sets."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from rfbench.runs.processes import started
from rfbench.segment import evaluate, figures
from tests.classify import runs

IGNORED, CLASSES = 255, 4
NAMES = ["ground", "a", "b", "c"]


def blobs(seed: int, count: int, size: tuple[int, int]) -> np.ndarray:
    """Masks with parts that reach the border, thin parts, and single pixels."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, CLASSES, *size)), (0, 0, 2.5, 2.5))
    found = smooth.argmax(1)
    found[rng.random(found.shape) < 0.01] = 1
    return found


def pair(seed: int = 0, count: int = 5, size: tuple[int, int] = (40, 56)) -> tuple[Any, Any]:
    """Truth, with ignored pixels, and a prediction that is right for most of it."""
    truth, other = blobs(seed, count, size), blobs(seed + 1, count, size)
    predicted = np.where(
        ndimage.gaussian_filter(np.sin(truth + other * 1.0), 1) > 0.1, truth, other
    )
    truth[:, 5:9, 10:30] = IGNORED
    truth[0, :, 50:] = IGNORED
    return truth, predicted


def by_loops(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """IoU, accuracy and so on, pixel by pixel."""
    hit, true, found = [0] * CLASSES, [0] * CLASSES, [0] * CLASSES
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t == IGNORED:
            continue
        true[t] += 1
        found[p] += 1
        hit[t] += t == p
    iou = [100 * h / (t + f - h) for h, t, f in zip(hit, true, found, strict=True)]
    return {
        "pixel_accuracy": 100 * sum(hit) / sum(true),
        "mean_accuracy": sum(100 * h / t for h, t in zip(hit, true, strict=True)) / CLASSES,
        "mIoU": sum(iou) / CLASSES,
        "foreground_mIoU": sum(iou[1:]) / (CLASSES - 1),
        "iou": dict(zip(NAMES, iou, strict=True)),
    }


def inner_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The authors' mask_to_boundary: a frame of zeros, and a 3x3 erosion, repeated."""
    framed = np.pad(mask, 1)
    eroded = ndimage.binary_erosion(framed, np.ones((3, 3)), width, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


def by_erosion(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    """Boundary IoU of each class, mask by mask."""
    width = max(1, round(0.02 * math.hypot(*truth.shape[1:])))
    ious = []
    for c in range(CLASSES):
        both = either = 0
        for t, p in zip(truth, predicted, strict=True):
            known = t != IGNORED
            g = inner_boundary((t == c) | ~known, width) & known
            q = inner_boundary((p == c) | ~known, width) & known
            both += int((g & q).sum())
            either += int((g | q).sum())
        ious.append(100 * both / either)
    return ious


def counted(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    t, p = torch.from_numpy(truth), torch.from_numpy(predicted)
    counts = figures.zero(CLASSES)
    counts.confusion += figures.confusion(p, t, CLASSES)
    counts.boundary += figures.boundary(p, t, CLASSES)
    return figures.summary(counts, NAMES, background=0)


def test_pixels_are_counted_as_by_a_loop() -> None:
    truth, predicted = pair()
    found, expected = counted(truth, predicted), by_loops(truth, predicted)
    assert 20 < expected["mIoU"] < 95
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


@pytest.mark.parametrize("size", [(40, 56), (90, 130), (7, 9)])
def test_boundaries_are_those_of_an_erosion(size: tuple[int, int]) -> None:
    """Of one pixel, of three, and in images that are hardly larger than that."""
    truth, predicted = pair(3, 3, size) if size[1] > 60 else pair(4, 3, size)
    found = counted(truth, predicted)["boundary_iou"]
    assert [*found.values()] == pytest.approx(by_erosion(truth, predicted))


def test_a_boundary_by_hand() -> None:
    """A square of 6 px inside, one that touches the border, one that is moved by a pixel."""
    truth = np.zeros((1, 20, 20), np.int64)
    truth[0, 2:8, 2:8] = 1  # its edge of one pixel: 36 - 16
    truth[0, 14:20, 14:20] = 2  # the image's border ends it too
    predicted = np.zeros_like(truth)
    predicted[0, 3:9, 2:8] = 1
    predicted[0, 14:20, 14:20] = 2
    found = figures.boundary(torch.from_numpy(predicted), torch.from_numpy(truth), CLASSES)
    assert found[1:, 1].tolist() == [20, 20] and found[:, 2].tolist() == [20, 20, 20]
    # both have the columns 2 and 7 at rows 3 to 7: ten pixels
    assert found[0, 1] == 10


def test_an_ignored_band_makes_no_contour() -> None:
    """VOC's: between an object and what is around it nothing is known."""
    truth = np.full((1, 30, 30), 1, np.int64)
    truth[0, 12:18] = IGNORED
    found = figures.boundary(torch.full((1, 30, 30), 1), torch.from_numpy(truth), CLASSES)
    frame = 2 * 30 + 2 * 28 - 2 * 6  # the image's own border, where it is known
    assert found[:, 1].tolist() == [frame, frame, frame]


def test_what_is_not_there_is_not_a_number() -> None:
    truth = np.zeros((1, 8, 8), np.int64)
    found = counted(truth, truth)
    assert found["iou"] == {"ground": 100.0, "a": None, "b": None, "c": None}
    assert found["mIoU"] == 100 and found["foreground_mIoU"] is None and found["jitter"] is None
    nothing = counted(np.full((1, 8, 8), IGNORED), truth)
    assert nothing["mIoU"] is None and nothing["pixel_accuracy"] is None


class Parity(nn.Module):
    """Class 1 where a pixel is bright and the row is even: half of it changes with a move."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        even = torch.arange(x.shape[2])[:, None] % 2 == 0
        one = (x[:, 0] > 0) & even
        return torch.stack([~one, one], 1).float()


def test_a_move_is_compared_at_the_moved_position() -> None:
    images = torch.ones(2, 3, 6, 8)
    counts = figures.zero(2)
    truth = torch.zeros(2, 6, 8, dtype=torch.long)
    evaluate.add(counts, lambda x: {"out": Parity()(x)}, images, truth, jitter=True)
    assert counts.moved.tolist() == [2 * 5 * 7, 2 * 5 * 7]  # every row changes its parity
    counts = figures.zero(2)
    still = torch.rand(2, 3, 6, 8)
    bright = lambda x: {"out": torch.stack([x[:, 0], x[:, 1]], 1)}  # noqa: E731
    evaluate.add(counts, bright, still, truth, jitter=True)
    assert counts.moved.tolist() == [0, 2 * 5 * 7]  # what looks at single pixels follows them


def count(folder: str, env: dict[str, str]) -> None:
    """Evaluate in one of the processes; the first writes what it found."""
    import os

    from rfbench.data.order import evaluation_tasks
    from rfbench.data.segmentation.pairs import ArrayPairs, SegSet

    os.environ.update(env)
    torch.set_num_threads(1)
    truth, predicted = pair(7, 11, (24, 32))
    with started("cpu") as group:
        none = ArrayPairs(np.zeros((0, 24, 32, 4), np.uint8), "none")
        data = SegSet("drawn", NAMES, none, none, background=0)
        tasks = evaluation_tasks(len(truth), 2, group.rank, group.world)
        images = torch.from_numpy(np.repeat(predicted[:, None], 3, 1)).float()
        shares = [
            (images[t.start : t.stop], torch.from_numpy(truth[t.start : t.stop])) for t in tasks
        ]

        def forward(x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": torch.nn.functional.one_hot(x[:, 0].long(), 4).movedim(-1, 1).float()}

        found = evaluate.evaluate(nn.Identity(), shares, 6, group, forward, data)
        Path(folder, str(group.rank)).write_text(json.dumps(found))


def test_any_number_of_processes_counts_the_same(tmp_path: Path) -> None:
    found = []
    for world in (1, 3):
        folder = tmp_path / str(world)
        folder.mkdir()
        assert runs.finish(runs.start_all(count, (str(folder),), world)) == [0] * world
        texts = {path.read_text() for path in folder.iterdir()}
        assert len(texts) == 1
        found.append(json.loads(texts.pop()))
    assert found[0].pop("loss") == pytest.approx(found[1].pop("loss"), rel=1e-12)
    assert found[0] == found[1] and found[0]["images"] == 11
    truth, predicted = pair(7, 11, (24, 32))
    assert found[0]["mIoU"] == pytest.approx(by_loops(truth, predicted)["mIoU"])


def test_torchmetrics_agrees() -> None:
    metrics = pytest.importorskip("torchmetrics")
    truth, predicted = (torch.from_numpy(x) for x in pair())
    own = {"num_classes": CLASSES, "ignore_index": IGNORED}
    iou = metrics.functional.jaccard_index(predicted, truth, "multiclass", average=None, **own)
    found = counted(*pair())
    assert [*found["iou"].values()] == pytest.approx((100 * iou).tolist(), rel=1e-5)
    for average, name in (("micro", "pixel_accuracy"), ("macro", "mean_accuracy")):
        theirs = metrics.functional.accuracy(predicted, truth, "multiclass", average=average, **own)
        assert found[name] == pytest.approx(100 * float(theirs), rel=1e-5)
