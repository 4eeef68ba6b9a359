"""The JSON file of a data set in COCO's format: its lists, entry by entry."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfbench.data import text
from rfbench.errors import RfbenchError, one_line

HINT = (
    "COCO's layout is annotations/instances_{train,val}2017.json, train2017/ and val2017/ in the "
    "folder data.root. Set it with -o data.root=PATH."
)
NUMBERS = {int, float}
LARGEST = 2**53  # NumPy, in which pycocotools keeps ids, rounds what is larger
TOLERATED = 1e-4  # share of annotations with a fault that training and evaluation survive


@dataclass(frozen=True)
class Kind:
    """A kind of value: its name, and a test."""

    name: str
    fits: Callable[[Any], bool]


@dataclass
class Findings:
    """Faults and notes, a line each: what, how many, the first three."""

    where: Path
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, what: str, offenders: Sequence[object]) -> None:
        self.faults += self._lines(what, offenders)

    def note(self, what: str, offenders: Sequence[object]) -> None:
        self.notes += self._lines(what, offenders)

    def tolerate(self, what: str, offenders: Sequence[object], count: int) -> None:
        """A note where at most one in 10,000 of `count` is wrong, else a fault."""
        (self.note if len(offenders) <= TOLERATED * count else self.fault)(what, offenders)

    def _lines(self, what: str, offenders: Sequence[object]) -> list[str]:
        first = ", ".join(map(str, offenders[:3])) + ", ..." * (len(offenders) > 3)
        return [f"{self.where}: {what}: {len(offenders)} ({first})"] * bool(offenders)


def read(annotations: Path, images: Path) -> dict[str, Any]:
    """The content of the JSON file, a dict with COCO's three lists, none of them empty."""
    absent = [f"no file {annotations}"] * (not os.path.isfile(annotations))
    absent += [f"no folder {images}"] * (not os.path.isdir(images))
    if absent:
        raise RfbenchError(f"{'; '.join(absent)}. {HINT}")
    try:
        found = text.of(annotations.read_bytes(), annotations, "JSON")
        content = json.loads(found, object_pairs_hook=_once)
    except OSError as error:
        raise RfbenchError(f"{annotations}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RfbenchError(f"{annotations} is not JSON: {str(error)[:100]}") from None
    names = ("images", "annotations", "categories")
    lists = content if isinstance(content, dict) else {}
    wrong = [f"'{name}'" for name in names if not isinstance(lists.get(name), list)]
    if wrong:
        raise RfbenchError(f"{annotations} is not in COCO's format: no list {', '.join(wrong)}.")
    if empty := [f"'{name}'" for name in names if not lists[name]]:
        raise RfbenchError(f"{annotations}: empty list {', '.join(empty)}.")
    return lists


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError for a key that is there twice, of which JSON keeps only the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the key {one_line(repr(twice), 40)} twice")
    return made


def entries(
    content: dict[str, Any], name: str, kinds: Mapping[str, Kind], findings: Findings
) -> list[dict[str, Any]]:
    """The valid entries of a list, with values of the expected kinds; the others are faults."""
    everything: list[Any] = content[name]
    wrong = {i for i, one in enumerate(everything) if type(one) is not dict}
    findings.fault(f"'{name}' that are not objects", [f"{name}[{i}]" for i in sorted(wrong)])
    objects = [(i, one) for i, one in enumerate(everything) if i not in wrong]
    for key, kind in kinds.items():
        lacking = [i for i, one in objects if key not in one]
        findings.fault(f"'{name}' without '{key}'", [f"{name}[{i}]" for i in lacking])
        unfit = [i for i, one in objects if key in one and not kind.fits(one[key])]
        shown = [f"{_shown(everything[i][key])} in {name}[{i}]" for i in unfit]
        whole = kind is WHOLE and unfit and all(type(everything[i][key]) is int for i in unfit)
        below = " below 2^53, which NumPy would round" if whole else ""
        findings.fault(f"'{key}' that is not {kind.name}{below}", shown)
        wrong.update(lacking, unfit)
    return [one for i, one in objects if i not in wrong]


def _shown(value: Any) -> str:
    """The beginning of a value as JSON."""
    try:
        return json.dumps(value)[:40]
    except RecursionError:
        return "a deep value"


def numbers(value: Any) -> bool:
    """Whether `value` is a list of finite numbers."""
    # COCO has 40 million numbers: no call per number; a sum shows any that is not finite
    return type(value) is list and {*map(type, value)} <= NUMBERS and _finite(sum(value))


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _text(value: Any) -> bool:
    """Whether `value` is a text that can be written and seen: no NUL, no half character."""
    if type(value) is not str or not value.strip() or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# type(), since isinstance(True, int)
WHOLE = Kind("a whole number", lambda value: type(value) is int and abs(value) < LARGEST)
SIDE = Kind("a whole number above 0", lambda value: type(value) is int and 0 < value < LARGEST)
FLAG = Kind("0 or 1", lambda value: type(value) is int and value in (0, 1))
TEXT = Kind("a text", _text)
NUMBER = Kind("a number", lambda value: type(value) in NUMBERS and _finite(value))
BOX = Kind("four numbers [x, y, width, height]", lambda box: numbers(box) and len(box) == 4)
