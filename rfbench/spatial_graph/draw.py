"""A draw at random: what draws, and where. No torch, so that reports start quickly."""

from typing import NamedTuple


class Draw(NamedTuple):
    """What draws at random, 'aten.bernoulli.p' or "Python's random", and the layer calling it."""

    op: str
    layer: str = ""

    def __str__(self) -> str:
        return f"{self.op} in layer {self.layer}" if self.layer else self.op
