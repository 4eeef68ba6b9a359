"""What `rfbench grid` runs: tasks, each one configuration in several variants and seeds."""

import re
import shlex
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from rfbench.config import Section
from rfbench.errors import printable
from rfbench.schemas.variant import VariantConfig

FOLDER = re.compile(r"\w[\w.+=-]{0,99}")  # the name of a task: no path, nothing to quote


class GridTask(Section):
    """One configuration, in several variants, with several seeds."""

    command: Literal["train-cls", "train-seg", "train-det"] = Field(
        description="The command that runs it."
    )
    config: str = Field(description="Its YAML file.")
    variants: list[str | VariantConfig] = Field(
        min_length=1, description="Variants to train; the classifier of a detector has the same."
    )
    seeds: PositiveInt = Field(1, le=10_000, description="Seeds 0, 1, ... of each variant.")
    override: list[str] = Field([], description="KEY=VALUE for every run of the task.")
    weights: str | None = Field(
        None, description="Earlier task whose last checkpoint (same variant and seed) starts each."
    )


class GridConfig(Section):
    """What `rfbench grid` runs. The run of a variant and seed is in OUTPUT/TASK/VARIANT-sSEED."""

    output: str = Field(description="Folder of the runs.")
    launch: str = Field(
        "python -m rfbench", description="How a command is started, such as with torchrun."
    )
    tasks: dict[str, GridTask] = Field(min_length=1, description="By name, classifiers first.")

    @field_validator("launch")
    @classmethod
    def _is_a_command(cls, text: str) -> str:
        try:
            parts = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"is no command: {error}") from None
        if not parts:
            raise ValueError("is no command: it is empty")
        return text

    @field_validator("tasks")
    @classmethod
    def _name_folders(cls, tasks: dict[str, GridTask]) -> dict[str, GridTask]:
        for name in tasks:
            if not FOLDER.fullmatch(name):
                raise ValueError(
                    f"the task {printable(name)[:60]!r} names its folder: at most 100 letters, "
                    "digits, . _ + = and -, a letter or digit first"
                )
        return tasks
