"""What `rfbench grid` runs: tasks, each one configuration in several variants and seeds."""

from typing import Literal

from pydantic import Field, PositiveInt

from rfbench.config import Section
from rfbench.schemas.variant import VariantConfig


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
    tasks: dict[str, GridTask] = Field(description="By name, classifiers first.")
