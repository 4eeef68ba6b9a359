"""What a record tells of its network, by the types and the ranges in which it is measured."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Whole = Annotated[int, Field(ge=1, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0)]  # a coefficient of variation
# of every axis; None: one along which there is none
Axes = Annotated[list[Annotated[float, Field(gt=-1e9, lt=1e9)] | None], Field(min_length=1)]


class Figures(BaseModel):
    """Metrics of a receptive field, see rf/core/metrics; None: undefined for this network.

    Others, of older and newer versions, are numbers, or one for every axis.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, float | Axes | None]

    shift: Annotated[Axes, Field(max_length=3)] | None = None
    gridding: Spread | None = None
    read: Share | None = None
    size: Annotated[list[Whole], Field(min_length=1, max_length=3)] | None = None
    stride: Annotated[list[Spread | None], Field(min_length=1, max_length=3)] | None = None
    misaligned: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    checkerboard: Spread | None = None
    bypass: Share | None = None


class Network(BaseModel):
    """Cost and receptive field of a record's network, see rf/core/recorded.

    size: (H, W) of the image that `macs` is of. map: checked where it is drawn, and left out there.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    size: Annotated[list[Whole], Field(min_length=1, max_length=3)] | None = None
    macs: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    code: str | None = None
    figures: Figures | None = None
    map: Any = None
