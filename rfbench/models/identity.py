"""Which network a name stands for: a library's by its name, one's own by its function and code.

The path of one's own file does not belong to it: a file may be moved.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

from rfbench import files
from rfbench.models import arguments

LIBRARIES = ("torchvision", "timm")  # libraries of networks that a checkpoint may name
SHIPPED = "rfbench.classify.nets"  # small networks that come with this package


def is_known(name: str) -> bool:
    """Whether a network comes with torchvision, timm or this package: no code of others is run."""
    library, colon, _ = arguments.bare(name).rpartition(":")
    return not colon or library in (*LIBRARIES, SHIPPED)


def same(one: str, other: str) -> bool:
    """Whether two names stand for one network: not its file's path, nor a timm tag of weights."""
    return _identity(one) == _identity(other)


def _identity(name: str) -> tuple[str, str, dict[str, Any]]:
    bare, args = arguments.split(name)
    library, colon, function = bare.rpartition(":")
    if colon and library not in LIBRARIES:
        return "", function, args
    return library, function.partition(".")[0], args


def code_of(name: str) -> str | None:
    """A digest of the file that one's own network, which has been built, is defined in.

    None for one that comes with a library or this package, and where there is no file.
    """
    if is_known(name):
        return None
    source = arguments.bare(name).rpartition(":")[0]
    module = sys.modules.get(source)
    path = source if Path(source).suffix == ".py" else getattr(module, "__file__", None)
    try:
        return hashlib.sha256(files.read_bytes(path)).hexdigest()[:16] if path else None
    except OSError:
        return None
