"""Where tiles lie: halo, alignment, the smallest crop, and the units taken from each crop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import ceil, floor, prod

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.field import Along, region
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.rf.questions.tiles.exact import NoTiles, check_local, culprit, same_units

Pixels = tuple[int, ...]  # along every axis


LARGEST = 256  # px of alignment that are tried: the largest strides are 64


@dataclass(frozen=True)
class Part:
    """A crop along one axis, in px, and the units [first, last) of the whole map taken from it.

    own: the first of these in the crop's own map.
    """

    start: int
    size: int
    first: int
    last: int
    own: int


@dataclass(frozen=True)
class Margins:
    """What tiles of a layer need along one axis.

    before, after: px that its units read beyond the tile that they stand for. align: crops start at
    multiples of it. stride: px a unit. lost: units at the start of a crop, and in all, that are not
    those of the whole image, on a crop whose `smallest` size leaves `align` px of use.
    """

    before: int
    after: int
    align: int
    stride: Fraction
    lost: tuple[int, int]
    smallest: int
    units: int  # of the smallest crop's map

    def used(self, crop: int) -> int:
        """How far apart crops of this size may start, in px."""
        units = self.units + Fraction(crop - self.smallest) / self.stride - self.lost[1]
        return floor(units * self.stride / self.align) * self.align

    def parts(self, side: int, crop: int, units: int) -> list[Part]:
        """The crops of a whole side, whose map has so many units."""
        step = self.used(crop)
        count = 1 + max(0, ceil(Fraction(side - crop, step)))
        out: list[Part] = []
        for i in range(count):
            start, begin = i * step, int(i * step / self.stride)
            first = out[-1].last if out else 0
            last = units if i == count - 1 else begin + self.lost[0] + int(step / self.stride)
            out.append(Part(start, min(crop, side - start), first, last, first - begin))
        return out


@dataclass(frozen=True)
class Tile:
    """A crop and the units taken from it, along every axis."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> Pixels:
        """Of the crop."""
        return tuple(p.size for p in self.parts)

    @property
    def start(self) -> Pixels:
        """Of the crop in the image."""
        return tuple(p.start for p in self.parts)


def at(network: Network, own: Target, size: Pixels) -> Target:
    """The target on an input of this size, of several the largest.

    Raises UsageError where other inputs would not be whole numbers of px.
    """
    first = [Fraction(n, m) for n, m in zip(own.graph.size, own.source_size, strict=True)]
    sides = [n * scale for n, scale in zip(size, first, strict=True)]
    if any(n.denominator > 1 for n in sides):
        some = "x".join(map(str, size))
        raise UsageError(f"the inputs do not keep their proportions at {some}")
    return network.target(tuple(map(int, sides)), own.layer, own.source)


def factors(own: Target) -> tuple[int, ...]:
    """By what the strides may have to be multiplied for crops to be treated alike.

    A network whose code knows sizes may do the same at multiples of another number only (one that
    pads its input to a multiple of 32): powers of 2 are tried.
    """
    return (1, 2, 4, 8, 16) if own.graph.is_rigid(own.value) else (1,)


def margins(network: Network, own: Target, factor: int = 1) -> tuple[Margins, ...]:
    """What tiles of a layer need, along each axis. Raises NoTiles where none will do.

    Crops start at multiples of the strides on the way, times `factor`.
    """
    check_local(own)
    align = tuple(a * factor for a in own.geometry.step)
    if max(align) > LARGEST:
        some = "x".join(map(str, align))
        unit = unit_of(len(align))
        raise NoTiles(f"crops would have to start at multiples of {some} {unit}: maps are resized")
    extents = [_beyond(field) for field in own.geometry.fields]
    crop = tuple(
        a * (ceil(Fraction(sum(e) + abs(e[0]) + abs(e[1]), a)) + 3)
        for e, a in zip(extents, align, strict=True)
    )
    # more than any network needs: what is lost at the ends of a large crop is lost at all
    large, spans = _spans(network, own, crop, align)
    out = []
    for k, (before, after) in enumerate(extents):
        stride = Fraction(own.geometry.fields[k].stride)
        first, last = spans[k]
        units = large.units[k]
        lost = units - (last - first + 1)
        spare = floor(((last - first + 1) * stride - align[k]) / align[k]) * align[k]
        # crops of maps that are padded again may lose more units than theory says
        inside = _inside(own.geometry.fields[k], crop[k], units)
        before = before if inside[0] >= first else ceil(first * stride)
        after = after if inside[1] <= last else ceil((units - 1 - last) * stride)
        least = Margins(
            max(0, before), max(0, after), align[k], stride, (first, lost),
            crop[k] - spare, units - int(spare / stride),
        )  # fmt: skip
        out.append(least)
    return _smallest(network, own, tuple(out))


def _beyond(field: Along) -> tuple[int, int]:
    """Px that the units of a tile read before and after it; less than 0: not even all of it."""
    first, last = min(a for a, _ in field.phases), max(b for _, b in field.phases)
    return -first, last - field.step + 1


def _inside(field: Along, side: int, units: int) -> tuple[int, int]:
    """The first and the last unit from which on, and up to which, no field leaves a side."""
    seen = [region(field, u) for u in range(units)]
    first = max((u + 1 for u, (a, _) in enumerate(seen) if a < 0), default=0)
    last = min((u - 1 for u, (_, b) in enumerate(seen) if b > side - 1), default=units - 1)
    return first, last


def _spans(
    network: Network, own: Target, crop: Pixels, align: Pixels
) -> tuple[Target, list[tuple[int, int]]]:
    """A crop inside a larger image: its target, and the units that are the same along each axis.

    The image has so much around it that no unit of the crop reaches the border of both.
    """
    far = [max(a, *_beyond(f)) for a, f in zip(align, own.geometry.fields, strict=True)]
    start = tuple(a * ceil(Fraction(m, a)) for a, m in zip(align, far, strict=True))
    size = tuple(c + 2 * s for c, s in zip(crop, start, strict=True))
    whole, part = (at(network, own, s) for s in (size, crop))
    spans = [s.span() for s in same_units(whole, part, start)]
    if None in spans:
        raise NoTiles(culprit(whole, part, start))
    return part, [s for s in spans if s is not None]


def _smallest(network: Network, own: Target, found: tuple[Margins, ...]) -> tuple[Margins, ...]:
    """The smallest crops at which the network runs and does what it does on large ones."""
    align = tuple(m.align for m in found)
    for more in range(8):
        crop = tuple(m.smallest + more * m.align for m in found)
        try:
            part, spans = _spans(network, own, crop, align)
        except NoTiles:
            raise
        except RfbenchError:  # too small for the network
            continue
        rows = zip(found, crop, part.units, spans, strict=True)
        if all(
            n == m.units + Fraction(more * m.align) / m.stride
            and (span[0], n - span[1] + span[0] - 1) == m.lost
            for m, _, n, span in rows
        ):
            return tuple(
                Margins(m.before, m.after, m.align, m.stride, m.lost, c, n)
                for m, c, n in zip(found, crop, part.units, strict=True)
            )
    raise NoTiles("what it does on a crop changes with the crop's size")


def used(network: Network, own: Target, found: Sequence[Margins], crop: Pixels) -> Pixels | None:
    """How far apart crops of a size may start, in px; None where such crops will not do."""
    align = tuple(m.align for m in found)
    try:
        _, spans = _spans(network, own, crop, align)
    except RfbenchError:
        return None
    sides = zip(found, crop, spans, strict=True)
    good = all((last - first + 1) * m.stride >= m.used(c) for m, c, (first, last) in sides)
    return tuple(m.used(c) for m, c in zip(found, crop, strict=True)) if good else None


def check_crop(found: Sequence[Margins], crop: Pixels) -> None:
    """Raise UsageError for a crop that will not do, with the nearest that does."""
    unit = unit_of(len(found))
    for m, size in zip(found, crop, strict=True):
        good = max(m.smallest, m.smallest + round((size - m.smallest) / m.align) * m.align)
        if size < m.smallest:
            raise UsageError(f"--tile {size}: the smallest crop is {m.smallest} {unit}")
        if good != size:
            raise UsageError(
                f"--tile {size}: crops are {m.smallest} {unit} and {m.align} more each; the "
                f"nearest is {good}"
            )


def tiles(found: Sequence[Margins], whole: Target, crop: Pixels) -> Iterator[Tile]:
    """Every tile of a whole image."""
    sides = zip(found, whole.source_size, crop, whole.units, strict=True)
    for parts in product(*(m.parts(side, c, n) for m, side, c, n in sides)):
        yield Tile(parts)


def count(found: Sequence[Margins], whole: Target, crop: Pixels) -> int:
    """How many tiles a whole image has."""
    sides = zip(found, whole.source_size, crop, whole.units, strict=True)
    return prod(len(m.parts(side, c, n)) for m, side, c, n in sides)


def kinds(
    found: Sequence[Margins], whole: Target, crop: Pixels, diagonal: bool = False
) -> list[Tile]:
    """One tile of each kind: at the first, at a middle and at the last place along each axis.

    diagonal: along all axes at once; all places are there, but not with each other.
    """
    sides = zip(found, whole.source_size, crop, whole.units, strict=True)
    rows = []
    for m, side, c, n in sides:
        parts = m.parts(side, c, n)
        rows.append([parts[0], parts[len(parts) // 2], parts[-1]])
    chosen = zip(*rows, strict=True) if diagonal else product(*rows)
    return [Tile(parts) for parts in dict.fromkeys(chosen)]


def check(network: Network, whole: Target, chosen: Sequence[Tile]) -> None:
    """Raise NoTiles unless all units taken from these tiles are those of the whole image."""
    for tile in chosen:
        part = at(network, whole, tile.size)
        for p, same in zip(tile.parts, same_units(whole, part, tile.start), strict=True):
            units = slice(p.own, p.own + p.last - p.first)
            if same.offset != p.first - p.own or not same.units[units].all():
                raise NoTiles(culprit(whole, part, tile.start))
