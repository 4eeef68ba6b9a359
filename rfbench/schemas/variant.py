"""A variant spelled out, as part of any configuration."""

from pydantic import Field, PositiveInt

from rfbench.config import Section


class VariantConfig(Section):
    """A variant spelled out."""

    kernels: list[PositiveInt] = Field(
        min_length=1,
        description="Kernel sizes of the stride-2 convolutions that change: 3 means 3x3.",
    )
    pool: str = Field(description="The pool they sample with, such as avg.")
