"""The conditions of `rf audit --fail-on`: 'shift>1,gridding>0.05'."""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rfbench.errors import UsageError, suggest
from rfbench.rf.core import metrics
from rfbench.rf.core.metric import Use

COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def judged() -> dict[str, Callable[[dict[str, Any]], float]]:
    """What can be judged, by name: one number of a record of `audit`."""
    every: dict[str, Callable[[dict[str, Any]], float]] = {
        m.name: lambda record, m=m: m.judged(record[m.name])  # type: ignore[misc]
        for m in metrics.used(Use.AUDIT)
    }
    every["checkerboard"] = lambda record: record["checkerboard"]
    every["reached"] = lambda record: record["coverage"]["reached"]
    every["seen"] = lambda record: record["coverage"]["seen"]
    return every


@dataclass(frozen=True)
class Limit:
    """A condition under which an audit fails."""

    name: str
    sign: str
    value: float

    def broken(self, record: dict[str, Any]) -> str:
        """What is wrong with a record, in words; '' for nothing."""
        value = judged()[self.name](record)
        if value is None or value != value:  # what is not known has not passed
            return f"{self.name} is not known"
        if not COMPARE[self.sign](value, self.value):
            return ""
        return f"{self.name} {value:.4g} {self.sign} {self.value:g}"


def parse(text: str | None) -> list[Limit]:
    """The conditions of an expression. Raises UsageError where it makes none."""
    limits = []
    for part in (text or "").split(",") if text is not None else []:
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", part)
        try:
            value = float(match[3]) if match else float("nan")
        except ValueError:
            value = float("nan")
        if match is None or not math.isfinite(value):
            raise UsageError(f"--fail-on {part.strip() or text!r}: expected e.g. shift>1")
        names = judged()
        if match[1] not in names:
            near = suggest(match[1], names) or f" There are: {', '.join(names)}."
            raise UsageError(f"--fail-on {part.strip()}: nothing called '{match[1]}'.{near}")
        limits.append(Limit(match[1], match[2], value))
    return limits
