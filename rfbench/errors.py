"""Errors for the user: what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class RfbenchError(Exception):
    """The run failed: data, weights, device or the model itself. One line, exit code 1."""

    exit_code = 1


class UsageError(RfbenchError):
    """Bad usage or configuration. Printed as one line, exit code 2."""

    exit_code = 2


class FailedElsewhere(RfbenchError):
    """Another process of the run has failed and prints the reason; this one ends silently."""

    def __init__(self, exit_code: int = RfbenchError.exit_code) -> None:
        super().__init__()
        self.exit_code = exit_code


def one_line(error: object, limit: int = 200) -> str:
    """The text of `error` on one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit]


def suggest(name: str, choices: Iterable[str], n: int = 3) -> str:
    """The `n` choices nearest to `name`, as ' Did you mean: a, b?', or '' if none is near."""
    near = difflib.get_close_matches(name, list(choices), n=n, cutoff=0.6)
    return f" Did you mean: {', '.join(near)}?" if near else ""


def counted(n: int, noun: str, plural: str = "s") -> str:
    """'1 epoch', '3 epochs'."""
    return f"{n} {noun}{plural if n != 1 else ''}"
