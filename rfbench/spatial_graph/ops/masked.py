"""Convolutions whose kernels have zeros: masks, pruned weights, fixed kernels with holes.

A kernel that is no product of rows and columns is a sum of rectangles of taps. A tap takes part as
often as it has pairs of channels whose weight is not zero.
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
Rectangle = tuple[slice, slice]  # of taps (y, x)


def masked(
    b: Builder, x: Value, windows: dict[int, Axis], nonzero: np.ndarray, groups: int
) -> Value:
    """A convolution of an N x C x H x W map.

    windows: by dimension, of the whole kernel. nonzero: (C_out, C_in / groups, k, k), bool.
    """
    if nonzero.ndim != 4 or len(x.dims) != 4 or x.labels.size != x.shape[1]:
        raise Scrambled("a kernel with zeros meets another layout than N x C x H x W")
    if set(windows) != {2, 3}:
        raise Scrambled("a kernel with zeros runs across channels")
    labels = x.labels.reshape(groups, -1)
    each = np.split(nonzero.astype(int), groups)
    counts = [c for part, row in zip(each, labels, strict=True) for c in _by_class(part, row)]
    terms = _Terms(b, x, windows)
    made = [b.weighted(terms.of(c), nonzero.shape[1]) for c in _classes(counts)]
    _, dims = along(b, x, windows)
    out = np.array(made).reshape(1, -1, 1, 1)
    return Value((dims[0], tidy([Factor("c", len(made))]), *dims[2:]), out)


Counts = dict[int, np.ndarray]  # by class of input channels: how often each tap takes part (k, k)


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
    """The rectangles of kernels as nodes, made once each."""

    def __init__(self, b: Builder, x: Value, windows: dict[int, Axis]) -> None:
        self.b, self.x, self.windows = b, x, windows

    def of(self, counts: Counts) -> dict[int, int | Fraction]:
        """The nodes that make an output channel, and how often each takes part."""
        terms: dict[int, int | Fraction] = defaultdict(int)
        for label, table in counts.items():
            for where, count in rectangles(table):
                parts = {2 + i: cut(self.windows[2 + i], s) for i, s in enumerate(where)}
                axes, _ = along(self.b, self.x, parts)
                terms[self.b.node("conv", [label], axes, learned=1)] += count
        return dict(terms)


def rectangles(table: np.ndarray) -> Iterator[tuple[Rectangle, int | Fraction]]:
    """A table of counts as a sum of rectangles, each with how often it is there."""
    left = table.copy()
    while left.any():
        y, x = np.argwhere(left)[0]
        count = left[y, x]
        right, bottom = x + 1, y + 1
        while right < left.shape[1] and left[y, right] >= count:
            right += 1
        while bottom < left.shape[0] and (left[bottom, x:right] >= count).all():
            bottom += 1
        where = slice(int(y), int(bottom)), slice(int(x), int(right))
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
