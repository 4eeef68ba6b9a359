"""Slices with a stride that leave nothing out: space to depth, or rows that are put back."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from rfbench.spatial_graph.axis import SAME, Axis, Index, Window
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.node import Node

Place = tuple[tuple[int, int], ...]  # along each axis: position = unit * stride + offset


def slices_of_all(graph: SpatialGraph, parts: Sequence[int]) -> frozenset[int]:
    """The slices that a concatenation joins, where together they take every position once.

    x[::2] and x[1::2] as channels, which is what PixelUnshuffle does. Each has a centre of its own,
    but no position is lost: what reads all of them is centred and without grid. Empty where the
    parts are anything else.
    """
    found: dict[int, set[Place]] = defaultdict(set)
    slices: set[int] = set()
    for i in parts:
        place: Place = ((1, 0),) * len(graph.size)
        while len(sources := graph.nodes[i].sources) == 1 and _is_slice(graph.nodes[i]):
            axes = graph.nodes[i].axes
            if any(a.stride > 1 for a in axes if isinstance(a, Window)):
                slices.add(i)
            place = tuple(map(_before, place, axes))
            i = sources[0]
        found[i].add(place)
    return frozenset(slices) if slices and all(map(_covers, found.values())) else frozenset()


def is_put_back(graph: SpatialGraph, i: int, readers: Mapping[int, set[int]]) -> bool:
    """Whether the rows that a slice takes come back to their places, and go nowhere else.

    Python reads y[::2] for y[::2, 1::2] = x, and writes it back. readers: of every node.
    """
    axes = graph.nodes[i].axes
    strided = [k for k, a in enumerate(axes) if isinstance(a, Window) and a.stride > 1]
    if len(strided) != 1 or not readers[i]:
        return False
    (k,) = strided
    taken = axes[k].matrix(n := graph.nodes[graph.nodes[i].sources[0]].size[k])
    back = np.full((n, 1), -1)
    back[taken[:, 0], 0] = np.arange(len(taken))
    open_ = [*readers[i]]
    while open_:
        j = open_.pop()
        axis = graph.nodes[j].axes[k]
        if isinstance(axis, Index) and np.array_equal(axis.at, back):
            continue
        if axis != SAME or "slice_scatter" not in graph.nodes[j].op or not readers[j]:
            return False
        open_ += readers[j]
    return True


def _is_slice(node: Node) -> bool:
    """Whether a step takes some positions of a map as they are; a convolution by 1x1 does more."""
    return node.kind in ("structure", "same") and all(
        isinstance(axis, Window) and axis.kernel == 1 and not axis.taps and axis.before <= 0
        for axis in node.axes
    )


def _before(place: tuple[int, int], axis: Axis) -> tuple[int, int]:
    """The same places on the map that a slice was taken of."""
    assert isinstance(axis, Window)
    return place[0] * axis.stride, place[1] * axis.stride - axis.before


def _covers(places: set[Place]) -> bool:
    """Whether they are all phases of one stride, each once."""
    steps = {tuple(step for step, _ in place) for place in places}
    if len(steps) > 1:
        return False
    least = tuple(min(offsets) for offsets in zip(*map(_offsets, places), strict=True))
    every = product(*(range(o, o + s) for o, s in zip(least, *steps, strict=True)))
    return {*map(_offsets, places)} == {*every}


def _offsets(place: Place) -> tuple[int, ...]:
    return tuple(offset for _, offset in place)
