"""What a network draws at random while it runs: dropout left on, noise, random crops and paths.

torch tags the operations that draw; what they make is followed through the trace. Values of such
tensors are unknown, as those of weights are. Where the network's code reads one as a number (a
shift, whether a path is taken), or draws with Python's or NumPy's generators, the pass is traced
for other draws too: what is not the same in all of them depends on the draw.
"""

import contextlib
import os
import pickle
import random
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from inspect import getattr_static
from types import FunctionType
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.random import bit_generator
from torch import nn

from rfbench.copies import ATOMS, DICTS, named_parts
from rfbench.spatial_graph.clocks import Names, clocks
from rfbench.spatial_graph.draw import Draw
from rfbench.spatial_graph.operations import Op

DRAWS = 16  # traces that are compared where a number is drawn
LOWEST, HIGHEST = 1, 2  # of these the ones in which each number read is the least, or the most
TRIES = 64  # draws of a number that these look at


PLAIN = {*ATOMS, *DICTS, torch.Tensor, nn.Parameter, set}


def draws(op: Op) -> bool:
    """Whether an operation draws: torch says of each that it may, and its arguments that not."""
    return _may_draw(op.func) and not any(
        _argument(op, name) in (False, 0) for name in _SWITCHES if _has(op.func, name)
    )


@cache
def _may_draw(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


_SWITCHES = ("train", "training", "dropout", "dropout_p", "attn_dropout")  # False or 0: none


@cache
def _has(func: Any, name: str) -> bool:
    return any(a.name == name for a in func._schema.arguments)


def _argument(op: Op, name: str) -> Any:
    for i, a in enumerate(op.func._schema.arguments):
        if a.name == name:
            return op.args[i] if i < len(op.args) else op.kwargs.get(name, a.default_value)
    return None


@contextlib.contextmanager
def seeded(module: nn.Module, draw: int, told: Callable[[Draw], None]) -> Iterator[None]:
    """Run with every generator at the seed `draw`: torch's, those of modules and of their code.

    told: is given what has drawn besides torch: Python's or NumPy's generators, a clock. In the end
    the global ones are as before.
    """
    parts = [*named_parts(module).values()]
    files = _files(parts)
    shared = _beside(files)
    own, restore = [*_held(parts), *shared], [*map(_restorer, shared)]
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    with torch.random.fork_rng(devices=[]), _anew(draw, told), clocks(files, draw, told):
        try:
            for generator in (torch.default_generator, *own):
                _seed(generator, draw)
            random.seed(draw)
            np.random.seed(draw)
            before = _states(own)
            try:
                yield
            finally:
                both = zip(before, _states(own), strict=True)
                for name in [a[0] for a, b in both if a != b]:
                    told(Draw(name))
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for back in restore:
                back()


@contextlib.contextmanager
def _anew(draw: int, told: Callable[[Draw], None]) -> Iterator[None]:
    """Let what asks the system for random numbers take them from `draw`, in this thread.

    Generators of NumPy and Python that are made without a seed, and os.urandom, with which
    random.SystemRandom, secrets and uuid draw. What libraries draw while they are imported, such as
    names, is none of the network's.
    """
    seeds, thread, imports = random.Random(draw), threading.get_ident(), _imports()
    real_bits: Callable[[int], int] = vars(bit_generator)["randbits"]
    real_seed, real_bytes = random.Random.seed, os.urandom

    def drawn(what: str) -> bool:
        # another thread may need numbers that nobody can foretell
        if threading.get_ident() != thread or _imports() > imports:
            return False
        told(Draw(what))
        return True

    def randbits(k: int) -> int:
        numpy = "a NumPy generator without a seed"
        return seeds.getrandbits(k) if drawn(numpy) else real_bits(k)

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None and drawn("a Python generator without a seed"):
            a = seeds.getrandbits(64)
        real_seed(self, a, version)

    def urandom(size: int, /) -> bytes:
        return seeds.randbytes(size) if drawn("the system's random numbers") else real_bytes(size)

    with (
        mock.patch.object(bit_generator, "randbits", randbits),
        mock.patch.object(random.Random, "seed", seed),
        mock.patch.object(os, "urandom", urandom),
        mock.patch.object(random, "_urandom", urandom),  # its own name for it
    ):
        yield


def _imports() -> int:
    """How many imports are under way."""
    frames = traceback.walk_stack(None)
    return sum(frame.f_globals.get("__name__") == "importlib._bootstrap" for frame, _ in frames)


def _seed(generator: Any, draw: int) -> None:
    next(seed for kind, seed in _SEED.items() if isinstance(generator, kind))(generator, draw)


def _seed_bits(generator: np.random.Generator, draw: int) -> None:
    bits = generator.bit_generator
    bits.state = type(bits)(draw).state


_SEED: dict[type, Callable[[Any, int], Any]] = {
    torch.Generator: lambda g, draw: g.manual_seed(draw),
    random.Random: lambda g, draw: g.seed(draw),
    np.random.RandomState: lambda g, draw: g.seed(draw),
    np.random.Generator: _seed_bits,
}


def _held(parts: Sequence[nn.Module]) -> list[Any]:
    """The generators that modules hold, and objects that they hold."""
    values = [v for m in parts for v in vars(m).values() if type(v) not in PLAIN]
    held = [v for value in values for v in (value, *getattr(value, "__dict__", {}).values())]
    return [v for v in held if _has_state(v)]


def _has_state(value: Any) -> bool:
    """Whether it is a generator; the system's (random.SystemRandom) has no state."""
    kind = type(value)
    return issubclass(kind, tuple(_SEED)) and not issubclass(kind, random.SystemRandom)


def _files(parts: Sequence[nn.Module]) -> list[Names]:
    """The global names of the code of modules, by file."""
    codes = [getattr_static(kind, "forward", None) for kind in {*map(type, parts)}]
    codes += [v for m in parts for v in vars(m).values() if type(v) is FunctionType]
    names = {id(c.__globals__): c.__globals__ for c in codes if isinstance(c, FunctionType)}
    return [*names.values()]


def _beside(files: Sequence[Names]) -> list[Any]:
    """The generators among the global names of files."""
    found = [v for known in files for v in [*known.values()]]
    every = {id(v): v for v in found if _has_state(v)}
    return [v for v in every.values() if v is not torch.default_generator]


def _restorer(generator: Any) -> Callable[[], Any]:
    """What gives a generator the state that it has now."""
    if isinstance(generator, np.random.Generator):
        return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    return partial(generator.set_state, generator.get_state())


def _states(own: Iterable[Any]) -> list[tuple[str, bytes]]:
    """The states of all generators but torch's, with their names."""
    found = [("Python's random", random.getstate()), ("numpy.random", np.random.get_state())]
    found += [(f"its own {type(g).__name__}", g) for g in own if not isinstance(g, torch.Generator)]
    return [(name, pickle.dumps(state)) for name, state in found]
