"""What the page draws of a setting: curves over steps, differences on one scale."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rfbench.report import curves, differences
from tests.report.records import RUNS, only, record, report_of, row, seeds, write


def panels(folder: Path, *lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The first series of every panel, of seeds with these lines of metrics."""
    for seed, own in enumerate(lines):
        run = write(folder / str(seed), record(), seed=seed, config__seed=seed)
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, own)))
    report = report_of(folder)
    block = only(report)
    drawn = curves.curves(report.groups[0], block, ["k"])
    return {panel["title"]: panel["series"][0] for panel in drawn}


def val(*points: tuple[int, float | None]) -> list[dict[str, Any]]:
    return [{"split": "val", "step": step, "top1": value} for step, value in points]


def test_the_mean_and_the_range_of_seeds(tmp_path: Path) -> None:
    drawn = panels(tmp_path, val((1, 0.0), (2, 10.0)), val((1, 4.0), (2, 30.0)))["top1"]
    assert drawn["x"] == [1, 2]  # a value of 0 is one
    assert (drawn["mean"], drawn["low"], drawn["high"]) == ([2, 20], [0, 10], [4, 30])
    assert (drawn["key"], drawn["label"]) == ("k", "baseline")


def test_beyond_its_end_a_seed_is_not_known(tmp_path: Path) -> None:
    drawn = panels(tmp_path, val((1, 1.0), (2, 2.0), (3, 3.0)), val((1, 5.0), (2, 6.0)))["top1"]
    assert (drawn["x"], drawn["mean"]) == ([1, 2], [3, 4])


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    drawn = panels(tmp_path, val(*((i, i / 64) for i in range(1, 5001))))["top1"]
    assert len(drawn["x"]) <= curves.POINTS
    assert drawn["mean"] == pytest.approx([x / 64 for x in drawn["x"]], rel=1e-5)


def test_one_evaluation_is_no_curve(tmp_path: Path) -> None:
    assert panels(tmp_path, val((1, 1.0), (2, None))) == {}


def test_strips_of_a_metric_are_on_one_scale() -> None:
    """Bars are as long as the differences, from the same 0."""
    report = report_of(RUNS)
    group = report.groups[0]
    block = group.blocks[0]
    keys = [str(i) for i in range(len(block.rows))]
    text = str(differences.table(group, block, keys, "baseline"))
    rows = re.findall(r'<tr data-key="(\d+)">(.*?)</tr>', text, re.DOTALL)
    assert len(rows) == 3
    bars = {
        int(key): re.search(r'x="([\d.]+)" y="5" width="([\d.]+)"', cells) for key, cells in rows
    }
    means = {i: r.cells["top1"].mean for i, r in enumerate(block.rows)}
    base = row(block, "baseline").cells["top1"].mean
    assert len({bar[1] for bar in bars.values() if bar}) == 1
    per_point = {float(bar[2]) / (means[i] - base) for i, bar in bars.items() if bar}
    assert max(per_point) == pytest.approx(min(per_point), rel=1e-3)


def test_without_a_baseline_there_is_no_difference(tmp_path: Path) -> None:
    seeds(tmp_path, "1x1", [1.0, 2.0])
    report = report_of(tmp_path)
    assert differences.table(report.groups[0], only(report), ["k"], "baseline") is None
