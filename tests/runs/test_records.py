"""The record: one format, with the state of the code and the run that a run started from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rfbench.errors import RfbenchError
from rfbench.runs import records
from tests.report.records import RUNS, record


@pytest.fixture(autouse=True)
def fresh() -> None:
    records.git_state.cache_clear()


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    call = ["git", "-C", str(folder), *who, *args]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


def state(package: Path) -> object:
    """What the copy of records.py in `package` says, in a process of its own."""
    code = "import records, json; print(json.dumps(records.git_state()))"
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=package / "runs", capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_state_of_the_code(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "rfbench"
    (package / "runs").mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(records.__file__, package / "runs")
    assert state(package) is None  # no checkout
    git(package.parent, "init", "-q")
    assert state(package) is None  # a checkout that holds the package as something else
    (tmp_path / "checkout" / ".gitignore").write_text("__pycache__\n")
    git(package.parent, "add", ".")
    git(package, "commit", "-q", "-m", "a")
    commit = git(package, "rev-parse", "HEAD")
    assert state(package) == {"commit": commit, "changed": False}
    (package / "new.py").write_text("")
    assert state(package) == {"commit": commit, "changed": True}


def test_names_that_are_no_text_and_long_commands_lose_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux takes any bytes as a file's name; the record is written after the whole training."""
    monkeypatch.setattr(sys, "argv", ["rfbench", os.fsdecode(b"-o data.root=\xff"), "x" * 20_000])
    folder = tmp_path / os.fsdecode(b"run-\xfe")
    folder.mkdir()
    content = {k: v for k, v in record().items() if k not in ("format", "kind", "name", "git")}
    del content["command"]
    bad = {os.fsdecode("ä".encode() + b"\xff.png"): "half \ud800 a character"}
    written = records.write_record(folder, "cls", {**content, "bad_images": bad})
    assert written["name"] == "run-\\xfe"
    assert written["bad_images"] == {"ä\\xff.png": "half ? a character"}
    assert written["command"] == ["rfbench", "-o data.root=\\xff", "x" * 99 + "..."]
    assert records.read_record(folder / records.RECORD).model_dump()["name"] == "run-\\xfe"


def test_a_record_is_written_and_read(tmp_path: Path) -> None:
    content = {k: v for k, v in record().items() if k not in ("format", "kind", "name", "git")}
    (tmp_path / "x").mkdir()
    written = records.write_record(tmp_path / "x", "cls", content)
    found = records.read_record(tmp_path / "x" / records.RECORD)
    assert found is not None
    assert found.model_dump() == {
        **written,
        "detector": None,
        "stopped_early": None,
        "bad_images_more": 0,
        "network": None,
        "nonzero": None,
        "lr": None,
    }
    assert (found.name, found.format, found.kind) == ("x", records.FORMAT, "cls")


def test_the_parent_is_what_lies_beside_the_checkpoint(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RUNS / "two-1x1-s0", tmp_path / "run"))
    checkpoint = folder / "best.pth"
    assert records.parent(str(checkpoint)) is None  # no such file
    checkpoint.write_bytes(b"")
    found = records.parent(str(checkpoint))
    assert found is not None
    assert (found["checkpoint"], found["variant"], found["seed"]) == (str(checkpoint), "1x1", 0)
    assert found["config"]["schedule"]["epochs"] == 2
    assert "parent" not in found and "network" not in found
    content = {**record("two-1x1-s0"), "network": {"macs": 5, "map": {"png": "A" * 9999}}}
    (folder / records.RECORD).write_text(json.dumps(content))
    found = records.parent(str(checkpoint))
    assert found is not None and found["network"] == {"macs": 5}  # its own record holds the map
    (folder / records.RECORD).write_text("{")
    assert records.parent(str(checkpoint)) is None
    assert records.parent("pretrained") is records.parent(None) is None


def test_a_real_child_names_its_parent() -> None:
    found = records.read_record(RUNS / "tuned-baseline-s0" / records.RECORD)
    assert found is not None and found.parent is not None
    assert found.parent.checkpoint == "results/two-baseline-s0/best.pth"
    assert found.git is not None and len(found.git["commit"]) == 40


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="cannot be read: No such file"):
        records.read_record(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, "steps\n"),
        ({"replaced": None}, "replaced\n"),
        ({"metrisc": {}}, "ClsRecord does not declare metrisc"),
    ],
)
def test_an_undeclared_field_is_an_error_when_the_record_is_written_and_loses_nothing(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        records.write_record(tmp_path, "cls", {**record(), **change})
    assert json.loads((tmp_path / records.RECORD).read_text()).items() >= change.items()
    with pytest.raises(KeyError):
        records.write_record(tmp_path, "clas", record())


def test_every_record_of_today_is_of_its_kinds_model() -> None:
    root = Path(__file__).parents[2]
    paths = [*(root / "docs").rglob(records.RECORD), *(root / "tests").rglob(records.RECORD)]
    assert len(paths) > 100
    for path in paths:
        content = json.loads(path.read_text())
        found = records.read_training(path)
        assert type(found) is records.KINDS[content["kind"]]
        kept = found.model_dump(exclude_unset=True)
        assert kept == content and not found.model_extra


def test_maps_and_audits_are_read_by_the_model_they_are_written_by(tmp_path: Path) -> None:
    for kind, content in {
        "rf": {"config": {}, "panels": [{"model": "a"}], "files": ["maps.png"]},
        "rf-audit": {"audits": [{"model": "a"}], "files": []},
        "rf-tiles": {"tiles": [{"model": "a"}], "files": []},
        "rf-mirror": {"mirrors": [{"model": "a"}], "files": []},
    }.items():
        written = records.write_record(tmp_path, kind, content)
        found = records.read_record(tmp_path / records.RECORD)
        assert type(found) is records.KINDS[kind]
        assert found.model_dump(exclude_unset=True) == written
        with pytest.raises(RfbenchError, match="of kind rf.*, not of a training"):
            records.read_training(tmp_path / records.RECORD)
    with pytest.raises(ValueError, match="holds not one of panels"):
        records.write_record(tmp_path, "rf", {"config": {}})


@pytest.mark.parametrize("name", ["../other/best.pth", "/etc/passwd", "predictions/../../x.png"])
def test_files_outside_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    records.open_folder(tmp_path / "x")
    content = {"config": {}, "panels": [{"model": "a"}], "files": ["predictions/1.png"]}
    records.write_record(tmp_path / "x", "rf", content)
    path = tmp_path / "x" / records.RECORD
    path.write_text(path.read_text().replace("predictions/1.png", name))
    with pytest.raises(RfbenchError, match="is damaged: files.0: .* in its folder"):
        records.read_record(path)
