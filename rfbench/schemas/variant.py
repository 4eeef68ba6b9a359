"""A variant spelled out, as part of any configuration."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from rfbench.config import Section


class VariantConfig(Section):
    """A variant spelled out."""

    kernels: list[PositiveInt] = Field(
        description="Kernel sizes of the strided convolutions that change: 3 means 3 in every "
        "direction.",
    )
    pool: str = Field(
        description="The pool they sample with: avg; blur, before the convolution; blur_after, "
        "behind it and its activation, at about four times its cost; max; alt.",
    )
    maxpool: bool | None = Field(
        None,
        description="Max pools whose stride does not divide their kernel too: at stride 1, then "
        "the pool.",
    )
    layers: str | list[str] | None = Field(
        None,
        description="Only what these globs over module paths select, such as layer2.*; null: all.",
    )
    groups: Literal["dense", "depthwise"] | None = Field(
        None, description="Only depthwise convolutions, or only dense (all others); null: both."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "VariantConfig":
        if not self.kernels and not self.maxpool:
            raise ValueError("kernels is empty, so nothing changes: write baseline")
        return self
