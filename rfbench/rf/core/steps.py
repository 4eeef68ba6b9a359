"""What a step of a network makes of the field of its units along one axis (theory, forwards)."""

from collections.abc import Iterable
from math import gcd

import numpy as np

from rfbench.rf.core.field import (
    Along,
    Field,
    Phased,
    Region,
    Sparse,
    Turns,
    Whole,
    seen_by,
    span,
    tidy,
    whole,
)
from rfbench.spatial_graph.axis import SAME, Axis, Dense, Expand, Full, Index, Window


def apply(field: Along | Sparse, step: Axis, n: int, source: int) -> Along | Sparse | None:
    """The field behind a map along n positions; None where units have nothing in common."""
    if step is SAME or isinstance(field, Whole):
        return field
    if isinstance(step, Dense):
        return None if isinstance(field, Sparse) else whole(field, n, source)
    if isinstance(step, Index) and step.inner is not None:
        step = step.inner
    if isinstance(step, Window) and isinstance(field, Field):
        first = field.first - step.before * field.stride
        last = field.last + (step.extent - 1 - step.before) * field.stride
        return Field(first, last, step.stride * field.stride)
    if isinstance(step, Window):
        return _window(field, step)
    if isinstance(step, Full):
        return _behind(field, Phased(((0, n - 1),), n))
    if isinstance(step, Expand) or (isinstance(field, Sparse) and _skips(step)):
        return None
    taps = Sparse(step.phases, 1) if step.phases else pattern(step.at, n, step.period)
    return None if taps is None else _behind(field, taps)


def _skips(step: Index) -> bool:
    """Whether some output leaves out an input between two that it reads."""
    inside = step.at >= 0
    low = np.where(inside, step.at, step.at.max()).min(1)
    return bool(((step.at.max(1) - low + 1 != inside.sum(1)) & inside.any(1)).any())


def _window(field: Turns, step: Window) -> Turns | None:
    """The field behind a window over units that take turns: of its outermost taps of every turn."""
    weights = step.taps or (1,) * step.kernel
    taps = [t * step.dilation - step.before for t, weight in enumerate(weights) if weight]
    p = len(field.phases)
    if not step.taps:  # evenly spaced: a period of taps at either end holds every turn
        taps = [*dict.fromkeys([*taps[:p], *taps[-p:]])]
    turns = p // gcd(p, step.stride)
    phases = [span([seen_by(field, u * step.stride + t) for t in taps]) for u in range(turns)]
    return tidy(phases, step.stride * turns * field.step // p)


def _behind(field: Turns, taps: Turns) -> Turns | None:
    """The field of units that see the units `taps` of a field."""
    p = len(taps.phases) * (len(field.phases) // gcd(len(field.phases), taps.step))
    phases = []
    for u in range(p):
        ends = seen_by(taps, u)
        # with few phases, the unit that looks farthest need not be the first or the last
        seen = [seen_by(field, i) for i in _outer(*ends, len(field.phases))] if ends else []
        phases.append(span(seen))
    step = taps.step * (p // len(taps.phases)) * field.step // len(field.phases)
    return tidy(phases, step)


def _outer(first: int, last: int, p: int) -> list[int]:
    """The units of a range that may look farthest: a period at either end."""
    return sorted(
        {*range(first, min(first + p, last + 1)), *range(max(first, last - p + 1), last + 1)}
    )


def pattern(at: np.ndarray, n: int, period: tuple[int, int] | None = None) -> Turns | None:
    """The taps of the inner outputs of an Index, where these repeat; None where they do not.

    at: (outputs, taps), -1 for none. period: where it is known, see Index; of one that is as long
    as the outputs, all of these are looked at. Else what touches a border of the n inputs may be
    less than whole and is not looked at. Three whole periods are asked for, since rounding may
    repeat by chance; two where the stride is that of inputs to outputs. An output without a tap is
    one between others (zeros between rows), or reads beyond the border.
    """
    if period == (0, 0):
        return None
    low = np.where(at >= 0, at, n).min(1)
    high = at.max(1)
    # behind all that touch the one border, before all that touch the other
    begin = int(np.flatnonzero(low == 0).max(initial=-1)) + 1
    end = int(np.flatnonzero(high == n - 1).min(initial=len(at)))
    inner = begin + np.flatnonzero(high[begin:end] >= 0)
    if period is not None and period[0] > len(inner) - 2:
        return _whole(low, high, *period)
    if len(inner) < 2:
        return None
    a, rows = int(inner[0]), slice(int(inner[0]), int(inner[-1]) + 1)
    count, none = rows.stop - a, high[rows] < 0
    for p in range(1, count // 2 + 1) if period is None else (period[0],):
        if none[p]:
            continue
        q = int(low[a + p] - low[a])
        if period is None and count < 3 * p and q * len(at) != n * p:
            continue
        if q > 0 and _repeats(low[rows], high[rows], none, p, q):
            found = _regions(low[a : a + p], high[a : a + p])
            shifted = Sparse(tuple(found), q)
            made = Sparse(tuple(seen_by(shifted, u - a) for u in range(p)), q)
            return made if _explains(made, high, n) else None
    return None


def _repeats(low: np.ndarray, high: np.ndarray, none: np.ndarray, p: int, q: int) -> bool:
    """Whether output o + p reads what output o reads, moved by q inputs, or nothing as it does."""
    if (none[p:] != none[:-p]).any():
        return False
    some = ~none[p:]
    return all(bool((v[p:] - v[:-p] == q)[some].all()) for v in (low, high))


def _explains(field: Sparse, high: np.ndarray, n: int) -> bool:
    """Whether the central output follows the pattern: a mask may have taken it out."""
    center = (len(high) - 1) // 2
    seen = seen_by(field, center)
    return high[center] >= 0 or seen is None or seen[1] < 0 or seen[0] > n - 1


def _regions(low: np.ndarray, high: np.ndarray) -> Iterable[Region | None]:
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return [None if last < 0 else (first, last) for first, last in ends]


def _whole(low: np.ndarray, high: np.ndarray, p: int, q: int) -> Phased | None:
    """A period of p outputs, none of which is left out; None where there are not so many."""
    if p > len(low) or (high < 0).any():
        return None
    if any((v[p:] - v[: len(v) - p] != q).any() for v in (low, high)):
        return None
    return Phased(tuple(zip(low[:p].tolist(), high[:p].tolist(), strict=True)), q)
