"""A table as lines of text, and the order of names in it."""

import re
from collections.abc import Sequence


def columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    """Lines of a table; each column is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return [f"{indent}{line}".rstrip() for line in lines]


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key of names: 'resnet18' before 'resnet101', and 'resnet' before both."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
