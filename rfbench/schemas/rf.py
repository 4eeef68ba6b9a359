"""What `rfbench visualize-rf` draws."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rfbench.config import Section
from rfbench.schemas.variant import VariantConfig

# one number for each axis, of which there are one to three; a shape has the channels first
Unit = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=3)]
Size = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=3)]
Kind = Literal["float", "int", "bool"]
Input = (
    Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=4)]
    | tuple[Kind]
    | tuple[PositiveInt, Kind]
)


class RfConfig(Section):
    """What `rfbench visualize-rf` draws."""

    model: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="torchvision or timm name, or FILE.py:function; a list draws them side by side."
    )
    model_args: dict[str, Any] = Field(
        {},
        description="Arguments of the model's function, such as {output_stride: 8}; they become "
        "part of its name.",
    )
    variants: list[str | VariantConfig] | None = Field(
        None,
        min_length=1,
        description="Variants, one panel each; null: those of the paper that change the network.",
    )
    from_: str | None = Field(
        None, alias="from", description="Layer at whose output the map starts; null: the input."
    )
    to: str | None = Field(None, description="Layer at which it ends; null: the last spatial map.")
    unit: Unit | None = Field(
        None, description="Output unit as [y, x], or with other axes; null: the central one."
    )
    size: PositiveInt | Size | None = Field(
        None,
        description="Input size in px, N or [height, width] (or [length], or [depth, height, "
        "width]), of the second line of figures; the first is for an input large enough to cut "
        "nothing off. null: the network's own.",
    )
    in_channels: PositiveInt | None = Field(
        None, le=2**20, description="Channels of the input; null: as the network says, or takes."
    )
    inputs: list[Input] | None = Field(
        None,
        min_length=1,
        description="Inputs as [[channels, height, width], ...], or with other axes, in place of "
        "size and in_channels; beside maps also [512] for a vector, [int] for a class or a time "
        "(float, bool), [77, int] for several. null: one.",
    )
    input_axes: str | None = Field(
        None,
        description="Axes of the inputs, such as NLC or NHWC; null: as the network's first "
        "convolution says.",
    )
    rate: PositiveFloat | None = Field(
        None, description="Samples a second of a sequence, for times in ms; null: samples alone."
    )
    scale: Literal["linear", "sqrt"] = Field("sqrt", description="Brightness of the main panel.")
    channels: Literal["single", "real"] = Field(
        "single",
        description="single: one channel per layer (spatial paths); real: the network's "
        "own numbers.",
    )
    pool: Literal["count", "mean"] = Field(
        "count",
        description="Weight of a tap of an average pool: count, 1 (paths); mean, 1/k^2 "
        "(its gradient).",
    )
    gates: Literal["ignore", "count"] = Field(
        "ignore", description="Ignore or count paths through gates (squeeze-and-excitation)."
    )
    engine: Literal["graph", "autograd"] = Field(
        "graph",
        description="graph: the spatial graph; autograd: the paper's procedure, as a "
        "second opinion.",
    )
    by_layer: bool = Field(False, description="Draw the shift by layer instead of maps.")
    exact: bool = Field(False, description="Count in exact integers instead of floats.")
    weights: str | None = Field(None, description="Checkpoint to load; null: none.")
    ema: bool = Field(
        False, description="Take the EMA weights of the file, where it holds them beside raw ones."
    )
    title: str | None = Field(None, description="Title of the figure; null: the model's name.")
