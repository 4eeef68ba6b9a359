"""What a spatial graph is made of: classes of channels, and what a tensor without positions is."""

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from rfbench.spatial_graph.axis import WORDS, Axis
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.size import Size


class Reach(IntEnum):
    """How far an output unit looks: each kind farther than the one before."""

    LOCAL = 0
    CONTEXT = 1
    WINDOWED = 2
    GLOBAL = 3
    UNSUPPORTED = 4

    def __str__(self) -> str:
        return ("local", "local + global context", "windowed", "global", "unsupported")[self]


@dataclass(frozen=True)
class Witness:
    """Why a network is not local: the operation, and the layer that called it.

    along: of windows the axes along which they hold all positions, 'z'.
    """

    reach: Reach
    op: str
    layer: str
    reason: str = ""
    along: str = ""

    @property
    def extent(self) -> str:
        """How far it looks, in words: 'windowed', 'windowed, global along depth'."""
        words = " and ".join(WORDS.get(name, name) for name in self.along)
        return str(self.reach) + (f", global along {words}" if words else "")

    def __str__(self) -> str:
        where = f" in layer {self.layer}" if self.layer else ""
        return f"{self.op}{where}" + (f" ({self.reason})" if self.reason else "")


@dataclass(eq=False, slots=True)  # never changed; a frozen one takes six times as long
class Node:
    """A class of channels: sum of the sources, each weighted, mapped along each axis.

    axes: one map for each axis. kind: input, conv, pool, adaptive (over windows that grow with the
    map), sum, product, same, context, structure. counts: how often each source takes part.
    channels: for a sum over channels (convolution, linear), how many there are, constant ones
    included; 0 for any other sum. reach: what this step alone adds. rigid: whether the step belongs
    to one input size. step: the same for all nodes of one operation.
    """

    kind: str
    sources: tuple[int, ...]
    size: Size
    axes: tuple[Axis, ...]
    counts: tuple[int | Fraction, ...] = ()
    channels: int = 0
    reach: Reach = Reach.LOCAL
    rigid: bool = False
    op: str = ""
    layer: str = ""
    step: int = 0

    def __str__(self) -> str:
        """The operation that made it, in words."""
        return f"{self.op} in layer {self.layer}" if self.layer else self.op


@dataclass(frozen=True)
class Opaque:
    """A tensor whose positions are no longer known; its witness names the operation at fault.

    if_mixed: the reach of attention over it, where its positions are only rearranged. parts: what
    was joined along dimension `dim`, where its positions are those of several axes.
    """

    witness: Witness
    if_mixed: Reach | None = None
    parts: tuple[Value, ...] = ()
    dim: int = 0
