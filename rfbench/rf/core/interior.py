"""The units of a map that no border cuts, from one period of every map before it.

Far from the borders a network treats all places alike, a period of L source positions apart. So a
few units of each map stand for all: L / S of them behind a stride S, whatever the size of the
image. `all_units` of forward.py, which needs whole maps, gives the same for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from rfbench.rf.core.field import Field, Phased, Sparse
from rfbench.rf.core.forward import Scaled, scaled, sums
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.period import Period
from rfbench.rf.core.theory import Theory
from rfbench.spatial_graph.axis import SAME, Axis, Index, Window
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node

Strides = tuple[int | Fraction, ...]


class _Irregular(Exception):
    """Units are not alike every L positions, as far as can be told."""


@dataclass(frozen=True, eq=False)
class Interior:
    """One period of the units of a map.

    moved: (axes, h, w), how far the centroid of unit u is from u S, for u modulo (h, w). totals:
    (h, w), as in `Period`. strides: S along each axis.
    """

    moved: np.ndarray
    totals: np.ndarray
    strides: Strides

    def period(self, where: Sequence[slice]) -> Period:
        """The units of these ranges, which no border cuts."""
        units = [np.arange(part.start, part.stop) for part in where]
        one = np.ix_(*(u % n for u, n in zip(units, self.totals.shape, strict=True)))
        steps = [u * float(s) for u, s in zip(units, self.strides, strict=True)]
        places = np.stack(np.meshgrid(*steps, indexing="ij"))
        first = tuple(part.start for part in where)
        return Period(first, self.moved[(slice(None), *one)] + places, self.totals[one])


def interior(
    graph: SpatialGraph, target: Value, source: Value | None, theory: Theory, convention: Convention
) -> Interior | None:
    """One period of the units of a tensor; None where some map on the way has no such period."""
    try:
        period = _Torus(graph, target, theory)
        moments = sums(graph, target, source, convention, period.places, period.mapped(convention))
        weighed = Convention(convention.channels, "mean", convention.gates)
        totals = moments
        if convention != weighed:
            totals = sums(graph, target, source, weighed, period.ones, period.mapped(weighed))
    except _Irregular:
        return None
    with np.errstate(invalid="ignore"):
        moved = moments[1:] / moments[0]
    # some of its channels may see nothing of the source
    strides = next(period.strides[i] for i in graph.share(target) if i in period.strides)
    return Interior(moved, totals[0], strides)


class _Torus:
    """Every map of a graph as a few units, after which it repeats."""

    def __init__(self, graph: SpatialGraph, target: Value, theory: Theory) -> None:
        self.graph = graph
        self.strides: dict[int, Strides] = {}
        lengths = [1] * len(graph.size)
        for i in graph.ancestors(set(graph.share(target))):
            fields = theory.fields[i]
            if graph.nodes[i].kind == "context" or fields is None:
                continue  # left out, or no path leads there
            strides = []
            for k, field in enumerate(fields):
                if not isinstance(field, Field | Phased | Sparse) or not any(field.phases):
                    raise _Irregular
                lengths[k] = lcm(lengths[k], field.step)
                strides.append(field.stride)
            self.strides[i] = tuple(strides)
        if any(self.strides.get(i, (0,)) != (1,) * len(lengths) for i in theory.start):
            raise _Irregular  # inputs of several sizes
        if any(length > n for length, n in zip(lengths, theory.source, strict=True)):
            raise _Irregular  # whole maps are smaller
        self.lengths = tuple(lengths)
        self._tables: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    def ones(self, _: object) -> np.ndarray:
        """(1, L, L): one path to each position."""
        return np.ones((1, *self.lengths))

    def places(self, _: object) -> np.ndarray:
        """(3, L, L): one path to each position, which is not moved."""
        start = np.zeros((1 + len(self.lengths), *self.lengths))
        start[0] = 1
        return start

    def mapped(self, convention: Convention) -> Callable[[int, Scaled], Scaled]:
        """What the steps of a node make of its sources: paths, and how far these are moved."""

        def step(i: int, value: Scaled) -> Scaled:
            node, (array, exponent) = self.graph.nodes[i], value
            for k, axis in enumerate(node.axes):
                if axis == SAME:
                    continue
                paths, moves = self._table(i, node, k, axis, convention.pool == "mean")
                old = np.moveaxis(array, 1 + k, 0)
                new = np.tensordot(paths, old, 1)
                if len(array) > 1:
                    new[:, 1 + k] += np.tensordot(moves, old[:, 0], 1)
                array = np.moveaxis(new, 0, 1 + k)
            return scaled(array, exponent)

        return step

    def _table(
        self, i: int, node: Node, k: int, axis: Axis, mean: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, inputs) of one period: the paths, and these times how far they are moved."""
        s = next((s for s in node.sources if s in self.strides), None)
        if s is None or i not in self.strides:
            raise _Irregular
        stride, behind, length = self.strides[s][k], self.strides[i][k], self.lengths[k]
        size, units = self.graph.nodes[s].size[k], node.size[k]
        key = axis, size, length, stride, behind, mean
        if key not in self._tables:
            n, m = int(length / stride), int(length / behind)
            first = _inner_block(axis, size, units, n, m, mean)
            back, at = axis.adjoint((np.eye(m), first), 0, size, mean)
            paths, moves = np.zeros((m, n)), np.zeros((m, n))
            j, u = np.nonzero(back)
            weight = back[j, u]
            far = (j + at) * float(stride) - (u + first) * float(behind)
            where = (u + first) % m, (j + at) % n
            np.add.at(paths, where, weight)
            np.add.at(moves, where, weight * far)
            self._tables[key] = paths, moves
        return self._tables[key]


def _inner_block(axis: Axis, size: int, units: int, n: int, m: int, mean: bool) -> int:
    """The first of m outputs in the middle, which stand for all behind n inputs each."""
    if isinstance(axis, Index) and axis.inner is not None:
        axis = axis.inner
    first = (units - m) // 2
    if isinstance(axis, Window):
        begin = first * axis.stride - axis.before
        if first < 0 or begin < 0 or begin + (m - 1) * axis.stride + axis.extent > size:
            raise _Irregular
        return first
    if not isinstance(axis, Index):
        raise _Irregular
    low = np.where(axis.at >= 0, axis.at, size).min(1)
    high = axis.at.max(1)
    # behind all that touch the one border, before all that touch the other
    begin = int(np.flatnonzero(low == 0).max(initial=-1)) + 1
    end = int(np.flatnonzero(high == size - 1).min(initial=len(low)))
    rows = axis.at[begin:end]
    if not begin <= first <= end - m or len(rows) <= m:
        raise _Irregular
    if (np.where(rows[:-m] < 0, -1, rows[:-m] + n) != rows[m:]).any():
        raise _Irregular
    if mean and axis.weights is not None:
        weights = axis.weights[begin:end]
        if not np.allclose(weights[:-m], weights[m:], rtol=0, atol=1e-12):
            raise _Irregular
    return first
