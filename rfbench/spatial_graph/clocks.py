"""Clocks that a network's code reads: other times in each draw, as what it draws at random."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from rfbench.spatial_graph.draw import Draw
from rfbench.spatial_graph.kept import LIBRARIES

Names = dict[str, Any]  # the global names of a file

CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns")
MOST = 1e5  # seconds by which a clock is late, more with every reading


@contextlib.contextmanager
def clocks(files: Sequence[Names], draw: int, told: Callable[[Draw], None]) -> Iterator[None]:
    """Let files that have the module `time`, or a clock of it, read other times in other draws.

    The first draw, 0, has the real ones. told: is given that one was read. In the end the files
    have what they had.
    """
    own = [f for f in files if str(f.get("__name__")).partition(".")[0] not in LIBRARIES]
    reals = {id(v): v for v in (time, *(vars(time)[name] for name in CLOCKS))}
    found = [(f, name, v) for f in own for name, v in f.items() if id(v) in reals]
    if found:
        instead = _late(random.Random(draw), MOST if draw else 0, told)
        for names, name, real in found:
            names[name] = instead[id(real)]
    try:
        yield
    finally:
        for names, name, real in found:
            names[name] = real


def _late(seeds: random.Random, most: float, told: Callable[[Draw], None]) -> dict[int, Any]:
    """The module `time` and its clocks, by id(), as others that are late."""
    since = 0.0

    def late(real: Callable[[], float], second: int) -> Callable[[], float]:
        def read() -> float:
            nonlocal since
            told(Draw("a clock"))
            since += seeds.uniform(0, most)
            return real() + (since if second == 1 else int(second * since))

        return read

    reals = {name: vars(time)[name] for name in CLOCKS}
    others = {name: late(v, 10**9 if name.endswith("_ns") else 1) for name, v in reals.items()}
    module = ModuleType("time")
    vars(module).update(vars(time) | others)
    return {id(time): module} | {id(v): others[name] for name, v in reals.items()}
