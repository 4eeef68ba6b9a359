"""Magnitude pruning while a network trains; shared by the trainings."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from rfbench.config import Section


class PruneConfig(Section):
    """The smallest weights of convolutions and linear layers become zero, and stay it."""

    sparsity: float = Field(ge=0, lt=1, description="Share of those weights that ends as zero.")
    schedule: Literal["constant", "polynomial"] = Field(
        "polynomial",
        description="constant: all at `begin`; polynomial: from 0 at `begin`, ever more slowly, "
        "to `sparsity` at `end` (Zhu & Gupta, 2017).",
    )
    scope: Literal["layer", "global"] = Field(
        "layer",
        description="layer: the same share of every layer; global: of all layers together.",
    )
    begin: PositiveInt = Field(description="Steps after which the first weights become zero.")
    end: PositiveInt = Field(description="Steps after which no more do.")
    every: PositiveInt = Field(100, description="Steps between two choices of weights.")

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> "PruneConfig":
        if self.begin > self.end:
            raise ValueError(f"begin, step {self.begin}, is behind end, step {self.end}")
        return self
