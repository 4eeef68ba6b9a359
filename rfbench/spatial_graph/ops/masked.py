"""Convolutions whose kernels have zeros: masks, pruned weights, fixed kernels with holes.

A kernel that is no product of its axes is a sum of boxes of taps (rectangles in an image). A tap
takes part as often as it has pairs of channels whose weight is not zero.
"""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from rfbench.spatial_graph.axis import Axis, Index, Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import CONSTANT, Factor, Scrambled, Value, tidy
from rfbench.spatial_graph.ops.slide import along

MOST = 2048  # taps of all pairs of classes; with more, the output channels are one class
Box = tuple[slice, ...]  # of taps, along every axis


def masked(
    b: Builder, x: Value, windows: dict[int, Axis], nonzero: np.ndarray, groups: int
) -> Value:
    """A convolution of a map, 1 x C x the axes.

    windows: by dimension, of the whole kernel. nonzero: (C_out, C_in / groups, k, ...), bool.
    """
    rank = len(b.letters) + 2
    if nonzero.ndim != rank or len(x.dims) != rank or x.labels.size != x.shape[1]:
        raise Scrambled(f"a kernel with zeros meets another layout than {_layout(b)}")
    if set(windows) != set(range(2, rank)):
        raise Scrambled("a kernel with zeros runs across channels")
    labels = x.labels.reshape(groups, -1)
    each = np.split(nonzero.astype(int), groups)
    counts = [c for part, row in zip(each, labels, strict=True) for c in _by_class(part, row)]
    terms = _Terms(b, x, windows)
    made = [b.weighted(terms.of(c), nonzero.shape[1]) for c in _classes(counts)]
    _, dims = along(b, x, windows)
    out = np.array(made).reshape(1, -1, *(1 for _ in b.letters))
    return Value((dims[0], tidy([Factor("c", len(made))]), *dims[2:]), out)


def _layout(b: Builder) -> str:
    return " x ".join(["N", "C", *b.letters.upper()])


Counts = dict[int, np.ndarray]  # by class of input channels: how often each tap takes part


def _by_class(part: np.ndarray, labels: np.ndarray) -> list[Counts]:
    """For every output channel of a group."""
    known = [int(i) for i in np.unique(labels) if i != CONSTANT]
    sums = {i: part[:, labels == i].sum(1) for i in known}
    return [{i: table[o] for i, table in sums.items() if table[o].any()} for o in range(len(part))]


def _classes(counts: list[Counts]) -> list[Counts]:
    """The same, or where the channels differ in too many ways, their mean for each of them."""
    keys = {tuple((i, t.tobytes()) for i, t in c.items()) for c in counts}
    pairs = max((len(c) for c in counts), default=0)
    size = next((t.size for c in counts for t in c.values()), 0)
    alive = [c for c in counts if c]
    if len(keys) * pairs * size <= MOST:
        return counts
    total: Counts = defaultdict(lambda: np.zeros((), int))
    for c in alive:
        for i, table in c.items():
            total[i] = total[i] + table
    mean = {i: table * Fraction(1, len(alive)) for i, table in total.items()}
    return [mean if c else c for c in counts]


class _Terms:
    """The boxes of kernels as nodes, made once each."""

    def __init__(self, b: Builder, x: Value, windows: dict[int, Axis]) -> None:
        self.b, self.x, self.windows = b, x, windows

    def of(self, counts: Counts) -> dict[int, int | Fraction]:
        """The nodes that make an output channel, and how often each takes part."""
        terms: dict[int, int | Fraction] = defaultdict(int)
        for label, table in counts.items():
            for where, count in boxes(table):
                parts = {2 + i: cut(self.windows[2 + i], s) for i, s in enumerate(where)}
                axes, _ = along(self.b, self.x, parts)
                terms[self.b.node("conv", [label], axes, learned=1)] += count
        return dict(terms)


def boxes(table: np.ndarray) -> Iterator[tuple[Box, int | Fraction]]:
    """A table of counts as a sum of boxes, each with how often it is there."""
    left = table.copy()
    while left.any():
        corner = np.argwhere(left)[0].tolist()
        count, ends = left[tuple(corner)], [at + 1 for at in corner]
        for axis in reversed(range(left.ndim)):  # as long as it can be along the last, and so on
            while ends[axis] < left.shape[axis]:
                more = [slice(a, b) for a, b in zip(corner, ends, strict=True)]
                more[axis] = slice(ends[axis], ends[axis] + 1)
                if (left[tuple(more)] < count).any():
                    break
                ends[axis] += 1
        where = tuple(slice(a, b) for a, b in zip(corner, ends, strict=True))
        left[where] -= count
        yield where, count if isinstance(count, Fraction) else int(count)


def cut(axis: Axis, taps: slice) -> Axis:
    """The map of some neighbouring taps of a kernel."""
    if isinstance(axis, Index):
        return Index(axis.at[:, taps])
    if not isinstance(axis, Window):
        raise Scrambled("a kernel with zeros is no window")
    before = axis.before - taps.start * axis.dilation
    after = axis.after - (axis.kernel - taps.stop) * axis.dilation
    return Window(taps.stop - taps.start, axis.stride, before, after, axis.dilation)
