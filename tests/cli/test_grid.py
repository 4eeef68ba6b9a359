"""`rfbench grid`, with real runs: order, shards, failures, interrupts and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rfbench.cli import main

ROOT = Path(__file__).parents[2]
SMALL = ["data.train_scenes=64", "data.val_scenes=20", "schedule.epochs=1", "data.workers=0"]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


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
    """The command as a process, in the checkout."""
    command = [sys.executable, "-m", "rfbench", "grid", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command in this process, which has torch; its runs are
    processes in any case.
    """
    result = CliRunner().invoke(main, ["grid", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_a_grid_and_what_is_left_alone(tmp_path: Path) -> None:
    grid = write(tmp_path, first={"variants": ["baseline", "1x1"]})
    code, out, err = run(grid, "--jobs", 2)
    assert (code, out) == (0, "2 of 2 runs finished\n"), err
    assert err.endswith(f"Compare them: rfbench compare {tmp_path / 'runs'}\n")
    records = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("runs/first/*/result.json"))]
    assert [record["variant"] for record in records] == ["1x1", "baseline"]
    held = (tmp_path / "runs/first/1x1-s0/result.json").stat().st_mtime_ns
    code, out, _ = run(grid, "--seeds", 2, "--dry-run")
    assert [line.endswith("  # finished") for line in out.splitlines()] == [
        True,
        True,
        False,
        False,
    ]
    assert run(grid)[0] == 0
    assert (tmp_path / "runs/first/1x1-s0/result.json").stat().st_mtime_ns == held
    # the same names with other settings are another grid
    write(tmp_path, first={"variants": ["baseline"], "override": ["optim.lr=0.5"]})
    code, _, err = run(grid)
    assert code == 2
    assert (
        err.startswith("Error: ")
        and "was started with optim.lr = " in err
        and "now it is 0.5" in err
    )


def test_what_fails_is_named_with_its_log(tmp_path: Path) -> None:
    grid = write(
        tmp_path,
        bad={"variants": ["1x1"], "override": ["optim.lr=1e30"]},
        good={"variants": ["1x1"]},
        heir={"variants": ["1x1"], "weights": "bad"},
    )
    code, out, err = run(grid, "--jobs", 2)
    assert (code, out) == (1, "1 of 3 runs finished\n")
    assert "Error: bad 1x1 s0 failed; see " in err
    assert "Error: heir 1x1 s0 skipped: the run that it starts from failed" in err
    assert "the loss at step" in (tmp_path / "runs/bad/1x1-s0.log").read_text()


def started(tmp_path: Path, *args: object) -> tuple[subprocess.Popen, Path, Path]:
    """A grid of a long run that has just saved: the process, the grid's file, the run's folder."""
    epochs = ["schedule.epochs=15", "checkpoint.every=5"]
    grid = write(tmp_path, long={"variants": ["baseline"], "override": epochs})
    process = start(grid, *args)
    folder = tmp_path / "runs/long/baseline-s0"
    until = time.time() + 200
    while not (folder / "last.pth").exists() and time.time() < until:
        time.sleep(0.05)
    assert (folder / "last.pth").exists()
    return process, grid, folder


def is_whole(folder: Path) -> None:
    """The run has every epoch once."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["split"] == "val"] == list(range(15))


def children(process: subprocess.Popen) -> list[int]:
    """The processes that a process has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_interrupted_it_saves_and_continues(tmp_path: Path, number: signal.Signals) -> None:
    process, grid, folder = started(tmp_path, "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("The same command continues them.\n")
    assert [held["state"] for held in json.loads(out)] == ["interrupted"]
    assert "and saved in" in folder.with_name("baseline-s0.log").read_text()
    assert not (folder / "result.json").exists()
    code, out, _ = run(grid, "--dry-run")
    assert code == 0 and "  # interrupted, step " in out
    code, out, err = run(grid)
    assert (code, out) == (0, "1 of 1 runs finished\n"), err
    is_whole(folder)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_killed_with_its_runs_it_continues(tmp_path: Path) -> None:
    process, grid, folder = started(tmp_path)
    (child,) = children(process)
    process.kill()
    os.killpg(child, signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (folder / "result.json").exists()
    code, out, err = run(grid)
    assert (code, out) == (0, "1 of 1 runs finished\n"), err
    is_whole(folder)


def test_killed_without_its_runs_they_are_waited_for(tmp_path: Path) -> None:
    process, grid, folder = started(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    (held,) = json.loads(run(grid, "--dry-run", "--json")[1])
    assert held["state"] == "running in another process"
    code, out, err = run(grid)
    assert (code, out) == (0, "1 of 1 runs finished\n"), err
    assert "waiting for long baseline s0" in err
    is_whole(folder)
    assert "is already finished" in folder.with_name("baseline-s0.log").read_text()


def test_shards_divide_the_chains(tmp_path: Path) -> None:
    grid = write(
        tmp_path,
        first={"variants": ["baseline", "1x1", "3x3"], "seeds": 2},
        heir={"variants": ["1x1", "3x3"], "seeds": 2, "weights": "first"},
    )

    def listed(*args: object) -> list[dict]:
        code, out, err = run(grid, "--dry-run", "--json", *args)
        assert code == 0, err
        return json.loads(out)

    whole, shards = listed(), [listed("--shard", f"{i}/4") for i in (1, 2, 3, 4)]
    folders = [run["folder"] for shard in shards for run in shard]
    assert sorted(folders) == sorted(run["folder"] for run in whole) and len(folders) == 10
    for shard in shards:
        names = [run["folder"] for run in shard]
        for run_ in shard:  # a parent is in the shard, before its child
            assert run_["parent"] in [None, *names[: names.index(run_["folder"])]]
    for bad in ("0/4", "5/4", "1", "a/4"):
        code, _, err = run(grid, "--shard", bad)
        assert code == 2 and f"--shard {bad}: " in err


def test_from_the_configuration_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text((ROOT / "configs/cls/digits.yaml").read_text())
    options = [part for text in SMALL for part in ("-o", text)]
    args = [tmp_path / "mine.yaml", "--variants", "baseline, 1x1+3x3", "--jobs", 2]
    code, out, err = run(*args, *options, "--output", tmp_path / "out")
    assert (code, out) == (0, "2 of 2 runs finished\n"), err
    names = ["1x1+3x3-s0", "baseline-s0"]
    paths = sorted(tmp_path.glob("out/mine/*/result.json"))
    assert [path.parent.name for path in paths] == names
    records = [json.loads(path.read_text()) for path in paths]
    assert [f"{r['variant']}-s{r['seed']}" for r in records] == names
    assert {record["images"]["train"] for record in records} == {64}


def test_a_detector_s_classifier_is_a_run_of_its_own() -> None:
    code, out, err = run("configs/det/digits.yaml", "--variants", "1x1,3x3", "--dry-run", "--json")
    assert code == 0, err
    runs = json.loads(out)
    where = "results/grid-det-digits"
    assert [run["folder"] for run in runs] == [
        f"{where}/classifier-cls-digits/1x1-s0",
        f"{where}/digits/1x1-s0",
        f"{where}/classifier-cls-digits/3x3-s0",
        f"{where}/digits/3x3-s0",
    ]
    assert f"weights={where}/classifier-cls-digits/1x1-s0/best.pth" in runs[1]["command"]
    assert runs[1]["parent"] == runs[0]["folder"]


def test_two_detectors_share_a_classifier(tmp_path: Path) -> None:
    task = {"command": "train-det", "config": "configs/det/digits.yaml", "variants": ["1x1"]}
    grid = {"output": "runs", "tasks": {"a": task, "b": task}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    code, out, err = run(tmp_path / "grid.yaml", "--dry-run", "--json", "--shard", "1/2")
    assert code == 0, err
    assert [run["task"] for run in json.loads(out)] == ["classifier-cls-digits", "a", "b"]
    assert json.loads(run(tmp_path / "grid.yaml", "--dry-run", "--json", "--shard", "2/2")[1]) == []


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        ("model: resnet50\n", [], "fits both train-cls and train-det"),
        ("modle: resnet50\noptim: {lr: 1}\n", [], "expected a grid (see `rfbench schema grid`)"),
        ("modle: resnet50\noptim: {lr: 1}\n", [], "unknown key 'modle'; did you mean 'model'?"),
        ("optim: {lr: 1}\n", ["-o", "seed=3"], "override sets seed or variant"),
        ("optim: {lr: 1}\n", ["--variants", "2x"], "unknown variant '2x'"),
        ("optim: {lr: 1", [], "not valid YAML"),
        (None, [], "no such file"),
    ],
)
def test_what_makes_no_grid_is_refused(
    tmp_path: Path, text: str | None, args: list[str], message: str
) -> None:
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    code, out, err = run(tmp_path / "mine.yaml", *args, "--dry-run")
    assert (code, out) == (2, "")
    assert message in err and "Traceback" not in err
    assert all(line.startswith("Error: ") for line in err.splitlines())


def test_fail_fast(tmp_path: Path) -> None:
    grid = write(
        tmp_path,
        bad={"variants": ["1x1"], "override": ["optim.lr=1e30"]},
        good={"variants": ["1x1"], "override": ["schedule.epochs=10000"]},
    )
    code, out, err = run(grid, "--jobs", 2, "--fail-fast")
    assert (code, out) == (1, "0 of 2 runs finished\n")
    assert "bad 1x1 s0 failed" in err and "Error: good 1x1 s0 " in err


def test_the_earlier_script_is_the_command() -> None:
    command = [sys.executable, "scripts/reproduce.py", "configs/grids/paper.yaml", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == run("grids/paper.yaml", "--dry-run")[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": {}, "outptu": "x"}, "did you mean 'output'?"),
        ({"output": "x", "tasks": {"a": {"command": "train"}}}, "tasks.a.command"),
        ({"output": "x", "tasks": {"a": {"variants": []}}}, "tasks.a.variants"),
    ],
)
def test_a_bad_grid_is_one_line_each(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(change))
    code, _, err = run(path)
    assert code == 2 and message in err and "Traceback" not in err


def test_weights_of_no_task_before(tmp_path: Path) -> None:
    grid = write(tmp_path, heir={"variants": ["1x1"], "weights": "first"})
    assert "weights names 'first', which is not an earlier task" in run(grid)[2]
    assert (
        "no task 'b'; there are: heir"
        in run(write(tmp_path, heir={"variants": ["1x1"]}), "--only", "b")[2]
    )


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("paper", 28),
        ("digits", 94),
        ("depthwise", 32),
        ("stages", 76),
        ("light_center", 16),
        ("modern", 12),
        ("no_downsampling", 16),
        ("pruned", 8),
        ("segmentation", 40),
    ],
)
def test_the_shipped_grids_expand(name: str, runs: int) -> None:
    code, out, err = run(ROOT / f"configs/grids/{name}.yaml", "--dry-run")
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == runs
    for line in lines:
        config = line.split("train-")[1].split()[1]
        assert (ROOT / config).exists(), config


def test_the_depthwise_question_changes_what_it_says() -> None:
    """Dense and depthwise networks stride in the same six convolutions, 1x1 and 3x3 apart."""
    from rfbench.grid.config import read
    from rfbench.models import backbones

    grid = read(str(ROOT / "configs/grids/depthwise.yaml"))
    assert {task.seeds for task in grid.tasks.values()} == {4}
    found = {
        name: [backbones.build(model, variant, meta=True).replaced for variant in task.variants]
        for (name, task), model in zip(
            grid.tasks.items(),
            ("rfbench.classify.nets:resnet14", "rfbench.classify.nets:resnet14_depthwise"),
            strict=True,
        )
    }
    assert found["dense"] == found["depthwise"]
    assert [len(names) for names in found["dense"]] == [0, 3, 3, 6]
