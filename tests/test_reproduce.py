"""The grid runner, with real runs: order, what is left alone, failures, a kill and the way on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SMALL = ["data.train_scenes=64", "data.val_scenes=20", "schedule.epochs=1", "data.workers=0"]


def write(folder: Path, **tasks: dict) -> Path:
    """A grid of small runs."""
    held = {"command": "train-cls", "config": str(ROOT / "configs/cls/digits.yaml")}
    grid = {
        "output": str(folder / "runs"),
        "tasks": {
            name: {**held, **task, "override": [*SMALL, *task.get("override", [])]}
            for name, task in tasks.items()
        },
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(grid, sort_keys=False))
    return path


def start(*args: object) -> subprocess.Popen:
    """The script as a process."""
    command = [sys.executable, str(ROOT / "scripts/reproduce.py"), *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def run(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = start(*args)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_grid_and_what_is_left_alone(tmp_path: Path) -> None:
    grid = write(tmp_path, first={"variants": ["baseline", "1x1"]})
    code, out, err = run(grid, "--jobs", 2)
    assert (code, out) == (0, "2 of 2 runs finished\n"), err
    records = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("runs/first/*/result.json"))]
    assert [record["variant"] for record in records] == ["1x1", "baseline"]
    held = (tmp_path / "runs/first/1x1-s0/result.json").stat().st_mtime_ns
    code, out, _ = run(grid, "--seeds", 2, "--dry-run")
    assert [line.endswith("# finished") for line in out.splitlines()] == [True, True, False, False]
    assert run(grid)[0] == 0
    assert (tmp_path / "runs/first/1x1-s0/result.json").stat().st_mtime_ns == held
    # the same names with other settings are another grid
    write(tmp_path, first={"variants": ["baseline"], "override": ["optim.lr=0.5"]})
    code, _, err = run(grid)
    assert code == 2
    assert err.startswith("Error: ") and "was run with another optim; delete it" in err


def test_what_fails_is_told_at_the_end(tmp_path: Path) -> None:
    grid = write(
        tmp_path,
        bad={"variants": ["1x1"], "override": ["optim.lr=1e30"]},
        good={"variants": ["1x1"]},
        heir={"variants": ["1x1"], "weights": "bad"},
    )
    code, out, err = run(grid, "--jobs", 2)
    assert (code, out) == (1, "1 of 3 runs finished\n")
    assert "Error: bad 1x1 s0 failed: see " in err
    assert "Error: heir 1x1 s0 skipped: its classifier failed" in err
    assert "the loss of update" in (tmp_path / "runs/bad/1x1-s0.log").read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_or_killed_it_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    epochs = ["schedule.epochs=40", "checkpoint.every=5"]
    grid = write(tmp_path, long={"variants": ["baseline"], "override": epochs})
    process = start(grid)
    last = tmp_path / "runs/long/baseline-s0/last.pth"
    until = time.time() + 60
    while not last.exists() and time.time() < until:
        time.sleep(0.05)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err.endswith("The same command goes on.\n")
        assert "and saved in" in last.parent.with_name("baseline-s0.log").read_text()
    else:  # the run itself has not been killed, and holds its folder
        subprocess.run(["pkill", "-KILL", "-f", str(last.parent)], check=False)
        time.sleep(0.5)
    assert last.exists() and not (last.parent / "result.json").exists()
    code, out, err = run(grid)
    assert (code, out) == (0, "1 of 1 runs finished\n"), err
    lines = [json.loads(line) for line in (last.parent / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["split"] == "val"] == list(range(40))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": {}, "outptu": "x"}, "did you mean 'output'?"),
        ({"output": "x", "tasks": {"a": {"command": "train"}}}, "tasks.a.command"),
    ],
)
def test_a_bad_grid_is_one_line_each(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(change))
    code, _, err = run(path)
    assert code == 2 and message in err and "Traceback" not in err


def test_weights_of_no_task_before(tmp_path: Path) -> None:
    grid = write(tmp_path, heir={"variants": ["1x1"], "weights": "first"})
    assert "weights names 'first', which is no task before it" in run(grid)[2]
    assert (
        "no task 'b'; there is: heir"
        in run(write(tmp_path, heir={"variants": ["1x1"]}), "--only", "b")[2]
    )


@pytest.mark.parametrize("name", ["paper", "digits"])
def test_the_shipped_grids_expand(name: str) -> None:
    code, out, err = run(ROOT / f"configs/grids/{name}.yaml", "--dry-run")
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == {"paper": 12, "digits": 94}[name]
    for line in lines:
        config = line.split("train-")[1].split()[1]
        assert (ROOT / config).exists(), config
