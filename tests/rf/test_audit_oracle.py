"""Every figure of an audit, its fixes included, against the module run in float64 (`oracle`)."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import rfbench
from rfbench import rf
from tests.rf.oracle import Seen, box, periods
from tests.rf.oracle_cases import CASES, Asked


@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_that_of_the_network_run(name: str) -> None:
    one = Asked(name)
    net, size, given, where = one.net, one.size, one.given, one.where
    found = rf.audit(net, **given(size), **where)
    for row in found.get("fixes", []):
        if "refused" not in row:
            fixed = rfbench.fix(copy.deepcopy(net), row["variant"], inputs=one.inputs(size))
            after = one.seen(one.large, fixed)
            assert row["shift"] == pytest.approx(after.shift(*after.turns), abs=1e-6)
    at = tuple(found["measured_at"])
    counts, figures = rf.path_counts(rf.record(net, **given(at)), **where)
    turns = [round(s * p) for s, p in zip(figures["stride"], figures["phases"], strict=True)]
    larger = tuple(n + -(-24 // t) * t for n, t in zip(at, turns, strict=True))
    large, whole, own = map(one.seen, (larger, at, size))
    phases, stride = large.turns
    assert found["shift"] == pytest.approx(large.shift(phases, stride), abs=1e-6)
    assert found["shift"] == pytest.approx(whole.shift(phases, stride), abs=1e-6)
    assert found["at_own_size"]["shift"] == pytest.approx(own.shift(phases, stride), abs=1e-6)
    assert found["checkerboard"] == pytest.approx(whole.checkerboard(phases), abs=1e-9)
    assert found["read"] == pytest.approx(whole.read())
    for key, period in periods(found["gridding_by_period"], len(size)):
        assert found["gridding_by_period"][key] == pytest.approx(whole.gridding(period), abs=1e-9)
    field = whole.field(whole.centre)
    np.testing.assert_allclose(counts / counts.sum(), field / field.sum(), atol=1e-12)
    assert figures["size"] == whole.sizes(phases) and figures["stride"] == [*stride]
    assert tuple(figures["phases"]) == phases and not figures["cut"]
    if figures["registration"] is not None:
        assert figures["registration"] == pytest.approx(whole.registration(phases, stride))
    x, out = own._once
    (every,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    reached = float((every[0].sum(0) != 0).double().mean())
    boxed = np.prod([b - a + 1 for a, b in box(own.field(own.centre))]) / np.prod(own.side)
    assert found["coverage"] == pytest.approx({"reached": reached, "seen": boxed})


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_units_at_the_border_of_a_resized_map_read_what_gradients_say(mode: str) -> None:
    """Of rounding torch leaves a weight of 3e-17 to the third output: that is no path."""
    net = nn.Upsample(scale_factor=5, mode=mode)
    graph, own = rf.record(net, size=8, in_channels=2), Seen(net, [(2, 8, 8)])
    for u in range(12):
        counts, _ = rf.path_counts(graph, unit=(u, 39 - u))
        assert np.array_equal(counts, own.field((u, 39 - u))), u
