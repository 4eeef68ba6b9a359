"""Which folders are runs, and which of them may be averaged."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rfbench.errors import UsageError
from rfbench.report import formats
from rfbench.report.runs import Run, disputed, find, settings
from rfbench.runs import records
from tests.report.records import RUNS, copied, record, report_of, rf_record, write


def runs_of(*contents: dict[str, Any]) -> list[Run]:
    found = [records.KINDS[content["kind"]].model_validate(content) for content in contents]
    return [
        Run(Path(f"run{i}"), one)
        for i, one in enumerate(found)
        if isinstance(one, records.TrainingRecord)
    ]


def changed(name: str = "two-baseline-s0", **changes: Any) -> dict[str, Any]:
    content = record(name)
    for key, value in changes.items():
        *parts, last = key.split("__")
        path = content
        for part in parts:
            path = path[part]
        path[last] = value
    return content


def test_all_runs_below_a_folder_once() -> None:
    found = find([RUNS, RUNS / "two-1x1-s0"])
    assert len(found.runs) == 13
    assert not found.problems
    assert {run.group for run in found.runs} == {
        ("cls", "", "rfbench.classify.nets:resnet14", "digits")
    }


def test_a_linked_folder_is_read_and_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(RUNS / "two-1x1-s0")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert len(find([tmp_path]).runs) == 1


NEWER = json.dumps({**record(), "format": "rfbench-record/2"})
WITHOUT = json.dumps({k: v for k, v in record().items() if k != "metrics"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", "", "is unfinished: it has metrics.jsonl but no result.json"),
        ("last.pth", "", "is unfinished: it has last.pth but no result.json"),
        ("result.json", '{"format": "rfben', "is damaged: Unterminated string"),
        ("result.json", "", "is damaged"),
        ("result.json", "[1]", "is not a record of rfbench"),
        ("result.json", '{"accuracy": 0.7}', "is not a record of rfbench"),
        ("result.json", NEWER, "is of format rfbench-record/2; this version of rfbench reads"),
        ("result.json", WITHOUT, "is damaged: metrics: Field required"),
        (
            "result.json",
            json.dumps({**record(), "kind": "pose"}),
            "is of kind pose; this version",
        ),
        (
            "result.json",
            json.dumps(rf_record(panels=None)),
            "is damaged: rf: holds not one of",
        ),
        (
            "result.json",
            json.dumps(changed(variant="5x", config__variant="5x")),
            "unknown variant '5x'",
        ),
    ],
)
def test_what_is_not_a_finished_run_is_reported_in_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    root = copied(tmp_path)
    (root / "x").mkdir()
    (root / "x" / name).write_text(text)
    found = find([root])
    assert len(found.runs) == 13
    (problem,) = found.problems
    assert message in problem
    assert str(root / "x") in problem
    assert "\n" not in problem


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(b"\xff\xfe\x00")
    (problem,) = find([tmp_path]).problems
    assert "is damaged" in problem


def test_records_of_receptive_fields_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a", rf_record())
    write(tmp_path / "b", rf_record(kind="rf-audit", audits=[]))
    found = find([tmp_path])
    assert (found.maps, found.runs, found.problems) == (2, [], [])


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        find([tmp_path / "nowhere"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: it is a file"):
        find([tmp_path / "file"])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1, "config__seed": 1},
        {"variant": "1x1", "config__variant": {"kernels": [1], "pool": "avg"}},
        {"config__data__root": "/elsewhere", "device": "NVIDIA H100", "config__device": "cuda"},
        {"config__data__workers": 3, "config__log_every": 7, "config__tensorboard": True},
        {"config__checkpoint__every": 3, "config__data__train_scenes": None},
    ],
)
def test_free_keys_do_not_part_runs(change: dict[str, Any]) -> None:
    (setting,) = settings(runs_of(record(), changed(**change)))
    assert setting.keys == {}
    assert len(setting.runs) == 2


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"config__schedule__epochs": 10, "epochs": 10}, {"schedule.epochs": "10"}),
        ({"config__threads": None}, {"threads": "null"}),
        ({"precision": "bf16"}, {"precision": "bf16"}),
        ({"images__train": 9}, {"images.train": "9"}),
        ({"batch__per_batchnorm": 16}, {"batch.per_batchnorm": "16"}),
        ({"config__optim__betas": [0.5, 0.9]}, {"optim.betas": "[0.5, 0.9]"}),
        ({"config__opts": {"MODEL": {"NORM": ""}}}, {"opts.MODEL.NORM": '""'}),
    ],
)
def test_any_other_key_parts_them_and_is_named(
    change: dict[str, Any], keys: dict[str, str]
) -> None:
    first, second = settings(runs_of(record(), record(), changed(**change)))
    assert (len(first.runs), len(second.runs)) == (2, 1)
    assert second.keys == keys
    assert first.keys.keys() == keys.keys()


def test_the_real_runs_by_setting() -> None:
    found = settings(find([RUNS]).runs)
    assert [(len(s.runs), s.keys) for s in found] == [
        (10, {"init.weights": "null", "schedule.epochs": "2"}),
        (2, {"init.weights": "null", "schedule.epochs": "1"}),
        (1, {"init.weights": "best.pth", "schedule.epochs": "1"}),
    ]


def test_parents_that_differ_part_runs() -> None:
    child = record("tuned-baseline-s0")
    same = changed(
        "tuned-baseline-s0", seed=1, config__seed=1, config__init__weights="elsewhere/best.pth"
    )
    config = {**child["parent"]["config"], "seed": 1}
    same["parent"] = {**child["parent"], "seed": 1, "config": config}
    assert len(settings(runs_of(child, same))) == 1
    longer = changed("tuned-baseline-s0", parent__config__schedule__epochs=5)
    assert [s.keys for s in settings(runs_of(child, same, longer))] == [
        {"parent.schedule.epochs": "2"},
        {"parent.schedule.epochs": "5"},
    ]
    unknown = changed("tuned-baseline-s0", parent=None)
    assert [s.keys["parent"] for s in settings(runs_of(child, unknown))] == ["known", "unknown"]
    last = changed("tuned-baseline-s0", config__init__weights="x/last.pth")
    assert {"init.weights": "last.pth"} in [s.keys for s in settings(runs_of(child, last))]


def test_the_name_of_a_model_is_the_same_however_it_is_written() -> None:
    def group(model: str) -> str:
        (run,) = runs_of(changed(model=model, config__model=model))
        return run.group[2]

    assert group("torchvision:resnet50") == group("resnet50") == "resnet50"
    assert group("timm:resnet50") == "timm:resnet50"
    assert group("/a/own.py:net") == group("b/own.py:net") == "own.py:net"


def test_records_that_claim_the_same_run() -> None:
    runs = runs_of(record(), record(), changed(seed=1, config__seed=1))
    assert disputed(runs) == {Path("run0"), Path("run1")}


@pytest.mark.parametrize("value", [None, "x", [], {}, -1, {"a": {"b": None}}])
def test_a_wrong_field_is_a_damaged_record_never_a_traceback(tmp_path: Path, value: Any) -> None:
    whole = record("tuned-baseline-s0")
    paths = [(key,) for key in whole] + [("parent", key) for key in whole["parent"]]
    for path in paths:
        content = copy.deepcopy(whole)
        inner = content if len(path) == 1 else content["parent"]
        inner[path[-1]] = value
        write(tmp_path / "x", content)
        write(tmp_path / "y", whole)
        report = report_of(tmp_path, reference=True)
        assert formats.table(report)
        shown = [run for g in report.groups for b in g.blocks for r in b.rows for run in r.runs]
        assert len(shown) + len(report.problems) == 2, path
