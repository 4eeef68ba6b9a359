"""compare, zoo and grid, killed at random moments and run again: whole files, equal figures."""

import csv
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.classify.runs import start_all
from tests.faults import faults

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RUNS = ROOT / "docs" / "runs" / "retinanet"


def job(args: list[str], stderr: str, env: Any) -> None:
    """The command line `rfbench ARGS` in a process of its own group."""
    os.environ.update(env, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    os.setpgid(0, 0)
    os.chdir(ROOT)
    sys.stderr = open(stderr, "a", buffering=1)  # noqa: SIM115
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    from rfbench.cli import main

    main(args)


def start(args: list[str], folder: Path) -> Any:
    return start_all(job, (args, f"{folder}.stderr"), 1)[0]


def compared(folder: Path) -> list[str]:
    return ["compare", str(RUNS), "--format", "csv", "--output", str(folder / "table.csv")]


def table(folder: Path) -> Any:
    path = folder / "table.csv"
    return path.read_text() if path.exists() else None


def zoo(folder: Path) -> list[str]:
    few = ["--library", "timm", "--pattern", "resnet1[48]", "--jobs", "1"]
    return ["rf", "zoo", *few, "--output", str(folder / "zoo")]


def rows(folder: Path) -> Any:
    path = folder / "zoo" / "zoo.csv"
    if not path.exists():
        return None
    with open(path, newline="") as file:
        return [
            {key: value for key, value in row.items() if "second" not in key}
            for row in csv.DictReader(file)
        ]


def grid(folder: Path, variants: Sequence[str] = ("baseline", "1x1")) -> list[str]:
    small = ["data.train_scenes=64", "data.val_scenes=20", "schedule.epochs=1", "data.workers=0"]
    task = {"command": "train-cls", "config": str(ROOT / "configs/cls/digits.yaml")}
    task |= {"variants": [*variants], "override": small}  # type: ignore[dict-item]
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({"output": str(folder / "runs"), "tasks": {"one": task}}))
    return ["grid", str(path), "--jobs", "2"]


def metrics(folder: Path) -> Any:
    found = {p.parent.name: json.loads(p.read_text()) for p in folder.rglob("result.json")}
    return {name: record["metrics"] for name, record in sorted(found.items())} or None


COMMANDS: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], Any]]] = {
    "compare": (compared, table),
    "zoo": (zoo, rows),
    "grid": (grid, metrics),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_kills_and_signals(name: str, tmp_path: Path) -> None:
    args, read = COMMANDS[name]
    for which in ("first", "whole"):  # the first start of all takes longer
        (tmp_path / which).mkdir()
        begun = time.monotonic()
        assert faults.end(start(args(tmp_path / which), tmp_path / which), 900) == 0
        seconds, wanted = time.monotonic() - begun, read(tmp_path / "whole")
    assert wanted and read(tmp_path / "first") == wanted
    counts: Counter[str] = Counter()
    for number, after in enumerate(faults.moments(name, seconds)):
        folder = tmp_path / str(number)
        folder.mkdir()
        started = start(args(folder), folder)
        alive = faults.moment(started, after)
        if number % 3 == 2:  # as a scheduler does
            if alive:
                faults.send_to_group(started, signal.SIGTERM)
            faults.end(started)
        else:
            faults.kill_group(started)
        counts["ended by a signal" if alive else "finished before"] += 1
        if name == "compare":  # the file is whole, or is not there
            assert read(folder) in (None, wanted)
        code = faults.end(start(args(folder), folder), 900)
        assert code == 0, Path(f"{folder}.stderr").read_text()
        assert read(folder) == wanted
        counts["made again, equal"] += 1
    print(f"{name}:", dict(counts))


def one_run(folder: Path) -> list[str]:
    """A grid of one run, so that the disk is full at what its size says; its file is elsewhere."""
    (folder.parent / "grids").mkdir(exist_ok=True)
    args = grid(folder.parent / "grids", ["baseline"])
    return [*args, "--output", str(folder / "runs")]


# KiB; of grid: its log, the run's first files, best.pth, last.pth, the one before it, curves.png
SIZES = {"compare": (4, 16), "zoo": (4, 16), "grid": (4, 16, 20, 500, 1500, 3000, 3850)}


@pytest.mark.parametrize("name", SIZES)
def test_full_disks(name: str, tmp_path: Path) -> None:
    args, read = COMMANDS[name]
    args = one_run if name == "grid" else args
    counts: Counter[str] = Counter()
    for size in SIZES[name][: max(1, faults.COUNT // 4)]:
        with faults.disk(tmp_path / "disk", size) as disk:
            code = faults.end(start(args(disk), tmp_path / "said"), 900)
            text = Path(f"{tmp_path / 'said'}.stderr").read_text()
            assert code in (0, 1, 2) and "Traceback" not in text, text
            counts[f"exit code {code}"] += 1
            print(name, size, code, text.splitlines()[-1:])
            faults.grow(disk)
            assert faults.end(start(args(disk), tmp_path / "said"), 900) == 0, text
            assert read(disk)
    print(f"{name}: disk full:", dict(counts))
