"""All units of a map at once: how many paths reach each, and where these come from on the average.

A forward pass of a few maps over the spatial graph: of ones, which gives the number of paths, and
of the positions along every axis, which gives the centroid. Where units take turns (behind
resizing) the units of one period differ; `Period` has them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rfbench.rf.core.path_counts import channel_weights, is_skipped, shares
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.period import Period
from rfbench.spatial_graph.axis import SAME, Axis, Window
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.size import Size

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class AllUnits:
    """centroids: (2, h, w), totals: (h, w), as in `Period`, of every unit of a map."""

    centroids: np.ndarray
    totals: np.ndarray

    def period(self, where: tuple[slice, ...]) -> Period:
        """Some of them, which are told together."""
        first = tuple(part.start for part in where)
        return Period(first, self.centroids[(slice(None), *where)], self.totals[where])


def all_units(
    graph: SpatialGraph, target: Value, source: Value | None, convention: Convention
) -> AllUnits:
    """Paths to every unit of a tensor, from the input or from the map of a layer."""
    moments = sums(graph, target, source, convention, _places, _whole(graph, convention))
    with np.errstate(invalid="ignore"):
        centroids = moments[1:] / moments[0]
    weighed = Convention(convention.channels, "mean", convention.gates)
    totals = moments
    if convention != weighed:
        totals = sums(graph, target, source, weighed, _ones, _whole(graph, weighed))
    return AllUnits(centroids, totals[0])


def _ones(size: Size) -> np.ndarray:
    """(1, h, w): one path to each position of a source."""
    return np.ones((1, *size))


def _places(size: Size) -> np.ndarray:
    """(3, h, w): one, y and x of each position of a source."""
    places = np.ones((1 + len(size), *size))
    for axis, part in enumerate(np.indices(size, sparse=True)):
        places[1 + axis] = part
    return places


ROOM = 500  # powers of two up to which an array is left as it is: of double's 1,023
Scaled = tuple[np.ndarray, int]  # an array, and the power of two that it is to be multiplied by


def sums(
    graph: SpatialGraph,
    target: Value,
    source: Value | None,
    convention: Convention,
    begin: Callable[[Size], np.ndarray],
    mapped: Callable[[int, Scaled], Scaled],
) -> np.ndarray:
    """(n, h, w): sums of what `begin` gives over the paths to every unit, up to a common factor.

    mapped: what the steps of a node, by its number, make of the sum of its sources.
    """
    start = set(graph.share(source)) if source is not None else {0}
    ends = shares(graph, target, convention)
    last = {s: i for i, node in enumerate(graph.nodes) for s in node.sources}  # who reads it last
    behind = graph.ancestors(set(ends))
    known: dict[int, Scaled] = {}
    for i in sorted(behind):
        node = graph.nodes[i]
        if i in start:
            known[i] = begin(node.size), 0
        elif not is_skipped(node, convention):
            weights = zip(node.sources, channel_weights(node, convention), strict=True)
            terms = [(known[s], float(w)) for s, w in weights if s in known]
            if terms:
                known[i] = mapped(i, _sum(terms))
        for s in node.sources:
            if last[s] == i and s not in ends:
                known.pop(s, None)
    return _sum([(known[i], float(w)) for i, w in ends.items() if i in known])[0]


def _sum(terms: list[tuple[Scaled, float]]) -> Scaled:
    if len(terms) == 1 and terms[0][1] == 1:
        return terms[0][0]
    top = max(exponent for (_, exponent), _ in terms)
    total: np.ndarray | float = 0.0
    for (array, exponent), weight in terms:
        total = total + (array if exponent == top else np.ldexp(array, exponent - top)) * weight
    return np.asarray(total), top


def _whole(graph: SpatialGraph, convention: Convention) -> Callable[[int, Scaled], Scaled]:
    """The steps of a node over whole maps."""
    return lambda i, value: _mapped(graph.nodes[i].axes, value, convention.pool == "mean")


def _mapped(axes: tuple[Axis, ...], value: Scaled, mean: bool) -> Scaled:
    array, exponent = value
    for k, axis in enumerate(axes, start=1):
        if axis == SAME:
            continue
        moved = np.moveaxis(array, k, 0)
        flat = _table(axis, len(moved), mean) @ moved.reshape(len(moved), -1)
        array = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, k)
    return scaled(array, exponent)


def scaled(array: np.ndarray, exponent: int) -> Scaled:
    """The same, within the range of float64."""
    power = int(np.frexp(array.max())[1]) if array.size else 0
    if abs(power) < ROOM:
        return array, exponent
    return np.ldexp(array, -power), exponent + power


@cache
def _table(axis: Axis, n: int, mean: bool) -> "csr_array":
    """The map as a matrix (outputs, inputs): the adjoint of every output."""
    from scipy.sparse import csr_array  # here: slow to import, and needed where units take turns

    at = axis.matrix(n)
    shares = axis.weight_table(n) if mean else None
    weights = np.ones(at.shape) if shares is None else shares
    if isinstance(axis, Window):
        weights = weights * np.array([float(w) for w in axis.tap_weights(mean)])
    inside = at >= 0
    outputs, _ = np.nonzero(inside)
    # what an output reads twice is added up
    return csr_array((weights[inside], (outputs, at[inside])), shape=(len(at), n))
