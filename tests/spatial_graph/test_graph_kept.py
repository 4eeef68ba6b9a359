"""Networks that keep something from one pass to the next, or look at a clock."""

import itertools
import time
from collections.abc import Callable
from time import perf_counter as seconds
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError
from rfbench.spatial_graph.kept import Kept
from rfbench.spatial_graph.reader import spatial_graph
from rfbench.spatial_graph.trace import trace_module
from tests.spatial_graph.cases import conv
from tests.spatial_graph.oracle import prepared

SIZE = (14, 16)
ONCE = 0


class Keeping(nn.Module):
    """Does `run`, and holds whatever else it is given."""

    ever = 0

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **held: Any) -> None:
        super().__init__()
        self.run, self.a, self.b, self.wide = run, conv(), conv(4, 4), conv(4, 4, 7)
        vars(self).update(held)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)

    def either(self, x: Tensor, narrow: object) -> Tensor:
        return self.b(self.a(x)) if narrow else self.wide(self.a(x))


def counted(n: Any, x: Tensor) -> Tensor:
    n.count += 1
    return n.either(x, n.count % 2)


def seldom(n: Any, x: Tensor) -> Tensor:
    n.count += 1
    return n.either(x, n.count % 4)


def first(n: Any, x: Tensor) -> Tensor:
    narrow, n.fresh = n.fresh, False
    return n.either(x, narrow)


def in_a_dict(n: Any, x: Tensor) -> Tensor:
    n.state["step"] += 1
    return n.either(x, n.state["step"] % 2)


def in_a_list(n: Any, x: Tensor) -> Tensor:
    n.state[0] = not n.state[0]
    return n.either(x, n.state[0])


def by_an_iterator(n: Any, x: Tensor) -> Tensor:
    return n.either(x, next(n.state) % 2)


def of_the_class(n: Any, x: Tensor) -> Tensor:
    Keeping.ever += 1
    return n.either(x, Keeping.ever % 2)


def of_the_file(n: Any, x: Tensor) -> Tensor:
    global ONCE
    ONCE += 1
    return n.either(x, ONCE % 2)


DECIDES: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "a counter": (counted, {"count": 0}, "its own count"),
    "every fourth": (seldom, {"count": 0}, "its own count"),
    "a flag": (first, {"fresh": True}, "its own fresh"),
    "in a dict": (in_a_dict, {"state": {"step": 0}}, "its own counts"),
    "in a list": (in_a_list, {"state": [False]}, "its own counts"),
    "an iterator": (by_an_iterator, {"state": itertools.count()}, "its own counts"),
    "of the class": (of_the_class, {}, "its own ever"),
    "of the file": (of_the_file, {}, "its own ONCE"),
    "a clock": (lambda n, x: n.either(x, time.time() % 2 < 1), {}, "a clock"),
    "a clock's function": (lambda n, x: n.either(x, seconds() % 2 < 1), {}, "a clock"),
    "nanoseconds": (lambda n, x: n.either(x, time.time_ns() % 2), {}, "a clock"),
}


@pytest.mark.parametrize("name", DECIDES)
def test_what_decides_what_the_next_pass_reads_is_refused(name: str) -> None:
    run, held, told = DECIDES[name]
    graph = rf.record(Keeping(run, **held), size=SIZE, in_channels=3)
    with pytest.raises(RfbenchError, match=rf"{told} \(.* decides what is read"):
        rf.theory(graph)
    assert rf.theory(graph, "a")["x"]["size"] == 3  # the same in each pass


def logged(n: Any, x: Tensor) -> Tensor:
    begun = time.time()
    y = n.either(x, True)
    n.count, n.spent, n.sides = n.count + 1, time.time() - begun, x.shape[-1]
    return y


def with_a_table(n: Any, x: Tensor) -> Tensor:
    """Made in the first pass, and kept for the others."""
    n.count += 1
    y = n.a(x)
    if y.shape[-1] not in n.tables:
        n.tables[y.shape[-1]] = torch.arange(y.shape[-1], device=x.device) % 3 > 0
    return n.b(y * n.tables[y.shape[-1]].to(y.dtype))


def with_the_frame_before(n: Any, x: Tensor) -> Tensor:
    n.count += 1
    y = n.a(x)
    before, n.before = n.before, y
    return n.b(y if before is None else y + before)


def with_a_write(n: Any, x: Tensor) -> Tensor:
    n.count += 1
    y = n.a(x)
    y[:, :2, ::2] = 0
    return n.b(y) + F.relu(y)


SAME: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "times and sizes": (logged, {"count": 0, "spent": 0.0, "sides": None}),
    "a table": (with_a_table, {"count": 0, "tables": {}}),
    "a frame": (with_the_frame_before, {"count": 0, "before": None}),
    "a write": (with_a_write, {"count": 0}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_is_measured(name: str) -> None:
    run, held = SAME[name]
    module = Keeping(run, **held)
    graph = rf.record(module, size=SIZE, in_channels=3)
    counts, _ = rf.path_counts(graph, unit=(5, 6))
    assert held == {key: vars(module)[key] for key in held}  # recording leaves it alone
    x = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    model = prepared(module)
    model(torch.rand_like(x).detach())
    (gradient,) = torch.autograd.grad(model(x)[0, :, 5, 6].sum(), x)
    assert np.array_equal(counts > 0, (gradient[0] != 0).any(0).numpy())


def test_a_network_that_keeps_nothing_has_one_trace() -> None:
    """Nor are the layers of libraries looked at, of which there may be hundreds."""
    module = Keeping(lambda n, x: n.either(x, True))
    assert trace_module(module, SIZE, 3).kept is None
    layer = nn.Sequential(nn.Conv2d(3, 4, 3))
    held = Kept({"": layer, "0": layer[0]})
    layer[0].padding = (7, 7)
    layer[0].calls = 1
    assert held.changed() is None


def test_files_have_their_clocks_again() -> None:
    real = time, time.time, seconds
    spatial_graph(Keeping(DECIDES["a clock"][0]), SIZE, 3)
    assert (time, time.time, seconds) == real and type(time.time()) is float
