"""Grids that hold what they should not: one line each, nothing written elsewhere, soon."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from rfbench.cli import main

TASK = {"command": "train-cls", "config": "cls/digits.yaml", "variants": ["baseline"]}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(grid: Any, *args: str) -> tuple[int, str, str]:
    Path("grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    result = CliRunner().invoke(main, ["grid", "grid.yaml", *args])
    return result.exit_code, result.stdout, result.stderr


def of(tasks: Any, **keys: Any) -> dict[str, Any]:
    return {"output": "out", "tasks": tasks, **keys}


NAMES = ("../x", "/x", "a/b", "..", ".", "", "-x", ".x", "a\nError: forged", "\x1b[2J", "a\0b")


@pytest.mark.parametrize("name", [*NAMES, "x" * 101])
def test_a_task_names_a_folder_of_the_output(name: str) -> None:
    code, _, err = run(of({name: TASK}))
    assert code == 2
    assert "names its folder: at most 100 letters" in err
    assert not any(line.startswith("Error: forged") for line in err.splitlines())
    assert [path.name for path in Path().iterdir()] == ["grid.yaml"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no tasks": (of({}), "'tasks': must have at least 1 item"),
    "an open quote": (of({"a": TASK}, launch='python "x'), "No closing quotation"),
    "no launch": (of({"a": TASK}, launch=" "), "'launch': is no command: it is empty"),
    "itself": (of({"a": {**TASK, "weights": "a"}}), "is not an earlier task"),
    "a circle": (of({"a": {**TASK, "weights": "b"}, "b": TASK}), "is not an earlier task"),
    "one folder": (
        of({"a": {**TASK, "variants": ["1x1:layers=a*", "1x1:layers=a?"]}}),
        "would both be in out/a/1x1-layers=a--s0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_line_says_what_is_wrong(name: str) -> None:
    grid, message = WRONG[name]
    code, _, err = run(grid)
    assert (code, message in err) == (2, True), err
    assert not Path("out").exists()


def test_a_launcher_that_is_missing() -> None:
    code, _, err = run(of({"a": TASK}, launch="/no/such/bin"))
    assert (code, err) == (
        1,
        "Error: launch: cannot start /no/such/bin: No such file or directory\n",
    )


def test_variants_that_name_nothing() -> None:
    code, _, err = run(of({"a": TASK}), "--variants", ",")
    assert (code, "--variants: names nothing" in err) == (2, True)


def test_a_file_of_holes() -> None:
    with open("grid.yaml", "wb") as file:
        file.truncate(1 << 40)
    result = CliRunner().invoke(main, ["grid", "grid.yaml"])
    assert (result.exit_code, "it is larger than 256 KB" in result.stderr) == (2, True)


def test_long_chains_are_cut_into_shards_whole() -> None:
    """Deeper than Python's stack; each run with the one that it starts from."""
    chain = {f"t{i}": {**TASK, **({"weights": f"t{i - 1}"} if i else {})} for i in range(1100)}
    begun = time.process_time()
    code, out, err = run(of({**chain, "u": TASK}), "--dry-run", "--shard", "1/2", "--json")
    assert code == 0, err
    assert [run["task"] for run in json.loads(out)] == [*chain]
    assert time.process_time() - begun < 10


def test_a_log_that_is_gone_says_so(tmp_path: Path) -> None:
    """The folder of the runs is deleted while one of them runs."""
    script = tmp_path / "launch.sh"
    script.write_text("#!/bin/sh\nrm -r out\nexit 1\n")
    script.chmod(0o755)
    code, _, err = run(of({"a": TASK}, launch=str(script)))
    assert code == 1
    assert err.splitlines()[-1] == "Error: a baseline s0 failed; see out/a/baseline-s0.log"
    assert "internal" not in err


def test_a_run_that_another_grid_has_just_started_is_waited_for(tmp_path: Path) -> None:
    """It locks its folder only after the second grid has looked: that grid's own run is refused."""
    folder = tmp_path / "out/a/baseline-s0"
    script = tmp_path / "launch.sh"
    script.write_text(
        "#!/bin/sh\n"
        "if mkdir once 2>/dev/null; then\n"
        f"  echo 'Error: another run is writing to {folder}. Wait until it ends.' >&2; exit 1\n"
        "fi\nexit 1\n"
    )
    script.chmod(0o755)
    code, _, err = run(of({"a": TASK}, launch=str(script)))
    # started again, and once only: what the log said before is not said again
    assert (code, (tmp_path / "once").is_dir()) == (1, True)
    assert err.splitlines()[-1].startswith("Error: a baseline s0 failed; see")
    assert (folder.with_name("baseline-s0.log")).read_text().count("another run") == 1
