"""Errors for the user: what is wrong, where, and what to do."""

import difflib
import itertools
import unicodedata
from collections.abc import Iterable

LONGEST = 200  # characters of a name that nearest ones are searched for
MOST = 5_000  # names that are searched
ODD = "a value in it is of another kind than a run writes"


class RfbenchError(Exception):
    """The run failed: data, weights, device or the model itself. Exit code 1.

    Each argument is a problem of its own, printed as one line.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(RfbenchError):
    """Bad usage or configuration. Printed as one line a problem, exit code 2."""

    exit_code = 2


class NothingToChange(UsageError):
    """A variant that changes no layer of a network."""


class NoPath(UsageError):
    """Two layers of which the later does not read the earlier."""


class FailedElsewhere(RfbenchError):
    """Another process of the run has failed and prints the reason; this one ends silently."""

    def __init__(self, exit_code: int = RfbenchError.exit_code) -> None:
        super().__init__()
        self.exit_code = exit_code


def one_line(error: object, limit: int = 200) -> str:
    """The text of `error` on one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit]


def of_content(error: Exception, whole: str = "it") -> str:
    """What an error in reading the content of a file says of that content, in words.

    whole: what the content is called.
    """
    if hasattr(error, "errors"):  # pydantic's: the first, with its place
        first = error.errors(include_url=False, include_input=False)[0]
        what = one_line(str(first["msg"]).removeprefix("Value error, "))
        return f"{one_line('.'.join(map(str, first['loc'])) or whole)}: {what}"
    if isinstance(error, KeyError) and error.args:
        return f"it has no {one_line(repr(error.args[0]), 60)}"
    if isinstance(error, LookupError):
        return "a list in it is too short"
    if isinstance(error, ArithmeticError | AttributeError | TypeError):
        return ODD
    return one_line(error) or ODD


def printable(text: str, lines: bool = False) -> str:
    """The text with control characters as escapes, so that names from outside stay names.

    They can neither steer a terminal nor, as line breaks, forge a line. lines: keep line breaks.
    """
    if lines:  # a long text line by line: nearly all of them are printable
        return "\n".join(printable(line) for line in text.split("\n"))
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _controls(c) else c for c in text)


def _controls(character: str) -> bool:
    return not character.isprintable() and (
        # controls, formats (of direction), halves of pairs (bytes of a file's name), separators
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def suggest(name: str, choices: Iterable[str], n: int = 3) -> str:
    """The `n` choices nearest to `name`, as ' Did you mean: a, b?', or '' if none is near."""
    near = nearest(name, choices, n)
    return f" Did you mean: {', '.join(near)}?" if near else ""


def nearest(name: str, choices: Iterable[str], n: int = 1) -> list[str]:
    """The `n` choices nearest to `name`, the nearest first; [] for a name too long to be meant."""
    if len(name) > LONGEST:
        return []
    among = [text for text in itertools.islice(choices, MOST) if len(text) <= LONGEST]
    return difflib.get_close_matches(name, among, n=n, cutoff=0.6)


def counted(n: int, noun: str, plural: str = "s") -> str:
    """'1 epoch', '3 epochs'."""
    return f"{n} {noun}{plural if n != 1 else ''}"
