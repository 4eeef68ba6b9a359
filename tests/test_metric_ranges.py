"""What no evaluation gives is refused by name, wherever it stands."""

import json
from pathlib import Path
from typing import Any

import pytest

from rfbench import metric_ranges
from rfbench.errors import RfbenchError
from rfbench.models import weight_files
from rfbench.runs import records
from tests.report.records import write

ROOT = Path(__file__).parents[1]

IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    "far above": ({"top1": 2**70}, r"m.top1 is 1180591620717411303424, not from 0 to 100"),
    "just above": ({"top1": 100.5}, "m.top1 is 100.5, not"),
    "below": ({"bbox": {"AP": -1.0}}, "m.bbox.AP is -1.0, not"),
    "averaged": ({"ema": {"top5": 101.0}}, "m.ema.top5 is 101.0, not"),
    "loss": ({"loss": -0.1}, "m.loss is -0.1, below 0"),
    "half an image": ({"images": 2.5}, "m.images is 2.5, not a whole number"),
    "error": ({"registration": {"dx_se": -1.0}}, "dx_se is -1.0, below 0"),
    "of pixels": ({"mIoU": 5.0, "jitter": 101.0}, "jitter is 101.0, not"),
    "of a class": ({"iou": {"a": 101.0}}, "m.iou.a is 101.0"),
    "top-1 above top-5": ({"top1": 60.0, "top5": 50.0}, "top1 is above top5"),
    "mean": ({"mIoU": 50.0, "iou": {"a": 20.0, "b": 40.0}}, "m.mIoU is 50.0, not the mean"),
    "no mean": ({"mIoU": None, "iou": {"a": 20.0}}, "m.mIoU is missing"),
    "mean of none": ({"mIoU": 50.0, "iou": {"a": None}}, "not the mean"),
    "a class less": ({"bbox": {"AP": 30.0, "classes": {"a": 20.0}}}, "AP is 30.0, not the mean"),
    "foreground": (
        {"mIoU": 30.0, "foreground_mIoU": 30.0, "iou": {"a": 20.0, "b": 40.0}},
        "foreground_mIoU is 30.0, not the mean",
    ),
    "other classes": ({"iou": {"a": 1.0}, "boundary_iou": {"b": 1.0}}, "of other classes"),
    "a list": ({"mIoU": 1.0, "iou": [1.0]}, "no list by class"),
    "a number": ({"iou": {"a": 1.0}, "boundary_iou": 5}, "boundary_iou is no list by class"),
    "no name": ({3: {None: 1, "top1": 101.0}}, "m.3.top1 is 101.0"),
    "no metrics": ([], "m is"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_evaluation_gives(name: str) -> None:
    metrics, says = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=says):
        metric_ranges.check(metrics, "m")


def test_what_evaluations_give() -> None:
    iou = {"sky": None, "iou": 20.0, "loss": 40.0, "images": 2.5}
    mean = (20.0 + 40.0 + 2.5) / 3
    for metrics in (
        {"top1": 100.0, "top5": None, "loss": float("inf"), "own": -5, "epoch": 0},
        {"mIoU": mean, "iou": iou, "foreground_mIoU": mean},  # the sky is the background
        {"mIoU": mean, "iou": iou, "foreground_mIoU": 30.0},  # "images" is
        {"mIoU": None, "iou": {"a": None}, "foreground_mIoU": None},
        {"jitter": {"jitter": 150.0, "dx": -3.0, "dx_se": None}, "bbox": {"AP": 0.0}},
        {"top1": 100.0 + 1e-9},
    ):
        metric_ranges.check(metrics, "m")
    with pytest.raises(ValueError, match="of 4 classes, not of all 5"):
        metric_ranges.check({"mIoU": mean, "iou": iou}, "m", [*iou, "tree"])


def test_every_record_that_is_shipped_is_possible() -> None:
    found = [*ROOT.glob("docs/runs/**/result.json")]
    assert len(found) > 100
    for path in found:
        records.read_record(path)


COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "metrics": ({"metrics__top1": -3.0}, "metrics.top1 is -3.0"),
    "best": ({"best__top1": 2**70}, "best.top1 is 11805"),
    "planned": ({"config__schedule__epochs": "many"}, "schedule.epochs is 'many'"),
    "no list by class": ({"metrics__iou": 5}, "metrics.iou is no list by class"),
    "epochs": ({"epochs": 7000}, "epochs is 7000, not schedule.epochs"),
    "last epoch": ({"metrics__epoch": 10**6}, "metrics.epoch is 1000000"),
    "images": ({"metrics__images": 10**9}, "metrics.images is 1000000000"),
    "steps": ({"steps": 1}, "steps is 1; "),
    "steps below 0": ({"steps": -5}, "steps is -5"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_record_that_was_changed(tmp_path: Path, name: str) -> None:
    changes, says = COUNTS[name]
    held = whole()
    write(tmp_path, held)
    records.read_record(tmp_path / "result.json")
    write(tmp_path, held, **changes)
    with pytest.raises(RfbenchError, match=f"result.json is damaged: cls: {says}") as error:
        records.read_record(tmp_path / "result.json")
    assert "\n" not in str(error.value)


def whole() -> dict[str, Any]:
    """A record of a classification that tells all that is compared."""
    every = (json.loads(p.read_text()) for p in sorted(ROOT.glob("docs/runs/**/result.json")))
    return next(
        held
        for held in every
        if held["kind"] == "cls" and held.get("best") and held["images"].get("val")
    )


OURS = {"classes": ["a"], "metrics": {"top1": 1.0}}
FORMATS = (weight_files.FORMAT, weight_files.SEGMENTERS, "rfbench-detection/1")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_checkpoint_of_ours_tells_its_classes(kind: str) -> None:
    held = {"format": kind, "code": None, **OURS}
    assert weight_files.classes_in(held, "x.pth") == ["a"]
    for wrong, says in (
        ({"classes": None}, "x.pth is damaged: it does not tell its classes"),
        ({"classes": "ab"}, "its classes are no list of names"),
        ({"metrics": {"top1": 101.0}}, "x.pth is damaged, or was changed: metrics.top1 is 101"),
        ({"metrics": 3}, "x.pth is damaged, or was changed: metrics is 3"),
    ):
        with pytest.raises(RfbenchError, match=says):
            weight_files.classes_in({**held, **wrong}, "x.pth")


def test_weights_of_others_tell_none(caplog: pytest.LogCaptureFixture) -> None:
    for held in ({}, {"format": "of timm"}, {"format": 3}, {"arch": "resnet18", "metrics": 5}):
        assert weight_files.classes_in(held, "x.pth") is None
    assert not caplog.messages
    assert weight_files.classes_in({"format": "rfbench-detection/1"}, "x.pth") is None
    assert "x.pth does not tell its classes" in caplog.messages[0]
