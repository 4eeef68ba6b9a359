"""Maps whose units are not alike: where they cease to be, and the grid that they may stand on."""

from fractions import Fraction

from rfbench.rf.core.field import Field, Phased
from rfbench.rf.core.theory import Theory
from rfbench.spatial_graph.axis import SAME
from rfbench.spatial_graph.graph import SpatialGraph


def without_context(graph: SpatialGraph, ends: set[int]) -> set[int]:
    """The nodes that some depend on by other ways than a global context."""
    seen = set(ends)
    for i in range(max(ends, default=-1), -1, -1):
        if i in seen and graph.nodes[i].kind != "context":
            seen.update(graph.nodes[i].sources)
    return seen


def is_adaptive(graph: SpatialGraph, behind: set[int], axis: int) -> bool:
    """Whether windows along an axis are shares of a map: fields behind them grow with the image."""
    adaptive = [node for node in map(graph.nodes.__getitem__, behind) if node.kind == "adaptive"]
    return any(n.size[axis] != graph.nodes[n.sources[0]].size[axis] for n in adaptive)


def where_lost(graph: SpatialGraph, behind: set[int], theory: Theory, axis: int) -> str:
    """The first step behind which units have no stride in common along an axis; '' for none."""
    known = ((i, theory.fields[i]) for i in sorted(behind))
    return next((str(graph.nodes[i]) for i, both in known if both and both[axis] is None), "")


def covering_step(
    graph: SpatialGraph, behind: set[int], theory: Theory, axis: int, units: int, source: int
) -> int | Fraction | None:
    """The distance of units on a grid that covers the source along an axis; None: nothing tells.

    1 where there is one for every pixel, else the stride of a branch with as many units. Fields
    behind adaptive pooling and running sums grow with the image: none of them is whole.
    """
    steps = (graph.nodes[i] for i in behind)
    if any(node.kind == "adaptive" and node.axes[axis] != SAME for node in steps):
        return None
    if units == source:
        return 1
    for i in sorted(behind):
        field = both[axis] if (both := theory.fields[i]) else None
        step = field.stride if isinstance(field, Field | Phased) else None
        if step and step * units == source and graph.nodes[i].size[axis] == units:
            return step
    return None
