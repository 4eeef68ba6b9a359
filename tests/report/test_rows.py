"""`compare --rows`: other keys than the variant, such as the model, compared over seeds."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scipy import stats

from rfbench.cli import main
from rfbench.errors import UsageError
from rfbench.report import formats, sheets
from tests.report.records import only, record, report_of, row, write

PRUNE = {"sparsity": 0.75, "schedule": "constant", "begin": 0, "end": 9, "every": 3}
STRIDED, DILATED = [70.0, 71.5, 72.0, 73.0], [80.1, 81.0, 82.3, 83.4]


def runs(root: Path, model: str, top1: list[float], prune: Any = None, variant: str = "") -> None:
    for seed, value in enumerate(top1):
        change = {"model": f"nets.py:{model}", "config__model": f"nets.py:{model}"}
        change |= {"config__prune": prune} if prune else {}
        change |= {"variant": variant, "config__variant": variant} if variant else {}
        figures = {"top1": value, "top5": 90.0 + seed}
        name = f"{model}-{variant}-{bool(prune)}-{seed}"
        write(root / name, record(), **change, seed=seed, config__seed=seed, metrics=figures)


def test_models_are_compared_over_seeds(tmp_path: Path) -> None:
    runs(tmp_path, "strided", STRIDED)
    runs(tmp_path, "dilated", DILATED)
    assert len(report_of(tmp_path).groups) == 2  # as ever: models apart
    report = report_of(tmp_path, rows=("model",), baseline="strided")
    assert report.groups[0].title == "Classification on digits"
    block = only(report)
    assert [(r.label, len(r.runs)) for r in block.rows] == [("dilated", 4), ("strided", 4)]
    test = row(block, "dilated").cells["top1"].test
    assert test and test.word == "better"
    assert test.p == pytest.approx(float(stats.ttest_rel(DILATED, STRIDED).pvalue))
    text = formats.table(report)
    assert "dilated" in text and "against strided in the same setting" in text


def test_without_a_baseline_nothing_is_tested(tmp_path: Path) -> None:
    runs(tmp_path, "strided", STRIDED)
    runs(tmp_path, "dilated", DILATED)
    block = only(report_of(tmp_path, rows=("model",)))
    assert row(block, "dilated").cells["top1"].test is None
    assert block.notes[0] == "no run of baseline in this setting: no differences, no tests"


def test_pruned_runs_are_rows_of_their_own(tmp_path: Path) -> None:
    runs(tmp_path, "cascade", STRIDED)
    runs(tmp_path, "cascade", DILATED, PRUNE)
    assert len(only(report_of(tmp_path, rows=("model", "prune"))).rows) == 2
    labels = [r.label for r in only(report_of(tmp_path, rows=("model", "prune"))).rows]
    assert labels == ["cascade", "cascade, prune 0.75"]
    # with the model alone they differ in more than their row: settings apart, never averaged
    (group,) = report_of(tmp_path, rows=("model",)).groups
    assert [len(block.rows[0].runs) for block in group.blocks] == [4, 4]
    assert {block.keys["prune.sparsity"] for block in group.blocks} == {"0.75", "not set"}
    told = [sheets.settings_line(block) for block in group.blocks]
    assert "prune=not set" in told and any("prune.sparsity=0.75" in line for line in told)


def test_a_row_is_named_after_what_differs(tmp_path: Path) -> None:
    runs(tmp_path, "cascade", STRIDED)
    runs(tmp_path, "cascade", DILATED, PRUNE)
    runs(tmp_path, "dilated", DILATED, {**PRUNE, "sparsity": 0.85, "begin": 4})
    runs(tmp_path, "wide", STRIDED, {**PRUNE, "begin": None})
    labels = [r.label for r in only(report_of(tmp_path, rows=("model", "prune"))).rows]
    assert sorted(labels) == [
        "cascade",
        "cascade, prune 0.75 0",
        "dilated, prune 0.85 4",
        "wide, prune 0.75 null",
    ]


def test_a_variant_is_not_averaged_with_another(tmp_path: Path) -> None:
    runs(tmp_path, "strided", STRIDED)
    runs(tmp_path, "strided", DILATED, variant="1x1")
    (group,) = report_of(tmp_path, rows=("model",)).groups
    assert [block.keys for block in group.blocks] == [{"variant": "1x1"}, {"variant": "baseline"}]
    block = only(report_of(tmp_path, rows=("model", "variant"), baseline="strided, baseline"))
    assert row(block, "strided, 1x1").cells["top1"].test


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    runs(tmp_path, "strided", STRIDED)
    with pytest.raises(UsageError, match="Did you mean: model"):
        report_of(tmp_path, rows=("modle",))
    with pytest.raises(UsageError, match="--baseline: no run is of 'dilated'. There are: strided"):
        report_of(tmp_path, rows=("model",), baseline="dilated")
    with pytest.raises(UsageError, match="--reference compares variants"):
        report_of(tmp_path, rows=("model",), reference=True)


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv", "json", "html"])
def test_every_format(form: str, tmp_path: Path) -> None:
    runs(tmp_path, "strided", STRIDED)
    runs(tmp_path, "dilated", DILATED, PRUNE)
    command = ["compare", str(tmp_path), "--rows", "model,prune", "--baseline", "strided"]
    result = CliRunner().invoke(main, [*command, "--format", form])
    assert result.exit_code == 0, result.output
    assert "strided" in result.stdout and "dilated" in result.stdout
