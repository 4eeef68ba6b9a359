"""Records as the trainings print them, also where something is not known."""

import importlib
import json
from pathlib import Path

import pytest

RUNS = Path(__file__).parents[2] / "docs" / "runs"
KINDS = {
    "classify": "classification/baseline-s0",
    "segment": "segmentation/baseline-s0",
    "detect": "retinanet/baseline-s0",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_speed_that_is_not_known(kind: str) -> None:
    """metrics.jsonl was emptied before --resume: not 0 images/s, nor a damaged record."""
    if kind == "detect":
        pytest.importorskip("detectron2")
    table = importlib.import_module(f"rfbench.{kind}.table").table
    record = json.loads((RUNS / KINDS[kind] / "result.json").read_text())
    known = f"{record['images_per_s']:.{kind == 'detect':d}f} images/s on "
    shown = table(record)
    assert known in shown
    wanted = shown.replace(known, "images/s not known on ")
    assert table({**record, "images_per_s": None}) == wanted
