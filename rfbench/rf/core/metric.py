"""What a metric of receptive fields is: its value, how it is written, and what is better."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Literal

from rfbench.errors import counted
from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.path_map import PathMap
from rfbench.spatial_graph.axis import WORDS, names

Record = Mapping[str, Any]


class Use(IntEnum):
    """Where a metric appears besides records; each use includes those before it."""

    CAPTION = 0  # of figures
    TABLE = 1  # of visualize-rf
    AUDIT = 2  # judged by `rf audit` and --fail-on; a row of the zoo
    RANK = 3  # what variants are ranked by, side by side in audit, zoo and compare


class Best(Enum):
    """Which value is the best: 0, from either side; 1, of a share; or the least."""

    ZERO = "zero"
    ONE = "one"
    LESS = "less"


@dataclass(frozen=True)
class Metric:
    """A figure of a map: a number, or one for each axis, (y, x) of an image.

    of: the value, ready for JSON. meaning: in a few words. form, join: how `text` writes it.
    pair: whether it is one for each axis. words: its parts of a caption, from the
    record of a map and whether to be brief; None: name and value.
    """

    name: str
    of: Callable[[PathMap, Geometry], Any]
    meaning: str
    use: Use = Use.RANK
    form: str = ".4f"
    unit: str = ""
    pair: bool = False
    join: str = ", "
    words: Callable[[Record, bool], list[str]] | None = None
    best: Best = Best.LESS

    @property
    def order(self) -> Literal["zero", "high", "low"]:
        """What stands first where a table is sorted by it: what is nearest to 0, most or least."""
        orders: dict[Best, Literal["zero", "high", "low"]]
        orders = {Best.ZERO: "zero", Best.ONE: "high", Best.LESS: "low"}
        return orders[self.best]

    @property
    def column(self) -> str:
        """The heading of a column whose cells are made by `text`, of an image."""
        return self.heading(2)

    def heading(self, axes: int) -> str:
        """The same for maps of so many axes."""
        return f"{self.name} {axes_text(axes)}" if self.pair and axes > 1 else self.name

    def with_unit(self, name: str, axes: int = 2) -> str:
        """'shift' as 'shift (px)'."""
        unit = unit_of(axes) if self.unit == "px" else self.unit
        return f"{name} ({unit})" if unit else name

    def text(self, value: Any, merge: bool = False) -> str:
        """A value as a cell of a table, '-' for None; merge: equal axes as one."""
        if value is None:
            return "-"
        each = value if _is_pair(value) else [value]
        cells = ["-" if v is None else self._number(v) for v in each]
        return self.join.join(merged(cells) if merge else cells)

    def _number(self, value: float) -> str:
        if self.best is Best.ONE:  # what is less than all must not read as all
            value = math.floor(value * 10**self._places + 1e-6) / 10**self._places
        rounded = round(value, self._places) + 0.0 if self._places else value  # no -0.00
        return format(rounded, self.form)

    @property
    def _places(self) -> int:
        """Decimals that are shown."""
        percent = 2 if self.form.endswith("%") else 0
        return int(self.form.strip("+.fg%") or 0) + percent

    def scalar(self, value: Any) -> float:
        """One number: of several the one along the larger axis, with its sign.

        Of the axes that have one; NaN where none has.
        """
        known = [v for v in (value if _is_pair(value) else [value]) if v is not None]
        return max(known, key=abs, default=math.nan)

    def judged(self, value: Any) -> float:
        """One number as limits name it: of what is best at 0, the distance from it."""
        return abs(self.scalar(value)) if self.best is Best.ZERO else self.scalar(value)

    def badness(self, value: Any) -> float:
        """One number of which less is better, for ranks; 0 where there is none."""
        number = self.judged(value)
        if math.isnan(number):
            return 0.0
        return 1 - number if self.best is Best.ONE else number

    def rank(self, value: Any) -> float:
        """`badness` as precise as it is shown: what differs by less is alike."""
        return round(self.badness(value), self._places)

    def is_zero(self, value: Any) -> bool:
        """Whether it is shown as 0, or not at all."""
        return not abs(self.scalar(value)) >= 0.5 * 10.0**-self._places

    def is_fault(self, value: Any) -> bool:
        """Whether it has a best value and is shown as another."""
        if self.best is Best.ONE:
            return self.scalar(value) < 1
        return self.best is Best.ZERO and not self.is_zero(value)

    def caption(self, record: Record, brief: bool) -> list[str]:
        """Its parts of a caption."""
        if self.words is not None:
            return self.words(record, brief)
        if brief or self.name not in record:
            return []
        axes = len(record["centroid"]) if "centroid" in record else 2
        unit = self.with_unit("", axes).translate({ord(c): None for c in "()"})
        if record[self.name] is None:
            return []
        return [f"{self.name} {self.text(record[self.name], merge=True)}{unit}"]


def axes_text(axes: int) -> str:
    """The names of so many axes: 'y, x'; of three 'depth, y, x'."""
    return ", ".join(WORDS.get(name, name) for name in names(axes))


def of_channels(channels: Sequence[int]) -> str:
    """'3 channels'; of several inputs '3 and 1 channels'."""
    return counted(channels[0], "channel") if len(channels) == 1 else _several(channels)


def _several(channels: Sequence[int]) -> str:
    return f"inputs of {', '.join(map(str, channels[:-1]))} and {channels[-1]} channels"


def unit_of(axes: int) -> str:
    """What distances are counted in on a map of so many axes."""
    return {1: "samples", 2: "px", 3: "voxels"}[axes]


def merged(values: Iterable[Any]) -> list[str]:
    """Figures of several axes as text; one where all are the same."""
    each = [str(v) for v in values]
    return each[:1] if len(set(each)) == 1 else each


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple)
