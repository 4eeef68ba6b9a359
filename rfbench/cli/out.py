"""What a command shows on stdout: its result and nothing else.

Whatever else prints, such as a network of the user's own or what it calls in C, prints to stderr;
`--json` stays JSON.
"""

import atexit
import contextlib
import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import click

APART = "_runs_apart"  # marks a function that `apart` has made
_stdout: list[Any] = []  # the stream that the running command shows its result on


class Stderr(io.TextIOWrapper):
    """Messages and progress; no run ends because the disk of its log is full, or `tee` has gone."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Open what is closed of stdin, stdout and stderr, so that no file gets its number.

    Stdout is opened for reading alone: what is written there still fails, with a line and exit
    code 1, as of GNU's tools. Who closes stderr wants no messages; the exit code tells.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number, which is this one
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            os.set_inheritable(number, True)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    if type(sys.stderr) is io.TextIOWrapper and sys.stderr.fileno() == 2:
        raw = open(2, "wb", closefd=False)  # noqa: SIM115
        given = {"encoding": sys.stderr.encoding, "errors": sys.stderr.errors}
        sys.stderr = Stderr(raw, line_buffering=True, **given)  # type: ignore[arg-type]


def drop_unwritten() -> None:
    """Forget what stdout did not take: Python would try again when it ends, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = sys.stderr


def show(text: str) -> None:
    """Print a text on stdout, control characters (of names from outside) as escapes."""
    from rfbench.errors import printable

    _print(printable(text, lines=True))


def note(text: str) -> None:
    """Print a line on stderr."""
    from rfbench.errors import printable

    click.echo(printable(text), err=True)


def show_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as strict JSON on stdout; numbers that are not finite become null."""
    from rfbench.json_text import dumps

    _print(dumps(value, indent))


def _print(text: str) -> None:
    from rfbench import files

    with files.naming(Path("/dev/stdout")):  # what it leads to may be full
        click.echo(text, file=_stdout[-1] if _stdout else None)


def apart(callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A command's function, run so that only `show` prints to stdout, and none but it ends it.

    sys.exit and any other BaseException in people's code becomes an RfbenchError with its place.
    """

    if callback is None or hasattr(callback, APART):
        return callback

    @functools.wraps(callback)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            with _stdout_kept() as stream, contextlib.redirect_stdout(sys.stderr):
                _stdout.append(stream)
                try:
                    # torch would import it from C++, lose a Ctrl-C there, and go on without it
                    import numpy  # noqa: F401

                    return callback(*args, **kwargs)
                finally:
                    _stdout.pop()
        except (Exception, KeyboardInterrupt):  # click's own are among them
            raise
        except BaseException as error:
            from rfbench.errors import RfbenchError

            raise RfbenchError(_ended_by(error)) from error
        finally:
            sys.stderr.flush()  # what was printed comes before what click says of its end

    setattr(command, APART, True)
    return command


@contextlib.contextmanager
def _stdout_kept() -> Iterator[Any]:
    """The stream of stdout, while its file descriptor leads to stderr for all others.

    People's code also writes to the descriptor, by os.system or in C.
    """
    from rfbench import files

    try:
        own = sys.stdout.fileno() == 1
    except (AttributeError, OSError, ValueError):  # closed, or a stream in memory
        own = False
    if not own:
        yield sys.stdout
        return
    kept = os.dup(1)
    # a terminal of another encoding than UTF-8 has no Greek letters; Python's stderr does the same
    errors = "backslashreplace" if sys.stdout.errors == "strict" else sys.stdout.errors
    stream = os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=errors)
    sys.stdout.flush()
    _to_stderr()
    files.streams[1] = kept
    try:
        yield stream
    finally:
        files.streams.pop(1)
        os.dup2(kept, 1)
        with contextlib.suppress(OSError):  # a closed pipe: said when it was written to
            stream.close()
        atexit.register(_end)  # before the handlers that people's code has registered


def _to_stderr() -> None:
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        number = os.open(os.devnull, os.O_WRONLY)
        os.dup2(number, 1)
        os.close(number)


def _end() -> None:
    """What is printed while the process ends, also from the buffers of C, is no result either."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    sys.stdout = sys.stderr
    _to_stderr()


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
