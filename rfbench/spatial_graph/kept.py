"""What a network keeps from one forward pass to the next: counters, flags.

Its next pass may do something else, so that a field of this one is not the network's.
"""

import itertools
import sys
import types
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from inspect import getattr_static
from typing import Any

import numpy as np
from torch import Tensor, nn

from rfbench.spatial_graph.draw import Draw

LATER = (1, 2, 3, 10)  # passes before the ones that are looked at
LIBRARIES = {"timm", "torch", "torchvision"}  # whose files and classes count nothing
STANDARD = {*vars(nn.Module())}
PLAIN = {int, float, bool, str, bytes}
NAMESPACES = {"argparse.Namespace", "types.SimpleNamespace"}
FEW = 16  # entries of a tensor that may be a counter; features that are kept decide nothing
MOST = 1000  # entries of a container that are looked at
DEEPEST = 12  # containers in each other
ALL = 100_000  # values that are looked at; a notebook's names may hold whole data sets
_MISSING = object()

Path = tuple  # where a value is: the layer, its attribute, and the keys below that


class Kept:
    """The numbers and words that the modules of a network, their classes and files hold now.

    Of code that is no library's: to look at the hundreds of layers of a library's network would
    take longer, and they keep nothing of this kind.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self._known = {id(part) for part in parts.values()}
        kinds = {type(m) for m in parts.values()}
        self._kinds = {kind for kind in kinds if _root(kind) not in LIBRARIES}
        self._parts = [(name, m) for name, m in parts.items() if type(m) in self._kinds]
        self._held = self._now(())

    def changed(self, written: Collection[int] = ()) -> Draw | None:
        """The first that is another since, with the layer that holds it; None: all are as then.

        written: the tensors whose memory was written to, by id().
        """
        for path, value in self._now(written).items():
            was = self._held.get(path, _MISSING)
            if was is not value and was != value:  # NaN is not NaN
                return Draw(f"its own {path[1]}", path[0])
        return None

    def _now(self, written: Collection[int]) -> dict[Path, Any]:
        """The values, by where they are."""
        found: dict[Path, Any] = {}
        seen = set(self._known)
        for layer, names in self._places():
            for name, value in names:
                if name.startswith("__"):  # __warningregistry__
                    continue
                _gather(value, (layer, name), found, seen, written)
        return found

    def _places(self) -> Iterator[tuple[str, Iterable[tuple[str, Any]]]]:
        """The attributes of modules, of their classes, and the global names of their files."""
        for name, part in self._parts:
            yield name, part._buffers.items()
            yield name, ((k, v) for k, v in vars(part).items() if k not in STANDARD)
        yield from (("", vars(kind).items()) for kind in self._kinds)
        codes = [getattr_static(kind, "forward", None) for kind in self._kinds]
        functions = [code for code in codes if isinstance(code, types.FunctionType)]
        files = {id(f.__globals__): f.__globals__ for f in functions}
        yield from (("", [*names.items()]) for names in files.values())


def _gather(
    value: Any, path: Path, found: dict[Path, Any], seen: set[int], written: Collection[int]
) -> None:
    """Add the numbers and words in a value to those found."""
    kind = type(value)
    if kind in PLAIN or isinstance(value, np.generic | Enum):
        found[path] = value
    elif kind is itertools.count:
        found[path] = repr(value)
    elif isinstance(value, Tensor):
        if value.numel() <= FEW:  # of one that was there, whether it is another, or written to
            found[path] = id(value), id(value) in written
    elif isinstance(value, np.ndarray):
        found[path] = value.tobytes() if value.size <= MOST else None
    elif id(value) not in seen and len(path) < DEEPEST and len(found) < ALL:
        seen.add(id(value))
        for key, part in _parts(value, kind, path, found):
            _gather(part, (*path, key), found, seen, written)


def _parts(value: Any, kind: type, path: Path, found: dict[Path, Any]) -> Iterable[tuple[Any, Any]]:
    """The parts of a container, whose number counts, or of an object, with their keys."""
    if isinstance(value, dict | list | tuple | deque | set | frozenset):
        found[path] = len(value)
        each = value.items() if isinstance(value, dict) else enumerate(value)
        return [*itertools.islice(each, MOST)]
    own = kind.__module__ == "__main__" or _root(kind) not in _OTHERS
    if own or f"{kind.__module__}.{kind.__name__}" in NAMESPACES:
        return [*getattr(value, "__dict__", {}).items()]
    return ()


def _root(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


# what these classes hold changes by itself, or counts nothing; `type` and functions are of builtins
_OTHERS = {*LIBRARIES, *sys.stdlib_module_names, "builtins", "numpy"}
