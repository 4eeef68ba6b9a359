"""A table as lines of text."""

from collections.abc import Sequence


def columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    """Lines of a table; each column is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return [f"{indent}{line}".rstrip() for line in lines]
