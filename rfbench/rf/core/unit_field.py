"""The field of one unit: what it sees, traced back step by step.

Where units have nothing in common (irregular resizing), theory has no field of all of them, but
every one has its own.
"""

import numpy as np

from rfbench.errors import RfbenchError
from rfbench.rf.core.field import Region
from rfbench.rf.core.theory import Theory
from rfbench.spatial_graph.axis import Axis, Dense, Expand, Full, Index, Window
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.size import Size


def unit_field(graph: SpatialGraph, value: Value, theory: Theory, unit: Size) -> tuple[Region, ...]:
    """First and last source position of a unit along every axis.

    Beyond the border where windows are padded. theory: from the source. Raises RfbenchError for a
    unit that reads nothing.
    """
    seen: dict[int, list[Region]] = {
        i: [(u, u) for u in unit] for i in graph.share(value) if theory.fields[i] is not None
    }
    arrived: list[list[Region]] = []
    for i in range(max(seen), -1, -1):
        regions = seen.pop(i, None)
        if regions is None:
            continue
        node = graph.nodes[i]
        known = [s for s in node.sources if theory.fields[s] is not None]
        if not known or i in theory.start:
            arrived.append(regions)
            continue
        sizes = graph.nodes[known[0]].size
        steps = zip(node.axes, regions, sizes, node.size, strict=True)
        each = [_behind(axis, region, n, m) for axis, region, n, m in steps]
        back = [r for r in each if r is not None]
        for s in known if len(back) == len(each) else ():
            seen[s] = _joined([seen[s], back]) if s in seen else back
    if not arrived:
        raise RfbenchError(f"unit {','.join(map(str, unit))} reads nothing: it is always zero")
    return tuple(_joined(arrived))


def _joined(every: list[list[Region]]) -> list[Region]:
    ends = zip(*every, strict=True)
    return [(min(a for a, _ in each), max(b for _, b in each)) for each in ends]


def _behind(axis: Axis, region: Region, n: int, m: int) -> Region | None:
    """What some of m outputs see of n inputs; None: nothing, they are zeros between others."""
    low, high = region
    if isinstance(axis, Index) and axis.inner is not None:
        axis = axis.inner
    if isinstance(axis, Window):
        first = low * axis.stride - axis.before
        return first, high * axis.stride - axis.before + axis.extent - 1
    if isinstance(axis, Full | Dense | Expand):
        return 0, n - 1
    inside = axis.at[max(0, low) : min(m - 1, high) + 1]
    inside = inside[inside >= 0]
    return (int(np.min(inside)), int(np.max(inside))) if inside.size else None
