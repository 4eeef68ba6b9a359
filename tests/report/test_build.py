"""Rows, notes, references, order: from records to the comparison."""

import json
from pathlib import Path
from typing import Any

import pytest

from rfbench.errors import RfbenchError, UsageError
from rfbench.report import formats, metrics, paper
from tests.report.records import RUNS, only, record, report_of, row, seeds, write

DOCS = Path(__file__).parents[2] / "docs/runs"
BASE = [70.0, 71.5, 72.0, 73.0]
BETTER = [80.1, 81.0, 82.3, 83.4]


def test_rows_stand_in_the_papers_order_with_controls_behind(tmp_path: Path) -> None:
    for variant in ("alt:1x1+3x3", "3x3", "blur:3x3", "1x1+3x3", "baseline", "1x1"):
        seeds(tmp_path, variant, [70.0])
    labels = [r.label for r in only(report_of(tmp_path)).rows]
    assert labels == ["baseline", "1x1", "3x3", "1x1+3x3", "alt:1x1+3x3", "blur:3x3"]


def test_means_differences_and_words(tmp_path: Path) -> None:
    seeds(tmp_path, "baseline", BASE)
    seeds(tmp_path, "1x1", BETTER)
    seeds(tmp_path, "3x3", [70.3, 71.1, 72.2, 72.9])
    seeds(tmp_path, "1x1+3x3", [60.2, 61.0, 62.3, 63.4])
    block = only(report_of(tmp_path))
    words = {r.variant: (t := r.cells["top1"].test) and t.word for r in block.rows}
    assert words == {
        "baseline": None, "1x1": "better", "3x3": "within noise", "1x1+3x3": "worse",
    }  # fmt: skip
    cell = row(block, "1x1").cells["top1"]
    assert cell.mean == pytest.approx(sum(BETTER) / 4)
    assert cell.test and cell.test.difference == pytest.approx(sum(BETTER) / 4 - sum(BASE) / 4)
    assert block.notes == []


def test_two_records_of_one_run_stand_alone(tmp_path: Path) -> None:
    seeds(tmp_path, "baseline", BASE)
    seeds(tmp_path, "1x1", BETTER)
    again = {"metrics": {"top1": 1.0, "top5": 2.0}, "variant": "1x1", "config__variant": "1x1"}
    write(tmp_path / "again", record(), seed=0, config__seed=0, **again)
    block = only(report_of(tmp_path))
    assert [r.label for r in block.rows] == [
        "baseline", "1x1", f"1x1 ({tmp_path}/1x1-0)", f"1x1 ({tmp_path}/again)",
    ]  # fmt: skip
    assert row(block, "1x1").cells["top1"].mean == pytest.approx(sum(BETTER[1:]) / 3)
    assert row(block, f"1x1 ({tmp_path}/again)").cells["top1"].test is None
    assert block.notes == ["2 records claim to be 1x1, seed 0: not averaged"]


def test_a_set_that_names_no_background_has_no_column_for_the_foreground(tmp_path: Path) -> None:
    """Its record says null; where a set has a background, a figure that is lost is noted."""
    held = json.loads((DOCS / "segmentation/baseline-s0/result.json").read_text())
    write(tmp_path / "own", held, dataset="own", metrics__foreground_mIoU=None)
    write(tmp_path / "voc", held, dataset="voc", metrics__foreground_mIoU="lost")
    own_set, voc = report_of(tmp_path).groups
    assert "foreground_mIoU" not in own_set.metrics and "foreground_mIoU" in voc.metrics
    assert "foreground" not in " ".join(own_set.blocks[0].notes)
    assert "foreground_mIoU" in " ".join(voc.blocks[0].notes)


def test_runs_of_few_classes_have_no_top5(tmp_path: Path) -> None:
    for seed in range(2):
        change = {"seed": seed, "config__seed": seed, "metrics": {"top1": 50.0 + seed}}
        write(tmp_path / str(seed), record(), **change)
    report = report_of(tmp_path)
    assert [group.metrics for group in report.groups] == [["top1"]]
    assert only(report).notes == []


@pytest.mark.parametrize("bad", [None, "many", True])
def test_a_figure_that_is_none_is_told_and_its_row_stays(tmp_path: Path, bad: Any) -> None:
    seeds(tmp_path, "baseline", BASE)
    seeds(tmp_path, "1x1", [BETTER[0], bad, *BETTER[2:]])
    seeds(tmp_path, "3x3", [bad, bad])
    block = only(report_of(tmp_path))
    assert block.notes == [
        "1x1: top1 missing or not a number in 1 of 4 runs",
        "3x3: top1 missing or not a number in 2 of 2 runs",
    ]
    cell = row(block, "1x1").cells["top1"]
    assert (sorted(cell.values), cell.missing) == ([0, 2, 3], 1)
    assert cell.test and cell.test.seeds == 3
    lines = formats.table(report_of(tmp_path)).splitlines()
    assert any(line.startswith("3x3") and "–" in line for line in lines)
    assert any(line.startswith("top1    3x3") and "no figures" in line for line in lines)
    assert any(line.startswith("top1    1x1") and "3 of 4" in line for line in lines)


def test_a_setting_without_a_baseline_is_shown_and_says_so(tmp_path: Path) -> None:
    seeds(tmp_path, "1x1", BETTER)
    block = only(report_of(tmp_path))
    assert row(block, "1x1").cells["top1"].test is None
    assert block.notes == ["no run of baseline in this setting: no differences, no tests"]


def test_another_baseline(tmp_path: Path) -> None:
    seeds(tmp_path, "baseline", BASE)
    seeds(tmp_path, "1x1", BETTER)
    block = only(report_of(tmp_path, baseline="1x1"))
    test = row(block, "baseline").cells["top1"].test
    assert test and test.word == "worse"
    with pytest.raises(UsageError, match="no run is of '3x3'. There are: baseline, 1x1."):
        report_of(tmp_path, baseline="3x3")


def test_step_time_is_of_one_device(tmp_path: Path) -> None:
    def run(name: str, speed: float, device: str, seed: int) -> None:
        own = {"variant": name, "config__variant": name, "seed": seed, "config__seed": seed}
        write(tmp_path / f"{name}{seed}", record(), images_per_s=speed, device=device, **own)

    for seed, speed in enumerate((100.0, 110.0, 300.0)):
        run("baseline", speed, "cpu", seed)
        run("1x1", speed / 2, "cpu", seed)
    run("baseline", 5000.0, "H100", 3)
    run("3x3", 5000.0, "A100", 0)
    block = only(report_of(tmp_path))
    assert row(block, "1x1").step_time == pytest.approx(2.0)
    assert row(block, "3x3").step_time is None
    assert block.notes == ["3 devices: A100, H100, cpu"]


def test_detectors_that_share_a_classifier_say_so(tmp_path: Path) -> None:
    child = record("tuned-baseline-s0")
    for seed in (0, 1):
        write(tmp_path / f"{seed}", child, seed=seed, config__seed=seed)
    assert "one classifier" in only(report_of(tmp_path)).notes[0]
    write(tmp_path / "1", child, seed=1, config__seed=1, parent__seed=1)
    assert only(report_of(tmp_path)).notes == []


# --- which figures ------------------------------------------------------------------------------


def detection(folder: Path, model: str, figures: dict[str, Any], **changes: Any) -> None:
    detector = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    own = {"kind": "det", "detector": detector, "model": model, "dataset": "coco"}
    config = {"detector": detector, "model": model, "variant": "baseline", "seed": 0}
    write(folder, {**record(), **own, "config": config, "metrics": figures}, **changes)


AP = dict(zip(paper.AP, (30.0, 50.0, 33.0, None, 31.0, 40.0), strict=True))


def test_masks_and_boxes(tmp_path: Path) -> None:
    figures = {"bbox": AP, "segm": {**AP, "classes": {"cat": 30.0}}, "jitter": {"jitter": 0.5}}
    detection(tmp_path / "a", "resnet50", figures)
    (group,) = report_of(tmp_path).groups
    assert group.metrics == [f"{task}.{name}" for task in ("segm", "bbox") for name in paper.AP]
    text = formats.table(report_of(tmp_path))
    assert "mask_rcnn_R_50_FPN_1x: resnet50 on coco" in text
    assert "- mask APs, box APs: missing or not a number in every run" in text
    for name, found in {
        "AP": ["bbox.AP", "segm.AP"],
        "mask AP75": ["segm.AP75"],
        "bbox.APl": ["bbox.APl"],
        "cat": ["segm.classes.cat"],
    }.items():
        (group,) = report_of(tmp_path, metrics=(name,)).groups
        assert group.metrics == found
    with pytest.raises(UsageError, match="no run has the metric 'AP57'. Did you mean: AP75"):
        report_of(tmp_path, metrics=("AP57",))


def test_a_group_without_the_metric_is_left_out_aloud(tmp_path: Path) -> None:
    detection(tmp_path / "a", "resnet50", {"bbox": AP})
    seeds(tmp_path, "baseline", BASE)
    report = report_of(tmp_path, metrics=("top1",))
    assert [group.kind for group in report.groups] == ["cls"]
    assert report.problems == [
        "mask_rcnn_R_50_FPN_1x: resnet50 on coco: skipped; none of its runs has top1"
    ]


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("top1", 1), ("train_top1", 1), ("bbox.AP75", 1), ("segm.classes.cat", 1),
     ("registration.AP90", 1), ("loss", -1), ("train_loss", -1), ("jitter.jitter", -1),
     ("registration.dx", 0), ("jitter.jitter_se", 0), ("images", 0)],
)  # fmt: skip
def test_directions(metric: str, direction: int) -> None:
    assert metrics.direction(metric) == direction


# --- the paper, the order -----------------------------------------------------------------------


def test_the_paper_beside_ours_where_it_belongs(tmp_path: Path) -> None:
    recipe = {"model": "torchvision:resnet50", "dataset": "imagenet", "config__model": "resnet50"}
    data = {"name": "imagenet"}
    config = {"model": "resnet50", "variant": "baseline", "data": data, "seed": 0}
    own = {**record(), **recipe, "config": config, "images": {"train": 1, "val": 50_000}}
    write(tmp_path / "a", own)
    write(tmp_path / "b", own, config__batch_size=256, batch__global=256)
    write(tmp_path / "c", own, config__batch_size=256, seed=1, batch__global=256)
    groups = report_of(tmp_path, reference=True).groups
    assert [group.title for group in groups] == [
        "Classification: resnet50 on imagenet",
        "mask_rcnn_R_50_FPN_1x: resnet50 on coco",
        "retinanet_R_50_FPN_1x: resnet50 on coco",
    ]
    other, nearest = groups[0].blocks
    assert {r.source for r in other.rows} == {"ours"}
    assert nearest.keys == {"batch_size": "4096"}
    assert [(r.variant, r.source) for r in nearest.rows][:4] == [
        ("baseline", "ours"), ("baseline", "paper"), ("1x1", "not run"), ("1x1", "paper"),
    ]  # fmt: skip
    published = row(nearest, "1x1 (paper)").cells["top1"]
    assert published.test and published.test.difference == pytest.approx(0.44)
    assert published.test.word == ""
    assert "(paper): table 2" in nearest.notes[-1]


def test_departures_from_the_papers_recipe_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a", record(), model="torchvision:resnet50", dataset="imagenet")
    block = report_of(tmp_path, reference=True).groups[0].blocks[0]
    assert block.notes[-1].startswith(
        "our recipe differs from the paper's: optim.name=adamw, optim.lr="
    )
    assert "schedule.epochs=2" in block.notes[-1]
    assert "images.val=500" in block.notes[-1]


def test_the_paper_without_runs(tmp_path: Path) -> None:
    assert len(report_of(tmp_path, reference=True).groups) == 3
    report = report_of(tmp_path, reference=True, kinds=("cls",), metrics=("top5",))
    assert [group.metrics for group in report.groups] == [["top5"]]
    lines = [line.split() for line in formats.table(report).splitlines()]
    assert ["1x1", "✓", "not", "run", "4.75", "M", "-5.35", "0.3000"] in lines
    assert ["1x1", "(paper)", "✓", "93.28", "+0.28"] in lines


def test_the_published_differences_of_both_to_the_baseline_by_hand() -> None:
    found = []
    for table in paper.TABLES:
        pairs = zip(table.rows["1x1+3x3"], table.rows["baseline"], strict=True)
        found.append([round(both - base, 2) for both, base in pairs])
    assert found == [
        [0.14, 0.29],
        [1.40, 1.47, 2.11, 0.32, 2.44, 1.56],
        [1.44, 1.76, 1.82, 0.39, 1.96, 1.88],
    ]


@pytest.mark.parametrize(
    ("column", "first"),
    [("top1", "1x1"), ("shift", "1x1+3x3"), ("variant", "baseline"), ("macs", "baseline"),
     ("seeds", "baseline"), ("gridding", "baseline"),
     ("Δ", "1x1"), ("shift (px)", "1x1+3x3"), ("MACs at 48 px", "baseline")],
)  # fmt: skip
def test_sorted_by_a_column(tmp_path: Path, column: str, first: str) -> None:
    seeds(tmp_path, "baseline", BASE)
    seeds(tmp_path, "1x1", BETTER)
    seeds(tmp_path, "1x1+3x3", BASE[:1])
    seeds(tmp_path, "3x3", [None])
    rows = only(report_of(tmp_path, sort=column)).rows
    assert rows[0].variant == first
    assert column not in ("top1", "Δ") or rows[-1].variant == "3x3"


def test_an_unknown_column(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no column 'shfit'. Did you mean: shift?"):
        report_of(RUNS, sort="shfit")


def test_nothing_found_says_where_and_what_there_was(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="no finished runs in .* and below .no result.json."):
        report_of(tmp_path)
    (tmp_path / "last.pth").write_text("")
    with pytest.raises(RfbenchError, match="1 that cannot be used"):
        report_of(tmp_path)
    with pytest.raises(RfbenchError, match="no finished runs of det .*13 of another kind"):
        report_of(RUNS, kinds=("det",))
