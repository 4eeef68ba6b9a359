"""JSON from outside, read within bounds; JSON of ours, written strictly: no NaN, no Infinity."""

import json
import math
from collections.abc import Mapping
from typing import Any

from rfbench.errors import RfbenchError, one_line

DEPTH = 100  # of nested lists and mappings
DIGITS = 300  # of a whole number; more is no count, seed or size, and does not fit a float


def parse(data: bytes | str, where: str) -> Any:
    """The value of a JSON text; RfbenchError, one line that begins with `where`, if it has none.

    NaN and Infinity are refused, as they are never written: what is undefined is null.
    """
    try:
        value = json.loads(data, parse_int=whole, parse_float=_real, parse_constant=_real)
        _check_depth(value)
        return value
    except RecursionError:
        raise RfbenchError(f"{where} is damaged: it is nested too deeply") from None
    except ValueError as error:  # no JSON, or bytes that are not UTF-8
        raise RfbenchError(f"{where} is damaged: {one_line(error)}") from None


def whole(digits: str) -> int:
    """A whole number from its digits; ValueError for more than `DIGITS`."""
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _real(text: str) -> float:
    """A finite number from its text; ValueError for NaN, Infinity and what is too large."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{one_line(text, 60)} is not a number of JSON; what is undefined is null")
    return value


def _check_depth(value: Any) -> None:
    """Raise RecursionError for a value that is nested deeper than `DEPTH`."""
    level = [value]
    for _ in range(DEPTH):
        level = [below for one in level for below in _below(one)]
        if not level:
            return
    raise RecursionError


def _below(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [below for below in inside if isinstance(below, dict | list)]


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; what is not finite becomes null, what JSON does not know becomes a list."""
    return json.dumps(finite(value), indent=indent, default=list, allow_nan=False)


def finite(value: Any) -> Any:
    """The same value with None for every number that is NaN or infinite, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(below) for below in value]
    return value


def texts(value: Any) -> Any:
    """The same value whose texts can be written: bytes of a file's name that are no text as \\xff.

    Python holds them as halves of characters, which neither UTF-8 nor the schema of a record takes.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {texts(key): texts(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [texts(below) for below in value]
    return value


def _text(value: str) -> str:
    for halves in ("strict", "surrogateescape"):
        try:
            return value.encode("utf-8", halves).decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            continue
    return value.encode("utf-8", "replace").decode("utf-8")  # of halves that stand for no byte
