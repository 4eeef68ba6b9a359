"""A level of a detector's pyramid: what `rf registration` measures and `detect` finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """One level. feature: the layer below its lateral connection; output: the level itself."""

    name: str
    stride: int
    feature: str
    output: str
    anchors: bool  # whether anchors lie on it
    rois: bool  # whether RoIAlign reads it
