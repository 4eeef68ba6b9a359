"""A variant without a name, as part of any configuration."""

from pydantic import Field, PositiveInt

from rfbench.config import Section


class VariantConfig(Section):
    """A variant that has no name, as data."""

    kernels: list[PositiveInt] = Field(description="Sizes of the stride-2 convolutions it changes.")
    pool: str = Field(description="The pooling it puts before them, such as avg.")
