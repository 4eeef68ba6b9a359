"""What the options that an error speaks of are in Python, as a note beneath it."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rfbench.errors import RfbenchError

P = ParamSpec("P")
R = TypeVar("R")

# an option, as errors name it -> what says the same to these functions
SAME = {
    "--to": "layer=",
    "--from": "source=",
    "--list-layers": "list(rf.record(model).layers)",
    "--size": "size=",
    "--in-channels": "in_channels=",
    "--input": "inputs=",
    "--input-axes": "input_axes=",
    "--axes": "axes=",
    "--unit": "unit=",
    "--sizes": "sizes=",
    "--tile": "tile=",
    "rfbench rf effective": "rf.effective(model, images)",
}
NAMED = re.compile(r"--[a-z-]+|rfbench rf effective")


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose errors say in a note how their options are given here.

    One error serves the command line and Python. Notes are shown from Python 3.11.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RfbenchError as error:
            add, told = getattr(error, "add_note", None), note(str(error))
            if add and told and told not in getattr(error, "__notes__", ()):
                add(told)
            raise

    return call


def note(message: str) -> str:
    """'In Python: layer= for --to'; '' where a message names no option, or says it itself."""
    named = [*dict.fromkeys(NAMED.findall(message))]
    if "in Python" in message:
        return ""
    parts = [f"{SAME[option]} for {option}" for option in named if option in SAME]
    return f"In Python: {', '.join(parts)}." if parts else ""
