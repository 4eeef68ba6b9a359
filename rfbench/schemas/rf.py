"""What `rfbench visualize-rf` draws."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from rfbench.config import Section
from rfbench.schemas.variant import VariantConfig


class RfConfig(Section):
    """What `rfbench visualize-rf` draws."""

    model: str | list[str] = Field(
        description="torchvision or timm name, or FILE.py:function; a list draws several."
    )
    variants: list[str | VariantConfig] | None = Field(
        None, description="Variants, one panel each; null: those of the paper that change the net."
    )
    from_: str | None = Field(
        None, alias="from", description="Layer behind which the map starts; null: the input."
    )
    to: str | None = Field(None, description="Layer where it ends; null: the last spatial map.")
    unit: tuple[NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="Unit of the last layer, as [y, x]; null: the middle one."
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="Input in px, N or [height, width], for the figures beside those of an input "
        "that cuts nothing off; null: the network's own.",
    )
    scale: Literal["linear", "sqrt"] = Field("sqrt", description="Brightness of the main panel.")
    channels: Literal["single", "real"] = Field(
        "single", description="One channel a layer (spatial paths), or the network's own numbers."
    )
    pool: Literal["count", "mean"] = Field(
        "count", description="A tap of an average pool weighs 1 (paths) or 1/k^2 (its gradient)."
    )
    gates: Literal["ignore", "count"] = Field(
        "ignore", description="Whether paths through gates (squeeze-and-excitation) count."
    )
    engine: Literal["graph", "autograd"] = Field(
        "graph", description="The spatial graph, or the paper's procedure as a second opinion."
    )
    by_layer: bool = Field(False, description="Draw the shift layer by layer instead of maps.")
    exact: bool = Field(False, description="Count in integers of any size instead of floats.")
    weights: str | None = Field(None, description="Checkpoint to load; null: none.")
    title: str | None = Field(None, description="Title of the figure; null: made from the model.")
