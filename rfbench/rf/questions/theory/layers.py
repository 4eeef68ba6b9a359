"""Theory of a list of layers, without a network: `rfbench rf theory --layers 7s2p3,3s2p1`.

Both recursions of Araujo et al. (Distill 2019), step by step and along one axis. Forward, from the
input, with the stride S so far: r + (k - 1) d S, and the centre of unit 0 moves by
((k - 1) d / 2 - p) S. Backward, from one unit of the output: r = s r + d (k - 1) + 1 - s and
P = s P + p, and its region [u, v] becomes [s u - p, s v - p + d (k - 1)].
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import prod
from typing import Any

from rfbench.errors import UsageError
from rfbench.rf.core.field import Along, Sparse, origin, region, tidy

Record = dict[str, Any]
LETTERS = {"s": "stride", "p": "padding", "d": "dilation", "o": "output_padding"}
FORM = "expected layers such as 7s2p3,3d2p2: kernel, then s(tride), p(adding), d(ilation)"
MORE = "t: transposed, with o(utput padding)"
MOST = 100_000  # of any number: a slip of the keyboard
WIDEST = 1000  # taps of a transposed convolution, which are looked at one by one


@dataclass(frozen=True)
class Layer:
    """A convolution or a pooling along one axis; transposed: a transposed convolution."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    output_padding: int = 0
    transposed: bool = False

    @property
    def extent(self) -> int:
        """Positions from the first tap to the last."""
        return self.dilation * (self.kernel - 1) + 1

    def __str__(self) -> str:
        plain = Layer(self.kernel)
        shown = (f"{a}{getattr(self, n)}" for a, n in LETTERS.items() if self._differs(plain, n))
        return f"{self.kernel}{''.join(shown)}{'t' * self.transposed}"

    def _differs(self, other: "Layer", name: str) -> bool:
        return getattr(self, name) != getattr(other, name)

    def out_size(self, n: int) -> int:
        """Units on n, as torch counts them; less than 1: none."""
        if not self.transposed:
            return (n + 2 * self.padding - self.extent) // self.stride + 1
        return (n - 1) * self.stride - 2 * self.padding + self.extent + self.output_padding

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """What units first ... last read: the first and the last position."""
        s, p, d = self.stride, self.padding, self.dilation
        if not self.transposed:
            return first * s - p, last * s - p + d * (self.kernel - 1)
        near = {*range(first, min(first + s, last + 1)), *range(max(first, last - s), last + 1)}
        at = [divmod(u + p - t * d, s) for u in near for t in range(self.kernel)]
        inputs = [i for i, rest in at if not rest]
        return min(inputs), max(inputs)


def parse(text: str) -> list[Layer]:
    """The layers of '7s2p3,3s2p1'. Raises UsageError for what is none."""
    layers = [_parse(part.strip(), number) for number, part in enumerate(text.split(","), 1)]
    if prod(layer.stride for layer in layers if layer.transposed) > WIDEST:
        raise UsageError(f"--layers: transposed convolutions enlarge at most {WIDEST} times")
    return layers


def _parse(text: str, number: int) -> Layer:
    where = f"--layers: layer {number} '{text}'"
    match = re.fullmatch(r"(\d+)((?:[a-z]\d+)*)(t?)", text.lower())
    if match is None:
        raise UsageError(f"{where}: {FORM}; {MORE}")
    values = {"kernel": int(match[1])}
    for letter, value in re.findall(r"([a-z])(\d+)", match[2]):
        if letter not in LETTERS:
            raise UsageError(f"{where}: no '{letter}'; {FORM}; {MORE}")
        if LETTERS[letter] in values:
            raise UsageError(f"{where}: '{letter}' twice")
        values[LETTERS[letter]] = int(value)
    layer = Layer(**values, transposed=bool(match[3]))
    for name in ("kernel", "stride", "dilation"):
        if getattr(layer, name) < 1:
            raise UsageError(f"{where}: {name} must be 1 or more")
    if max(values.values()) > MOST:
        raise UsageError(f"{where}: numbers are at most {MOST}")
    if layer.output_padding and not layer.transposed:
        raise UsageError(f"{where}: output padding is of transposed convolutions (t)")
    if layer.output_padding >= max(layer.stride, layer.dilation):
        raise UsageError(f"{where}: torch wants an output padding less than stride or dilation")
    if layer.transposed and max(layer.extent, layer.stride) > WIDEST:
        raise UsageError(f"{where}: a transposed convolution is at most {WIDEST} wide")
    if layer.transposed and _gaps(layer):
        raise UsageError(f"{where}: some of its units read nothing; the stride is too large")
    return layer


def _gaps(layer: Layer) -> bool:
    """Whether the taps of a transposed convolution miss some of its units."""
    taps = {t * layer.dilation % layer.stride for t in range(layer.kernel)}
    return len(taps) < layer.stride


def report(layers: Sequence[Layer], sizes: Sequence[int] = ()) -> Record:
    """Both recursions, ready for JSON. sizes: of the input, along each axis; of the maps, then.

    Regions are of the central unit along the first axis, or of unit 0 without sizes. Raises
    UsageError where nothing is left of a map.
    """
    maps = _maps(layers, sizes)
    unit = (maps[-1][0] - 1) // 2 if sizes else 0
    forward = _forward(layers, maps)
    backward = _backward(layers, unit)
    return {
        "layers": [{f.name: getattr(layer, f.name) for f in fields(layer)} for layer in layers],
        "input_size": list(sizes) or None,
        **{key: forward[-1][key] for key in ("size", "stride", "center", "phases", "map_size")},
        "padding": backward[-1]["padding"],
        "unit": unit,
        "region": backward[-1]["region"],
        "forward": forward,
        "backward": backward,
    }


def _maps(layers: Sequence[Layer], sizes: Sequence[int]) -> list[list[int]]:
    """The size of every map, the input's first."""
    maps = [list(sizes)]
    for number, layer in enumerate(layers, 1):
        maps.append([layer.out_size(n) for n in maps[-1]])
        if min(maps[-1], default=1) < 1:
            before = "x".join(map(str, maps[-2]))
            raise UsageError(
                f"--layers: nothing is left behind layer {number} '{layer}', which reads "
                f"{layer.extent} positions of {before}. Choose a larger --size."
            )
    return maps


def _forward(layers: Sequence[Layer], maps: list[list[int]]) -> list[Record]:
    """From the input: the field of unit 0 behind every layer."""
    names = ["input", *(f"{n}: {layer}" for n, layer in enumerate(layers, 1))]
    return [_row(name, _field(layers[:i]), maps[i]) for i, name in enumerate(names)]


def _field(layers: Sequence[Layer]) -> Along:
    """The field behind some layers: of the units of one period, each by what it reads."""
    turns = prod(layer.stride for layer in layers if layer.transposed)
    step = prod(layer.stride for layer in layers if not layer.transposed)
    seen = tidy([_region(layers, unit) for unit in range(turns)], step)
    assert seen is not None and not isinstance(seen, Sparse)  # a layer with gaps is refused
    return seen


def _region(layers: Sequence[Layer], unit: int) -> tuple[int, int]:
    """What a unit behind some layers reads of the input."""
    seen = (unit, unit)
    for layer in reversed(layers):
        seen = layer.reads(*seen)
    return seen


def _row(name: str, seen: Along, held: list[int]) -> Record:
    sizes = [last - first + 1 for first, last in seen.phases]
    size = sizes[0] if len({*sizes}) == 1 else [min(sizes), max(sizes)]
    stride = None if seen.stride is None else _number(seen.stride)
    row: Record = {"layer": name, "size": size, "stride": stride}
    row |= {"center": float(origin(seen)), "map_size": held or None}
    return row | {"phases": [region(seen, u) for u in range(len(sizes))]}


def _number(value: int | Fraction) -> int | float:
    return int(value) if value == int(value) else float(value)


def _backward(layers: Sequence[Layer], unit: int) -> list[Record]:
    """From a unit of the output: size, stride, padding and region ahead of every layer.

    Size, stride and padding are None ahead of a transposed convolution, whose units differ.
    """
    first = last = unit
    size, stride, padding = 1, 1, 0
    known = True
    rows: list[Record] = [_back("output", (size, stride, padding), (first, last))]
    for number, layer in reversed([*enumerate(layers, 1)]):
        known = known and not layer.transposed
        first, last = layer.reads(first, last)
        size = layer.stride * size + layer.extent - layer.stride
        stride, padding = layer.stride * stride, layer.stride * padding + layer.padding
        told = (size, stride, padding) if known else (None,) * 3
        rows.append(_back(f"{number}: {layer}", told, (first, last)))
    return rows


def _back(name: str, told: tuple, seen: tuple[int, int]) -> Record:
    figures = dict(zip(("size", "stride", "padding"), told, strict=True))
    return {"layer": name, **figures, "region": seen}
