"""A grid from its YAML file, or from the configuration of a single run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rfbench import shipped
from rfbench.config import load
from rfbench.errors import UsageError
from rfbench.files import default_folder
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.det import DetConfig
from rfbench.schemas.grid import GridConfig, GridTask
from rfbench.schemas.seg import SegConfig

# a run's command -> the schema of its configuration
SCHEMA: dict[str, type[BaseModel]] = {
    "train-cls": ClsConfig,
    "train-seg": SegConfig,
    "train-det": DetConfig,
}
EXPECTED = (
    "a grid (see `rfbench schema grid`) or a configuration of train-cls (`rfbench schema cls`), "
    "train-seg (`rfbench schema seg`) or train-det (`rfbench schema det`)"
)


def read(
    path: str,
    override: Sequence[str] = (),
    variants: Sequence[str] = (),
    seeds: int | None = None,
    output: str | None = None,
) -> GridConfig:
    """The grid in the YAML file `path`, changed by the other arguments.

    A configuration of a training becomes a grid of one task, named like the file, in
    results/grid-cls-NAME, grid-seg-NAME or grid-det-NAME; without `variants` it has the
    configuration's own. `override` is for every run. Raises UsageError if the file is none of
    these, or fits two.
    """
    path = shipped.path_of(path)
    kind = _kind(path, override)
    grid = load(GridConfig, path) if kind == "grid" else _single(kind, path, override)
    given: dict[str, Any] = {"variants": list(variants) or None, "seeds": seeds}
    changes = {key: value for key, value in given.items() if value is not None}
    tasks = {
        name: task.model_copy(update={**changes, "override": [*task.override, *override]})
        for name, task in grid.tasks.items()
    }
    return grid.model_copy(update={"tasks": tasks, "output": output or grid.output})


def _kind(path: str, override: Sequence[str]) -> str:
    """ "grid", or the command that the configuration is for."""
    problems: dict[str, tuple[str, ...]] = {}
    schemas: dict[str, type[BaseModel]] = {"grid": GridConfig, **SCHEMA}
    for kind, schema in schemas.items():
        try:
            load(schema, path, () if kind == "grid" else override)
        except UsageError as error:
            problems[kind] = error.args
    fits = [kind for kind in schemas if kind not in problems]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(
            f"{path} fits both {' and '.join(fits)}; write a grid whose task names the command"
        )
    if len(set(problems.values())) == 1:  # no such file, or not YAML
        raise UsageError(*problems["grid"])
    unknown = {k: sum(": unknown key " in line for line in v) for k, v in problems.items()}
    closest = min(unknown, key=lambda kind: unknown[kind])
    raise UsageError(f"{path}: expected {EXPECTED}; read as {closest}:", *problems[closest])


def _single(command: str, path: str, override: Sequence[str]) -> GridConfig:
    """The configuration of one run as a grid of one task."""
    config: Any = load(SCHEMA[command], path, override)
    name = Path(path).stem
    output = default_folder("grid", command.removeprefix("train-"), name)
    task = GridTask(command=command, config=path, variants=[config.variant])  # type: ignore[arg-type]
    return GridConfig(output=str(output), tasks={name: task})
