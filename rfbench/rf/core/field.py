"""Where units look along one axis: the field of unit 0, its stride, and what a step makes of it.

Behind windows alone every unit looks alike: a `Field`. Behind resizing, the units of a few phases
take turns: a `Phased` field. Both tell the region of any unit in whole source positions, on an
input without borders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

import numpy as np

from rfbench.spatial_graph.axis import SAME, Axis, Dense, Expand, Full, Index, Window

Region = tuple[int, int]  # first and last position, both included; beyond the source: padding


@dataclass(frozen=True)
class Field:
    """The field of unit 0 along one axis, in source positions: first, last, and the stride S."""

    first: int
    last: int
    stride: int

    @property
    def size(self) -> int:
        """r."""
        return self.last - self.first + 1

    @property
    def padding(self) -> int:
        """P, the effective padding before."""
        return -self.first

    @property
    def phases(self) -> tuple[Region, ...]:
        """The regions of the units of one period."""
        return ((self.first, self.last),)

    @property
    def step(self) -> int:
        """Source positions a period."""
        return self.stride

    def center(self, unit: int) -> float:
        """c of a unit, in source positions."""
        return (self.first + self.last) / 2 + unit * self.stride


@dataclass(frozen=True)
class Phased:
    """The fields of units that take turns: unit u has that of phase u % p, moved by u // p steps.

    phases: the regions of units 0 ... p - 1. step: source positions from a unit to the p-th after.
    """

    phases: tuple[Region, ...]
    step: int

    @property
    def stride(self) -> Fraction:
        """S, on the average: step / p."""
        return Fraction(self.step, len(self.phases))

    @property
    def sizes(self) -> Region:
        """The smallest and the largest r."""
        sizes = [last - first + 1 for first, last in self.phases]
        return min(sizes), max(sizes)

    @property
    def size(self) -> int:
        """The largest r."""
        return self.sizes[1]

    @property
    def padding(self) -> None:
        """Units that take turns have none in common."""
        return None

    def center(self, unit: int) -> float:
        """c of a unit, in source positions."""
        first, last = region(self, unit)
        return (first + last) / 2


@dataclass(frozen=True)
class Whole:
    """Every unit sees the same, from first to last: behind learned mixing of all positions.

    It ends at the border of the source.
    """

    first: int
    last: int

    @property
    def size(self) -> int:
        """r."""
        return self.last - self.first + 1

    @property
    def stride(self) -> None:
        """Units do not move."""
        return None

    @property
    def padding(self) -> None:
        """What lies beyond the border is not looked at."""
        return None

    @property
    def phases(self) -> tuple[Region, ...]:
        """The region of every unit."""
        return ((self.first, self.last),)

    @property
    def step(self) -> int:
        """Units do not move."""
        return 0

    def center(self, unit: int) -> float:
        """c of a unit, in source positions."""
        return (self.first + self.last) / 2


Along = Field | Phased | Whole


def region(field: Along, unit: int) -> Region:
    """What a unit sees: source positions, both ends included, beyond the border where it pads."""
    turns, phase = divmod(unit, len(field.phases))
    first, last = field.phases[phase]
    return first + turns * field.step, last + turns * field.step


@lru_cache(maxsize=4096)  # asked for every class of every concatenation
def origin(field: Along) -> Fraction:
    """The centre of unit 0; of a phased field, on the average over the phases."""
    p = len(field.phases)
    middle = Fraction(sum(first + last for first, last in field.phases), 2 * p)
    if isinstance(field, Whole):
        return middle
    return middle - field.stride * Fraction(p - 1, 2)


def units_containing(field: Along, position: int, units: int) -> Region | None:
    """The first and last of `units` units whose region contains a source position, or None."""
    hits = [u for u in range(units) if region(field, u)[0] <= position <= region(field, u)[1]]
    return (hits[0], hits[-1]) if hits else None


def whole(field: Along, units: int, source: int) -> Whole | None:
    """What so many units of a field see together of the source's positions; None: nothing."""
    p = len(field.phases)
    ends = [region(field, u) for u in {*range(min(p, units)), *range(max(0, units - p), units)}]
    first, last = max(0, min(a for a, _ in ends)), min(source - 1, max(b for _, b in ends))
    return Whole(first, last) if first <= last else None


def union(fields: Sequence[Along | None], units: int, source: int) -> Along | None:
    """The smallest field that holds all; None where one is None or the strides differ.

    units, source: positions of the map, and of the source. Beside a Whole that holds what all units
    of another field see of the source, that field adds nothing.
    """
    each = [f for f in fields if f is not None]
    if not each or len(each) < len(fields):
        return None
    if not isinstance(each[0], Whole) and all(f is each[0] for f in each):
        return each[0]
    if any(isinstance(f, Whole) for f in each):
        seen = [w for f in each if (w := whole(f, units, source)) is not None]
        both = Whole(min(w.first for w in seen), max(w.last for w in seen))
        return both if both in each else None
    strided = [f for f in each if not isinstance(f, Whole)]
    return _union(strided)


def _union(each: list[Field | Phased]) -> Along | None:
    if len({f.stride for f in each}) > 1:
        return None
    if all(isinstance(f, Field) for f in each):
        first, last = min(f.phases[0][0] for f in each), max(f.phases[0][1] for f in each)
        return Field(first, last, each[0].step)
    p = lcm(*(len(f.phases) for f in each))
    every = [[region(f, u) for f in each] for u in range(p)]
    phases = [(min(a for a, _ in turn), max(b for _, b in turn)) for turn in every]
    return tidy(phases, each[0].step * p // len(each[0].phases))


def tidy(phases: Sequence[Region], step: int) -> Along:
    """The field with the fewest phases."""
    n = len(phases)
    for p in (p for p in range(1, n + 1) if n % p == 0 and step * p % n == 0):
        short = Phased(tuple(phases[:p]), step * p // n)
        if all(region(short, u) == phases[u] for u in range(n)):
            return Field(*phases[0], short.step) if p == 1 else short
    raise AssertionError("a field is its own period")


def apply(field: Along, step: Axis, n: int, source: int) -> Along | None:
    """The field behind a map along n positions; None where units have nothing in common."""
    if step is SAME or isinstance(field, Whole):
        return field
    if isinstance(step, Dense):
        return whole(field, n, source)
    if isinstance(step, Index) and step.inner is not None:
        step = step.inner
    if isinstance(step, Window) and isinstance(field, Field):
        first = field.first - step.before * field.stride
        last = field.last + (step.extent - 1 - step.before) * field.stride
        return Field(first, last, step.stride * field.stride)
    if isinstance(step, Window):
        taps: Phased | None = Phased(((-step.before, step.extent - 1 - step.before),), step.stride)
    elif isinstance(step, Full):
        taps = Phased(((0, n - 1),), n)
    else:
        taps = None if isinstance(step, Expand) else _of_index(step, n)
    return None if taps is None else _behind(field, taps)


def _of_index(step: Index, n: int) -> Phased | None:
    return Phased(step.phases, 1) if step.phases else pattern(step.at, n, step.period)


def _behind(field: Along, taps: Phased) -> Along:
    """The field of units that see the units `taps` of a field."""
    p = len(taps.phases) * (len(field.phases) // gcd(len(field.phases), taps.step))
    phases = []
    for u in range(p):
        first, last = region(taps, u)
        # with few phases, the unit that looks farthest need not be the first or the last
        ends = [region(field, i) for i in _outer(first, last, len(field.phases))]
        phases.append((min(a for a, _ in ends), max(b for _, b in ends)))
    step = taps.step * (p // len(taps.phases)) * field.step // len(field.phases)
    return tidy(phases, step)


def _outer(first: int, last: int, p: int) -> list[int]:
    """The units of a range that may look farthest: a period at either end."""
    return sorted(
        {*range(first, min(first + p, last + 1)), *range(max(first, last - p + 1), last + 1)}
    )


def pattern(at: np.ndarray, n: int, period: tuple[int, int] | None = None) -> Phased | None:
    """The taps of the inner outputs of an Index, where these repeat; None where they do not.

    at: (outputs, taps), -1 for none. period: where it is known, see Index; of one that is as long
    as the outputs, all of these are looked at. Else what touches a border of the n inputs may be
    less than whole and is not looked at. Three whole periods are asked for, since rounding may
    repeat by chance; two where the stride is that of inputs to outputs.
    """
    low = np.where(at >= 0, at, n).min(1)
    high = at.max(1)
    inner = np.flatnonzero((low > 0) & (high < n - 1) & (high >= 0))
    if period is not None and period[0] > len(inner) - 2:
        return _whole(low, high, *period)
    if len(inner) < 2 or inner[-1] - inner[0] + 1 != len(inner):
        return None
    low, high, a = low[inner], high[inner], int(inner[0])
    for p in range(1, len(inner) // 2 + 1) if period is None else (period[0],):
        q = int(low[p] - low[0])
        if period is None and len(inner) < 3 * p and q * len(at) != n * p:
            continue
        if q > 0 and all((v[p:] - v[:-p] == q).all() for v in (low, high)):
            shifted = Phased(tuple(zip(low[:p].tolist(), high[:p].tolist(), strict=True)), q)
            return Phased(tuple(region(shifted, u - a) for u in range(p)), q)
    return None


def _whole(low: np.ndarray, high: np.ndarray, p: int, q: int) -> Phased | None:
    """A period of p outputs, none of which is left out; None where there are not so many."""
    if p > len(low) or any((v[p:] - v[: len(v) - p] != q).any() for v in (low, high)):
        return None
    return Phased(tuple(zip(low[:p].tolist(), high[:p].tolist(), strict=True)), q)
