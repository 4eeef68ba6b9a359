"""The runs of a grid: their commands, their order and their states."""

import enum
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rfbench import files, shipped
from rfbench.config import load, override
from rfbench.errors import RfbenchError, UsageError
from rfbench.grid.config import SCHEMA
from rfbench.models import variants
from rfbench.runs import checkpoint, progress
from rfbench.runs import folder as folders
from rfbench.schemas.grid import GridConfig, GridTask
from rfbench.schemas.variant import VariantConfig

# a command -> the key of its configuration for the weights that a run starts from
WEIGHTS = {"train-cls": "init.weights", "train-seg": "weights", "train-det": "weights"}


class State(enum.Enum):
    """The state of a run."""

    NEW = "not started"
    INTERRUPTED = "interrupted"
    RUNNING = "running"
    ELSEWHERE = "running in another process"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"  # its parent failed


@dataclass(eq=False)
class Run:
    """One run of a grid."""

    task: str
    variant: str
    seed: int
    folder: Path
    config: BaseModel  # as its command will load it
    command: list[str]
    parent: "Run | None" = None  # the run from whose checkpoint it starts
    state: State = State.NEW
    process: subprocess.Popen | None = field(default=None, repr=False)
    logged: int = 0  # bytes of the log before the process was started

    @property
    def name(self) -> str:
        """'retinanet 1x1+3x3 s0'."""
        return f"{self.task} {self.variant} s{self.seed}"

    @property
    def log(self) -> Path:
        """The file with the output of the run."""
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def root(self) -> "Run":
        """The first run of its chain."""
        run = self
        while run.parent:
            run = run.parent
        return run


def expand(grid: GridConfig) -> list[Run]:
    """All runs of a grid, parents first; within a task seed by seed, so that the variants of a seed
    can be compared early.

    Raises UsageError if a run's configuration is wrong or a parent is missing.
    """
    runs: dict[tuple[str, str, int], Run] = {}
    earlier: set[str] = set()
    for name, task in grid.tasks.items():
        if task.weights and task.weights not in earlier:
            raise UsageError(
                f"{name}: weights names {task.weights!r}, which is not an earlier task"
            )
        for seed in range(task.seeds):
            for variant in task.variants:
                run = _run(grid, name, task, variant, seed, runs)
                runs[run.task, run.variant, seed] = run
        earlier.add(name)
    _check_folders(runs.values())
    return [*runs.values()]


def _check_folders(runs: Iterable[Run]) -> None:
    """Raise UsageError for two runs whose folder or log would be one."""
    owners: dict[str, Run] = {}
    for run in runs:
        for path in (run.folder, run.log):
            other = owners.setdefault(os.path.normcase(path), run)
            if other is not run:
                raise UsageError(
                    f"{run.name} and {other.name} would both be in {path}: give them in two grids, "
                    "or name the variants apart"
                )


def _run(
    grid: GridConfig,
    name: str,
    task: GridTask,
    variant: str | VariantConfig,
    seed: int,
    runs: dict[tuple[str, str, int], Run],
) -> Run:
    """One run; a classifier that its configuration names is added to `runs` before it."""
    data = variant if isinstance(variant, str) else variant.model_dump()
    title = variants.get(data).name
    overrides = [
        f"variant={data if isinstance(data, str) else json.dumps(data)}",
        f"seed={seed}",
        *task.override,
    ]
    path = shipped.path_of(task.config)
    config: Any = load(SCHEMA[task.command], path, overrides)
    if (config.seed, config.variant) != (seed, variant):
        raise UsageError(f"{name}: override sets seed or variant; use seeds and variants for that")
    parent, weights = None, checkpoint.LAST
    if task.weights:
        parent = runs.get((task.weights, title, seed))
        if parent is None:
            raise UsageError(f"{name}: {task.weights} has no {title} with seed {seed}")
    elif str(getattr(config, "weights", None)).endswith((".yaml", ".yml")):
        # as train-det would train it, but only once for all detectors that start from it
        parent, weights = _classifier(grid, config, data, runs), checkpoint.BEST
    if parent:
        overrides.append(override(WEIGHTS[task.command], str(parent.folder / weights)))
        config = load(SCHEMA[task.command], path, overrides)
    plain = re.sub(r"[^\w.+=-]", "-", title)  # a glob would be one in the user's shell too
    folder = Path(grid.output, name, f"{plain}-s{seed}")
    options = [part for text in overrides for part in ("-o", text)]
    launch = shlex.split(grid.launch)
    command = [*launch, task.command, path, *options, "--output", str(folder), "--resume"]
    return Run(name, title, seed, folder, config, command, parent)


def _classifier(
    grid: GridConfig, detector: Any, variant: Any, runs: dict[tuple[str, str, int], Run]
) -> Run:
    """The run of the classifier that a detector's configuration names as `weights: FILE.yaml`."""
    name = "classifier-" + re.sub(r"\W+", "-", detector.weights.rpartition(".")[0]).strip("-")
    if name in grid.tasks:
        raise UsageError(f"the name {name!r} is reserved for classifiers of detectors")
    task = GridTask(
        command="train-cls",
        config=detector.weights,
        variants=[detector.variant],
        override=[f"device={detector.device}"],
    )
    run = _run(grid, name, task, detector.variant, detector.seed, {})
    return runs.setdefault((name, run.variant, run.seed), run)


def choose(
    runs: list[Run], tasks: Sequence[str] = (), shard: tuple[int, int] | None = None
) -> list[Run]:
    """The runs of these tasks and their parents, or one shard of them, (1, 4) to (4, 4).

    A run is in the same shard as its parent, so that no run is in two shards.
    """
    names = list(dict.fromkeys(run.task for run in runs))
    unknown = [name for name in tasks if name not in names]
    if unknown:
        raise UsageError(f"no task {unknown[0]!r}; there are: {', '.join(names)}")
    keep: list[Run] = []
    needed: set[int] = set()
    for run in reversed(runs):  # children come after their parents
        if not tasks or run.task in tasks or id(run) in needed:
            keep.append(run)
            needed.add(id(run.parent))
    keep.reverse()
    if shard is None:
        return keep
    index, count = shard
    roots = [run for run in keep if run.parent is None]
    mine = {id(run) for run in roots[index - 1 :: count]}
    return [run for run in keep if id(run.root) in mine]


def look(run: Run) -> State:
    """The state of a run by its folder; UsageError if that is of another configuration."""
    remedy = f"Delete {run.folder}, or choose another --output."
    if folders.finished(run.folder, run.config, remedy):
        return State.FINISHED
    if in_use(run.folder):
        return State.ELSEWHERE
    return State.INTERRUPTED if folders.begun(run.folder) else State.NEW


def in_use(folder: Path) -> bool:
    """Whether a process is writing to a run's folder, such as one left by a killed grid."""
    try:
        import fcntl
    except ImportError:  # Windows has none
        return False
    try:
        files.check_regular(folder / ".lock")
        with open(folder / ".lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def last_step(run: Run) -> int | None:
    """The last step in a run's metrics.jsonl; None if there is none."""
    try:
        return progress.read_metrics(run.folder)[-1]["step"]
    except (OSError, RfbenchError, LookupError):
        return None


def progress_of(run: Run) -> str:
    """The state of a run, with its last step."""
    step = last_step(run) if run.state in (State.INTERRUPTED, State.ELSEWHERE) else None
    return run.state.value + (f", step {step}" if step is not None else "")


def described(run: Run) -> dict[str, Any]:
    """A run as plain data, for JSON."""
    return {
        "task": run.task,
        "variant": run.variant,
        "seed": run.seed,
        "state": run.state.value,
        "step": last_step(run),
        "folder": str(run.folder),
        "log": str(run.log),
        "parent": str(run.parent.folder) if run.parent else None,
        "command": run.command,
    }
