"""A map of path counts, and what counts as how many paths."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rfbench.rf.core.period import Period
from rfbench.spatial_graph.size import Size


@dataclass(frozen=True)
class Convention:
    """What counts as how many paths; it matters only where branches disagree.

    channels: 'single' looks at one channel (a convolution weighs 1 / C), 'real' sums over all.
    pool: 'count' gives every pixel of a pooling window one path, 'mean' keeps an average's 1 / k^2.
    gates: 'ignore' leaves out paths through a global context (squeeze-excitation), 'count' has
    them. Norms and activations are identities; a product of two maps has the paths of both.
    """

    channels: str = "single"
    pool: str = "count"
    gates: str = "ignore"

    def __str__(self) -> str:
        return f"channels={self.channels}, pool={self.pool}, gates={self.gates}"


DEFAULT = Convention()


@dataclass(frozen=True, eq=False)
class PathMap:
    """Path counts of one unit, over the map of its source.

    counts: (H, W), or of the axes that the source has, float64 or Python numbers; the number of
    paths is counts * 2^exponent. unit: (y, x) in a target map of `units` (h, w). bypass: share of
    all paths from the input to the unit that do not pass the source; 0 when the source is the
    input. period: the units that take turns with it; None where all look alike.
    """

    counts: np.ndarray
    exponent: int
    unit: Size
    units: Size
    convention: Convention
    bypass: float = 0.0
    period: Period | None = None
    _by_phase: dict[tuple[int, ...], np.ndarray] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last position along every axis that any path reaches."""
        seen = self.counts != 0
        each = (np.flatnonzero(seen.any(others)) for others in self._others)
        return [(int(at[0]), int(at[-1])) for at in each]

    @cached_property
    def centroid(self) -> tuple[float, ...]:
        """Centroid (y, x) of the counts, in source pixels."""
        values = self.counts.astype(float)
        along = (values.sum(others) for others in self._others)
        return tuple(float(v @ np.arange(len(v)) / v.sum()) for v in along)

    @property
    def _others(self) -> list[tuple[int, ...]]:
        """For every axis, all others."""
        axes = range(self.counts.ndim)
        return [tuple(a for a in axes if a != k) for k in axes]

    def by_phase(self, periods: tuple[int, ...]) -> np.ndarray:
        """The sums of the counts over the phases of a period along each axis.

        Of counts over their largest: they may be so large that their squares overflow.
        """
        if periods not in self._by_phase:
            values = self.counts.astype(float, copy=False)
            top = values.max()
            with np.errstate(over="ignore"):
                sums = phase_sums(values, periods) / top
            finite = np.isfinite(sums).all()
            self._by_phase[periods] = sums if finite else phase_sums(values / top, periods)
        return self._by_phase[periods]


def phase_sums(values: np.ndarray, periods: Sequence[int]) -> np.ndarray:
    """The sums of an array over the phases of a period along each axis."""
    for period in periods:  # always the first axis, which becomes the last
        shape, whole = values.shape[1:], len(values) // period
        sums = values[: whole * period].reshape(whole, period, *shape).sum(0)
        rest = values[whole * period :]
        sums[: len(rest)] += rest
        values = np.moveaxis(sums, 0, -1)
    return values
