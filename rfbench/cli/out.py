"""What a command shows on stdout: its result and nothing else.

Whatever else prints, such as a network of the user's own, prints to stderr; `--json` stays JSON.
"""

import contextlib
import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import click

APART = "_runs_apart"  # marks a function that `apart` has made
_stdout: list[Any] = []  # the stream that the running command shows its result on


def show(text: str) -> None:
    """Print a text on stdout, control characters (of names from outside) as escapes."""
    from rfbench.errors import printable

    click.echo(printable(text, lines=True), file=_stdout[-1] if _stdout else None)


def note(text: str) -> None:
    """Print a line on stderr."""
    from rfbench.errors import printable

    click.echo(printable(text), err=True)


def show_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as strict JSON on stdout; numbers that are not finite become null."""
    from rfbench.json_text import dumps

    click.echo(dumps(value, indent), file=_stdout[-1] if _stdout else None)


def apart(callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A command's function, run so that only `show` prints to stdout, and none but it ends it.

    sys.exit and any other BaseException in people's code becomes an RfbenchError with its place.
    """

    if callback is None or hasattr(callback, APART):
        return callback

    @functools.wraps(callback)
    def command(*args: Any, **kwargs: Any) -> Any:
        _stdout.append(sys.stdout)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return callback(*args, **kwargs)
        except (Exception, KeyboardInterrupt):  # click's own are among them
            raise
        except BaseException as error:
            from rfbench.errors import RfbenchError

            raise RfbenchError(_ended_by(error)) from error
        finally:
            sys.stderr.flush()  # what was printed comes before what click says of its end
            _stdout.pop()

    setattr(command, APART, True)
    return command


def _ended_by(error: BaseException) -> str:
    place = _place(error.__traceback__)
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{place}: {what} ended the run" if place else f"{what} ended the run"


def _place(trace: TracebackType | None) -> str:
    """'mynet.py, line 7': the innermost line that is of no installed package."""
    package = str(Path(__file__).parents[1])
    for frame in reversed(traceback.extract_tb(trace)):
        installed = "site-packages" in frame.filename or frame.filename.startswith("<")
        if not installed and not frame.filename.startswith((package, sys.base_prefix)):
            return f"{frame.filename}, line {frame.lineno}"
    return ""
