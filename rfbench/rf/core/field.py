"""Where units look along one axis: the field of unit 0, its stride, and what a step makes of it.

Behind windows alone every unit looks alike: a `Field`. Behind resizing, the units of a few phases
take turns: a `Phased` field. Both tell the region of any unit in whole source positions, on an
input without borders. Where zeros stand between rows, some units read nothing: a `Sparse` field,
until a kernel covers the gaps. steps.py says what a step makes of a field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm

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


@dataclass(frozen=True)
class Sparse:
    """The fields of units that take turns as those of `Phased`; None for one that reads nothing.

    Where none reads anything the step says nothing.
    """

    phases: tuple[Region | None, ...]
    step: int

    @property
    def stride(self) -> Fraction:
        """S, on the average: step / p."""
        return Fraction(self.step, len(self.phases))


Along = Field | Phased | Whole
Turns = Field | Phased | Sparse
Step = Along | Sparse  # on the way to a map


def seen_by(field: Turns, unit: int) -> Region | None:
    """What a unit sees, as `region`; None: nothing."""
    turns, phase = divmod(unit, len(field.phases))
    own = field.phases[phase]
    return own and (own[0] + turns * field.step, own[1] + turns * field.step)


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


def union(
    fields: Sequence[Along | Sparse | None], units: int, source: int
) -> Along | Sparse | None:
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
        if any(isinstance(f, Sparse) for f in each):
            return None
        seen = [w for f in each if not isinstance(f, Sparse) and (w := whole(f, units, source))]
        both = Whole(min(w.first for w in seen), max(w.last for w in seen))
        return both if both in each else None
    return _union([f for f in each if not isinstance(f, Whole)])


def _union(each: list[Turns]) -> Turns | None:
    each = [f for f in each if any(f.phases)] or each[:1]  # what reads nothing adds nothing
    if len({f.stride for f in each}) > 1:
        return None
    p = lcm(*(len(f.phases) for f in each))
    phases = [span([seen_by(f, u) for f in each]) for u in range(p)]
    return tidy(phases, each[0].step * p // len(each[0].phases))


def span(regions: Sequence[Region | None]) -> Region | None:
    """The smallest region that holds all; None where all are nothing."""
    known = [r for r in regions if r is not None]
    return (min(a for a, _ in known), max(b for _, b in known)) if known else None


def tidy(phases: Sequence[Region | None], step: int) -> Turns:
    """The field with the fewest phases."""
    n = len(phases)
    if not any(phases):
        return Sparse((None,), 1)  # rows that stay zeros until others are written
    for p in (p for p in range(1, n + 1) if n % p == 0 and step * p % n == 0):
        short = Sparse(tuple(phases[:p]), step * p // n)
        if all(seen_by(short, u) == phases[u] for u in range(n)):
            break
    known = tuple(r for r in short.phases if r is not None)
    if len(known) < len(short.phases):
        return short
    return Field(*known[0], short.step) if len(known) == 1 else Phased(known, short.step)
