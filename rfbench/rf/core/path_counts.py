"""Path counts: in how many ways does each input pixel reach a unit? (Ge & Wu, section 3.)

One adjoint pass over the spatial graph, cropped to the cone of the unit. Counts grow like
9^depth, so every node carries a power of two beside its array; `exact` does the same additions on
Python integers and fractions.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

import numpy as np

from rfbench.rf.core import memory
from rfbench.rf.core.path_map import DEFAULT, Convention, PathMap
from rfbench.spatial_graph.axis import SAME, Axis
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node
from rfbench.spatial_graph.size import Size, by

LARGE = 2.0**900  # rescale above this, far from float64's end and from its beginning
SMALL = 2.0**-900  # what rescaling would lose is kept at this: no pixel falls out of the support


@dataclass
class _Patch:
    """Counts of a box of a node's map: the array, its first corner, a power of two.

    tame: whether it is known to be far from the largest number.
    """

    array: np.ndarray
    at: Size
    exponent: int = 0
    tame: bool = False

    def scaled(self, weight: Fraction) -> "_Patch":
        if weight is ONCE or weight == 1:
            return self
        number = weight if self.array.dtype == object else float(weight)
        return _Patch(_simple(self.array * number), self.at, self.exponent)

    def plus(self, other: "_Patch") -> "_Patch":
        mine, others = ((p.at, p.array.shape, p.exponent) for p in (self, other))
        if mine == others:
            return _Patch(self.array + other.array, self.at, self.exponent)
        exponent = max(self.exponent, other.exponent)
        at = tuple(map(min, self.at, other.at))
        ends = tuple(map(max, self._end, other._end))
        out = np.zeros([b - a for a, b in zip(at, ends, strict=True)], self.array.dtype)
        for part in (self, other):
            where = zip(part.at, part._end, at, strict=True)
            inside = tuple(slice(first - a, last - a) for first, last, a in where)
            out[inside] += _scaled(part.array, part.exponent - exponent)
        return _Patch(out, at, exponent)

    @property
    def _end(self) -> Size:
        return tuple(a + n for a, n in zip(self.at, self.array.shape, strict=True))

    def tamed(self) -> "_Patch":
        if self.tame or self.array.dtype == object or not self.array.size:
            return self
        if self.array.max() < LARGE:
            self.tame = True
            return self
        power = int(np.frexp(self.array.max())[1])
        return _Patch(_scaled(self.array, -power), self.at, self.exponent + power)


def _scaled(array: np.ndarray, power: int) -> np.ndarray:
    """array * 2^power, positive where the array is."""
    if not power:
        return array
    out = np.ldexp(array, power)
    return np.where((array > 0) & (out < SMALL), SMALL, out)


def _simple(array: np.ndarray) -> np.ndarray:
    """Fractions with denominator 1 become integers again."""
    if array.dtype != object:
        return array
    tidy = [int(v) if getattr(v, "denominator", 1) == 1 else v for v in array.flat]
    out = np.empty(len(tidy), object)
    out[:] = tidy
    return out.reshape(array.shape)


def count_tensor(
    graph: SpatialGraph,
    target: Value,
    unit: Size,
    source: Value | None = None,
    convention: Convention = DEFAULT,
    exact: bool = False,
) -> PathMap | None:
    """Path counts of a position of any tensor, or of some channels of one; None: no path.

    `Target.counts` is of a layer by its name.
    """
    start = _start(graph, target, unit, convention, exact)
    labels = set(graph.share(source)) if source is not None else {0}
    patches = _adjoint(graph, start, labels, convention)
    if not patches:
        return None
    counts, exponent = _whole(graph, patches, exact)
    bypass = _bypass(graph, start, labels, convention) if source is not None else 0.0
    return PathMap(counts, exponent, unit, graph.map_size(target), convention, bypass)


def paths_to_all(graph: SpatialGraph, target: Value, source: Value | None = None) -> np.ndarray:
    """How many paths lead from each position of the source to any unit, up to a common factor.

    As large as the source; 0 where a position reaches no unit.
    """
    corner = (0,) * len(graph.size)
    start = _start(graph, target, corner, DEFAULT, False)
    whole = np.ones(graph.map_size(target))
    every = {i: _Patch(whole * patch.array, corner) for i, patch in start.items()}
    labels = set(graph.share(source)) if source is not None else {0}
    return _whole(graph, _adjoint(graph, every, labels, DEFAULT), False)[0]


def _start(
    graph: SpatialGraph, target: Value, unit: Size, convention: Convention, exact: bool
) -> dict[int, _Patch]:
    one = np.ones((1,) * len(unit), dtype=object if exact else np.float64)
    return {
        node: _Patch(one, unit).scaled(weight)
        for node, weight in shares(graph, target, convention).items()
    }


def shares(graph: SpatialGraph, target: Value, convention: Convention) -> dict[int, Fraction]:
    """What each class of channels of a tensor weighs in the counts of a unit."""
    weigh = target.labels.size if convention.channels == "single" else 1
    return {node: Fraction(count, weigh) for node, count in graph.share(target).items()}


def is_skipped(node: Node, convention: Convention) -> bool:
    """Whether paths through a node are left out."""
    return node.kind == "context" and convention.gates == "ignore"


ONCE = Fraction(1)
_share = lru_cache(maxsize=4096)(Fraction)  # many classes have as many channels


def channel_weights(node: Node, convention: Convention) -> list[Fraction]:
    """What each source of a node weighs."""
    return [_weight(node, n, convention) for n in node.counts]


def _weight(node: Node, count: int | Fraction, convention: Convention) -> Fraction:
    """What a source of a node weighs that takes part so often."""
    if node.channels and (convention.channels == "single" or node.kind != "conv"):
        return _share(count, node.channels)
    return ONCE if count == 1 else Fraction(count)


def _adjoint(
    graph: SpatialGraph,
    start: dict[int, _Patch],
    wanted: set[int],
    convention: Convention,
    blocked: frozenset[int] = frozenset(),
) -> dict[int, _Patch]:
    """Carry counts back from `start` to the nodes `wanted`, never through `blocked` ones."""
    useful = _descendants(graph, wanted)
    waiting, arrived = dict(start), {}
    for i in range(max(start), -1, -1):
        patch = waiting.pop(i, None)
        if patch is None or i in blocked:
            continue
        if i in wanted:
            arrived[i] = patch
            continue
        node = graph.nodes[i]
        sources = [s for s in node.sources if s in useful]
        if not sources or is_skipped(node, convention):
            continue
        if node.kind == "same":
            back = patch.tamed()
        else:
            back = _through(node.axes, patch, graph.nodes[node.sources[0]].size, convention)
        if not back.array.size:
            continue
        weighed: dict[int | Fraction, _Patch] = {}  # by how often a source takes part
        for s, n in zip(node.sources, node.counts, strict=True):
            if s in useful:
                if n not in weighed:
                    weighed[n] = back.scaled(_weight(node, n, convention))
                part = weighed[n]
                waiting[s] = waiting[s].plus(part) if s in waiting else part
    return arrived


def _through(axes: tuple[Axis, ...], patch: _Patch, size: Size, convention: Convention) -> _Patch:
    if all(axis is SAME for axis in axes):
        return patch.tamed()
    array, at = patch.array, list(patch.at)
    for k, (axis, n) in enumerate(zip(axes, size, strict=True)):
        if axis is not SAME:
            array, at[k] = axis.adjoint((array, at[k]), k, n, convention.pool == "mean")
    return _Patch(array, tuple(at), patch.exponent).tamed()


def _descendants(graph: SpatialGraph, nodes: set[int]) -> set[int]:
    out = set(nodes)
    for i in range(min(nodes), len(graph.nodes)):
        if not out.isdisjoint(graph.nodes[i].sources):
            out.add(i)
    return out


def _whole(graph: SpatialGraph, patches: dict[int, _Patch], exact: bool) -> tuple[np.ndarray, int]:
    """All patches on the whole map of the source."""
    size = graph.nodes[next(iter(patches), 0)].size
    needed = 3 * 8 * prod(size)  # two terms and their sum
    memory.check(needed, f"a map of {by(size)} positions", "Choose a smaller --size.")
    total = _Patch(np.zeros(size, object if exact else np.float64), (0,) * len(size))
    for patch in patches.values():
        total = total.plus(patch)
    return total.array, total.exponent


def _bypass(
    graph: SpatialGraph, start: dict[int, _Patch], labels: set[int], convention: Convention
) -> float:
    """The share of the paths from all inputs that pass by a source; 0 where it is an input."""
    inputs = {i for i, node in enumerate(graph.nodes) if node.kind == "input"}
    if labels <= inputs:
        return 0.0
    every = _paths(_adjoint(graph, start, inputs, convention))
    around = _paths(_adjoint(graph, start, inputs, convention, frozenset(labels)))
    return float(around / every) if every else 0.0


def _paths(patches: dict[int, _Patch]) -> Fraction:
    """All counts of some nodes together."""
    each = (Fraction(p.array.sum()) * Fraction(2) ** p.exponent for p in patches.values())
    return sum(each, Fraction(0))
