"""What a network keeps from one forward pass to the next: counters, flags.

Its next pass may do something else, so that a field of this one is not the network's.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from inspect import getattr_static
from operator import is_
from types import FunctionType
from typing import Any

from torch import nn

from rfbench.spatial_graph.draw import Draw

LATER = (1, 2, 3, 10)  # passes before the ones that are looked at
LIBRARIES = {"timm", "torch", "torchvision"}  # whose files and classes count nothing
STANDARD = {*vars(nn.Module())}
PLAIN = {int, float, bool, str}


class Kept:
    """The plain values that the modules of a network, their classes and files hold now.

    Of code that is no library's: to look at the hundreds of layers of a library's network would
    take longer, and they keep nothing of this kind.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        kinds = {type(m) for m in parts.values()}
        own = {kind for kind in kinds if kind.__module__.partition(".")[0] not in LIBRARIES}
        named = [(name, part) for name, part in parts.items() if type(part) in own]
        self._held = [(name, v, {**v}) for name, v in _places(named, own)]
        self._inside = [(name, v, _plain(v)) for name, v in _containers(named)]

    def changed(self) -> Draw | None:
        """The first that is another since, with the layer that holds it; None: all are as then."""
        for layer, now, was in self._held:
            if len(now) != len(was) or not all(map(is_, now.values(), was.values())):
                for name, value in now.items():
                    if _differs(was.get(name), value):
                        return Draw(f"its own {name}", layer)
        for layer, container, values in self._inside:
            if _plain(container) != values:
                return Draw("its own counts", layer)
        return None


Named = Iterable[tuple[str, nn.Module]]


def _places(named: Named, kinds: Iterable[type]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The attributes of modules, of their classes, and the global names of their files."""
    yield from ((name, vars(part)) for name, part in named)
    yield from (("", vars(kind)) for kind in kinds)
    codes = [getattr_static(kind, "forward", None) for kind in kinds]
    files = {id(c.__globals__): c.__globals__ for c in codes if isinstance(c, FunctionType)}
    yield from (("", names) for names in files.values())


def _containers(named: Named) -> Iterator[tuple[str, Any]]:
    """The lists, dicts and counters that modules hold."""
    for name, part in named:
        held = vars(part)
        for key in held.keys() - STANDARD:
            if isinstance(held[key], list | dict | itertools.count):
                yield name, held[key]


def _plain(container: Any) -> Any:
    if isinstance(container, itertools.count):
        return repr(container)
    values: Iterable = container.values() if isinstance(container, dict) else container
    return [v for v in values if type(v) in PLAIN]


def _differs(was: Any, now: Any) -> bool:
    """Whether a number or a word has changed, or come to be one."""
    known = was is None or type(was) in PLAIN
    return known and type(now) in PLAIN and bool(was != now)
