"""The conditions of `rf audit --fail-on`: 'shift>1,gridding>0.05'."""

import operator
import re
from dataclasses import dataclass
from typing import Any

from rfbench.errors import UsageError, suggest
from rfbench.rf.questions.audit.audit import size_of

# what can be judged, in a record of `audit`
JUDGED = {
    "shift": lambda record: size_of(record["shift"]),
    "gridding": lambda record: record["gridding"],
    "misaligned": lambda record: record["misaligned"],
    "reached": lambda record: record["coverage"]["reached"],
    "seen": lambda record: record["coverage"]["seen"],
}
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Limit:
    """A condition under which an audit fails."""

    name: str
    sign: str
    value: float

    def broken(self, record: dict[str, Any]) -> str:
        """What is wrong with a record, in words; '' for nothing."""
        found = JUDGED[self.name](record)
        if not COMPARE[self.sign](found, self.value):
            return ""
        return f"{self.name} {found:.4g} {self.sign} {self.value:g}"


def parse(text: str | None) -> list[Limit]:
    """The conditions of an expression. Raises UsageError where it makes none."""
    limits = []
    for part in (text or "").split(",") if text is not None else []:
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", part)
        try:
            value = float(match[3]) if match else float("nan")
        except ValueError:
            value = float("nan")
        if match is None or value != value:
            raise UsageError(f"--fail-on {part.strip() or text!r}: expected e.g. shift>1")
        if match[1] not in JUDGED:
            near = suggest(match[1], JUDGED) or f" There are: {', '.join(JUDGED)}."
            raise UsageError(f"--fail-on {part.strip()}: nothing called '{match[1]}'.{near}")
        limits.append(Limit(match[1], match[2], value))
    return limits
