"""Run a grid: every variant and seed of every task, as ordinary `rfbench` runs.

python scripts/reproduce.py configs/grids/digits.yaml --jobs 2
rfbench compare results/digits

A classifier runs before the detectors that start from it. What is finished is left alone, what was
stopped or killed goes on where it was, what failed is told at the end: start it again at any time.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import Field, PositiveInt
from tqdm import tqdm

from rfbench.config import Section, load
from rfbench.errors import RfbenchError, UsageError
from rfbench.schemas import SCHEMAS

SCHEMA = {"train-cls": "cls", "train-det": "det"}


class Task(Section):
    """One configuration, in several variants, with several seeds."""

    command: Literal["train-cls", "train-det"] = Field(description="The command that runs it.")
    config: str = Field(description="Its YAML file.")
    variants: list[str] = Field(description="Variants; the classifier of each has the same.")
    seeds: PositiveInt = Field(1, description="Seeds 0, 1, ... of each variant.")
    override: list[str] = Field([], description="KEY=VALUE, for all of them.")
    weights: str | None = Field(None, description="Task whose last checkpoint each starts from.")


class Grid(Section):
    """Tasks, and where their runs go: OUTPUT/TASK/VARIANT-sSEED."""

    output: str = Field(description="Folder of the runs.")
    launch: str = Field(
        "python -m rfbench", description="What stands before the command, such as torchrun's."
    )
    tasks: dict[str, Task] = Field(description="By name, classifiers first.")


@dataclass
class Run:
    """One run of the grid, and what has become of it."""

    name: str
    folder: Path
    task: Task
    overrides: list[str]
    parent: "Run | None"
    command: list[str] = field(default_factory=list)
    state: str = "waiting"  # running, finished, failed, stopped, skipped
    process: subprocess.Popen | None = None

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(self.folder.name + ".log")


def expand(grid: Grid, seeds: int | None, only: tuple[str, ...]) -> list[Run]:
    """All runs, seed by seed so that an early look compares all variants; parents first."""
    runs: dict[tuple[str, str, int], Run] = {}
    for name, task in grid.tasks.items():
        if task.weights and task.weights not in list(grid.tasks)[: list(grid.tasks).index(name)]:
            raise UsageError(f"{name}: weights names {task.weights!r}, which is no task before it")
        for seed in range(seeds or task.seeds):
            for variant in task.variants:
                parent = runs.get((task.weights or "", variant, seed))
                if task.weights and not parent:
                    raise UsageError(f"{name}: {task.weights} has no {variant} with seed {seed}")
                runs[name, variant, seed] = one(grid, name, task, variant, seed, parent)
    unknown = [name for name in only if name not in grid.tasks]
    if unknown:
        raise UsageError(f"no task {unknown[0]!r}; there is: {', '.join(grid.tasks)}")
    wanted = [run for (name, _, _), run in runs.items() if name in (only or grid.tasks)]
    parents = [run.parent for run in wanted if run.parent]
    return [run for run in runs.values() if run in wanted or run in parents]


def one(grid: Grid, name: str, task: Task, variant: str, seed: int, parent: Run | None) -> Run:
    """A run with its command."""
    folder = Path(grid.output, name, f"{variant.replace(':', '-')}-s{seed}")
    overrides = [f"variant={variant}", f"seed={seed}", *task.override]
    if parent:
        overrides.append(f"weights={parent.folder / 'last.pth'}")
    run = Run(f"{name} {variant} s{seed}", folder, task, overrides, parent)
    options = [part for text in overrides for part in ("-o", text)]
    launch = shlex.split(grid.launch)
    run.command = [*launch, task.command, task.config, *options, "--output", str(folder)]
    run.command += ["--resume"]
    return run


def finished(run: Run) -> bool:
    """Whether the run came to its end; UsageError where it was another configuration's."""
    path = run.folder / "result.json"
    if not path.exists():
        return False
    try:
        held: Any = json.loads(path.read_text("utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{path} cannot be read; delete {run.folder} to run it again") from None
    schema = SCHEMAS[SCHEMA[run.task.command]]
    wanted = load(schema, run.task.config, run.overrides).model_dump(mode="json")
    if held != wanted:
        keys = [key for key in {**held, **wanted} if held.get(key) != wanted.get(key)]
        raise UsageError(
            f"{run.folder} was run with another {', '.join(keys)}; delete it, or change `output`"
        )
    return True


def start(run: Run) -> None:
    """Start a run; what it prints goes to its log."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable if part == "python" else part for part in run.command]
    with open(run.log, "ab") as log:
        # a group of its own: ctrl-C reaches it through us, once
        run.process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    run.state = "running"


def ready(runs: list[Run]) -> Iterator[Run]:
    """Runs that may start; those whose classifier is missing never will."""
    for run in runs:
        if run.state == "waiting" and run.parent and run.parent.state in ("failed", "skipped"):
            run.state = "skipped"
        if run.state == "waiting" and (not run.parent or run.parent.state == "finished"):
            yield run


def settle(run: Run) -> bool:
    """Whether a running run has ended; says how."""
    code = run.process.poll() if run.process else None
    if code is None:
        return False
    done = (run.folder / "result.json").exists()
    run.state = "finished" if code == 0 and done else "stopped" if code in (0, 130) else "failed"
    return True


def work(runs: list[Run], jobs: int) -> None:
    """Run everything that can run, `jobs` at a time; on a signal, let all save and stop."""
    bar = tqdm(total=len(runs), initial=sum(run.state == "finished" for run in runs), unit="run")
    running: list[Run] = []
    try:
        while True:
            for run in ready(runs):
                if len(running) < jobs:
                    start(run)
                    running.append(run)
            if not running:
                break
            bar.set_postfix_str(", ".join(run.name for run in running))
            time.sleep(0.2)
            for run in [run for run in running if settle(run)]:
                running.remove(run)
                bar.update()
                if run.state != "finished":
                    bar.write(f"{run.name}: {run.state}; see {run.log}", file=sys.stderr)
            if any(run.state == "stopped" for run in runs):
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        for run in running:
            if run.process:
                os.killpg(run.process.pid, signal.SIGTERM)
        for run in running:
            if run.process:
                run.process.wait()
        raise
    finally:
        bar.close()


@click.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False))
@click.option("--jobs", type=click.IntRange(1), default=1, help="Runs at a time.")
@click.option("--seeds", type=click.IntRange(1), help="Seeds of every task, instead of the grid's.")
@click.option("--only", multiple=True, metavar="TASK", help="This task, and what it needs; repeat.")
@click.option("--dry-run", is_flag=True, help="Print the commands; run nothing.")
def main(grid: str, jobs: int, seeds: int | None, only: tuple[str, ...], dry_run: bool) -> None:
    """Run every variant and seed of the tasks in the YAML file GRID; start it again at any time."""
    try:
        runs = expand(load(Grid, grid), seeds, only)
        for run in runs:
            run.state = "finished" if finished(run) else "waiting"
    except RfbenchError as error:
        for line in str(error).splitlines():
            click.echo(f"Error: {line}", err=True)
        sys.exit(error.exit_code)
    if dry_run:
        for run in runs:
            done = "  # finished" if run.state == "finished" else ""
            click.echo(shlex.join(run.command) + done)
        return
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        work(runs, jobs)
    except KeyboardInterrupt:
        click.echo("Stopped; what was running is saved. The same command goes on.", err=True)
        sys.exit(130)
    bad = [run for run in runs if run.state != "finished"]
    for run in bad:
        why = f"see {run.log}" if run.state == "failed" else "its classifier failed"
        click.echo(f"Error: {run.name} {run.state}: {why}", err=True)
    click.echo(f"{len(runs) - len(bad)} of {len(runs)} runs finished")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
