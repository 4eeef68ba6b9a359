"""Networks that keep something from one pass to the next, or look at a clock."""

import argparse
import datetime
import itertools
import time
from collections.abc import Callable
from datetime import date
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
        if isinstance(held.get("count"), float):
            self.register_buffer("count", torch.tensor(held.pop("count")))
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


class Steps:
    """What people keep their counts in."""

    def __init__(self) -> None:
        self.inner = argparse.Namespace(n=0)


def in_an_object(n: Any, x: Tensor) -> Tensor:
    n.state.inner.n += 1
    return n.either(x, n.state.inner.n % 2)


def in_a_set(n: Any, x: Tensor) -> Tensor:
    n.state.add(len(n.state))
    return n.either(x, len(n.state) % 2)


def in_an_array(n: Any, x: Tensor) -> Tensor:
    n.state[0] += 1
    return n.either(x, n.state[0] % 2)


def in_a_new_dict(n: Any, x: Tensor) -> Tensor:
    n.state = {"step": n.state["step"] + 1}
    return n.either(x, n.state["step"] % 2)


def in_a_buffer(n: Any, x: Tensor) -> Tensor:
    y = n.either(x, n.count == 0)
    n.count += 1
    return y


def read_after_the_write(n: Any, x: Tensor) -> Tensor:
    n.count.add_(1)
    return n.either(x, int(n.count) % 2)


def in_another_buffer(n: Any, x: Tensor) -> Tensor:
    n.count = n.count + 1
    return n.either(x, n.count.item() % 2)


def chosen_by_where(n: Any, x: Tensor) -> Tensor:
    narrow = torch.where(n.count < 1, 1.0, 0.0)
    n.count += 1
    return n.b(n.a(x)) * narrow + n.wide(n.a(x)) * (1 - narrow)


def a_clock_of_its_own(n: Any, x: Tensor) -> Tensor:
    from time import monotonic

    return n.either(x, monotonic() % 2 < 1)


DECIDES: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "a counter": (counted, {"count": 0}, "its own count"),
    "every fourth": (seldom, {"count": 0}, "its own count"),
    "a flag": (first, {"fresh": True}, "its own fresh"),
    "in a dict": (in_a_dict, {"state": {"step": 0}}, "its own state"),
    "in a list": (in_a_list, {"state": [False]}, "its own state"),
    "an iterator": (by_an_iterator, {"state": itertools.count()}, "its own state"),
    "in an object": (in_an_object, {"state": Steps()}, "its own state"),
    "in a set": (in_a_set, {"state": set()}, "its own state"),
    "in an array": (in_an_array, {"state": np.zeros(1, int)}, "its own state"),
    "in a new dict": (in_a_new_dict, {"state": {"step": 0}}, "its own state"),
    "in a buffer": (in_a_buffer, {"count": 0.0}, "its own count"),
    "read after the write": (read_after_the_write, {"count": 0.0}, "its own count"),
    "in another buffer": (in_another_buffer, {"count": 0.0}, "its own count"),
    "by where": (chosen_by_where, {"count": 0.0}, "its own count"),
    "of the class": (of_the_class, {}, "its own ever"),
    "of the file": (of_the_file, {}, "its own ONCE"),
    "a clock": (lambda n, x: n.either(x, time.time() % 2 < 1), {}, "a clock"),
    "a clock's function": (lambda n, x: n.either(x, seconds() % 2 < 1), {}, "a clock"),
    "imported late": (a_clock_of_its_own, {}, "a clock"),
    "a calendar": (lambda n, x: n.either(x, time.localtime().tm_min % 2), {}, "a clock"),
    "now": (lambda n, x: n.either(x, datetime.datetime.now().minute % 2), {}, "a clock"),
    "today": (lambda n, x: n.either(x, date.today().day % 2), {}, "a clock"),
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


def with_a_first_pass(n: Any, x: Tensor) -> Tensor:
    """As ActNorm: the first pass sets a weight, and says so in a buffer."""
    if n.count == 0:
        with torch.no_grad():
            n.a.bias.copy_(x.mean().expand_as(n.a.bias))
            n.count.fill_(1)
    return n.either(x, True)


SAME: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "times and sizes": (logged, {"count": 0, "spent": 0.0, "sides": None}),
    "a table": (with_a_table, {"count": 0, "tables": {}}),
    "a frame": (with_the_frame_before, {"count": 0, "before": None}),
    "a first pass": (with_a_first_pass, {"count": 0.0}),
    "a write": (with_a_write, {"count": 0}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_is_measured(name: str) -> None:
    run, held = SAME[name]
    module = Keeping(run, **held)
    graph = rf.record(module, size=SIZE, in_channels=3)
    counts, _ = rf.path_counts(graph, unit=(5, 6))
    assert held == {key: getattr(module, key) for key in held}  # recording leaves it alone
    x = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    model = prepared(module)
    model(torch.rand_like(x).detach())
    (gradient,) = torch.autograd.grad(model(x)[0, :, 5, 6].sum(), x)
    assert np.array_equal(counts > 0, (gradient[0] != 0).any(0).numpy())


def test_a_network_that_keeps_nothing_has_one_trace() -> None:
    """Nor are the layers of libraries looked at, of which there may be hundreds."""
    module = Keeping(lambda n, x: n.either(x, True), best=float("nan"), seen=[[0] * 2000] * 2000)
    assert trace_module(module, SIZE, 3).kept is None
    layer = nn.Sequential(nn.Conv2d(3, 4, 3))
    held = Kept({"": layer, "0": layer[0]})
    layer[0].padding = 7, 7
    layer[0].calls = 1
    assert held.changed() is None


def test_files_have_their_clocks_again() -> None:
    real = time, time.time, seconds, datetime, date
    for name in ("a clock", "now", "today"):
        spatial_graph(Keeping(DECIDES[name][0]), SIZE, 3)
        assert (time, time.time, seconds, datetime, date) == real
    assert type(time.time()) is float and type(date.today()) is date
