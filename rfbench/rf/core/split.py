"""Space to depth by slices: x[::2] and x[1::2] as channels, which is what PixelUnshuffle does."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

from rfbench.spatial_graph.axis import Axis, Window
from rfbench.spatial_graph.graph import SpatialGraph

Place = tuple[tuple[int, int], ...]  # along each axis: position = unit * stride + offset


def slices_of_all(graph: SpatialGraph, parts: Sequence[int]) -> frozenset[int]:
    """The slices that a concatenation joins, where together they take every position once.

    Each of its channels has a centre of its own then, but none is lost: what reads the channels
    together is centred and without grid. Empty where the parts are anything else.
    """
    found: dict[int, set[Place]] = defaultdict(set)
    slices: set[int] = set()
    for i in parts:
        place: Place = ((1, 0),) * len(graph.size)
        while len(sources := graph.nodes[i].sources) == 1 and all(
            map(_is_slice, graph.nodes[i].axes)
        ):
            axes = graph.nodes[i].axes
            if any(a.stride > 1 for a in axes if isinstance(a, Window)):
                slices.add(i)
            place = tuple(map(_before, place, axes))
            i = sources[0]
        found[i].add(place)
    return frozenset(slices) if slices and all(map(_covers, found.values())) else frozenset()


def _is_slice(axis: Axis) -> bool:
    return isinstance(axis, Window) and axis.kernel == 1 and not axis.taps and axis.before <= 0


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
