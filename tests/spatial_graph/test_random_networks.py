"""Random networks, output by output: counts, fields and other sizes are what gradients say."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.rf.core.theory import region
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach
from tests.spatial_graph.networks import RandomNet
from tests.spatial_graph.oracle import Alive, prepared, reached, sampled

SIZE, OTHER = (20, 23), (25, 26)
BLOCK = 15  # networks a test


def gradients(model: nn.Module, size: tuple[int, int], name: str, at: list[Any]) -> list[Any]:
    """Which pixels have a gradient from entries of an output, each (H, W) bool."""
    x = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x + 0.5).requires_grad_()
    with Alive():
        out: Tensor = model(x.clone())[name]
    found = []
    for index in at:
        (grad,) = torch.autograd.grad(out[index], x, retain_graph=True, allow_unused=True)
        found.append((grad[0] != 0).any(0).numpy() if grad is not None else np.zeros(size, bool))
    return found


def check_support(graph: SpatialGraph, model: nn.Module, name: str) -> str:
    """'' where the paths to sampled entries of an output are those of gradients."""
    value = graph.layer(f"output.{name}") if graph.outputs else graph.output
    if not isinstance(value, Value) or graph.witness(value).reach > Reach.CONTEXT:
        return ""
    at = sampled(value, 6)
    for index, truth in zip(at, gradients(model, graph.size, name, at), strict=True):
        mine = reached(graph, value, index, gates="count", pool="mean") != 0
        if not np.array_equal(mine, truth):
            return f"{name}{index} at {graph.size}: {mine.sum()} px by the graph, {truth.sum()}"
    return ""


def check_fields(graph: SpatialGraph, model: nn.Module, name: str) -> str:
    """'' where theory's regions are the gradients' boxes, those of uncut units to the pixel.

    Gates are left out of fields, and masks may leave a border of a kernel empty: then the box is
    only held by the region.
    """
    target = Target(graph, f"output.{name}")
    try:
        fields = target.fields
        units = sorted({(0, 0), target.center, tuple(n - 1 for n in target.units)})
    except RfbenchError:
        return ""
    if max(target.geometry.phases) > 1 and not target.is_resized:
        return f"{name}: units take turns, and nothing is resized"
    if target.witness.reach > Reach.LOCAL or None in fields:
        return ""
    masked = any("masked" in text for text in model.text)
    # padding with pixels of the image: what a unit reads beyond the border lies within
    copies = [getattr(m, "padding_mode", getattr(m, "mode", "zeros")) for m in model.modules()]
    wraps = not {"circular", "reflect", "replicate"}.isdisjoint(copies)
    for y, x in units:
        every = [(0, c, y, x) for c in range(target.value.shape[1])]
        truth = np.any(gradients(model.prepared, graph.size, name, every), axis=0)
        for axis, (field, unit) in enumerate(zip(fields, (y, x), strict=True)):
            first, last = region(field, unit)
            hit = np.flatnonzero(truth.any(1 - axis))
            cut = first < 0 or last >= graph.size[axis]
            if not len(hit) or (cut and wraps):
                continue
            whole = not cut and not masked
            if hit[0] < first or hit[-1] > last or (whole and (hit[0], hit[-1]) != (first, last)):
                return f"{name}[{y}, {x}] axis {axis}: {first} to {last}, {hit[0]} to {hit[-1]}"
    return ""


@pytest.mark.parametrize("block", range(4))
def test_random_networks(block: int) -> None:
    counted, refused = 0, []
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        net = RandomNet(seed, SIZE)
        net.prepared = model = prepared(net)
        graph = Network(net, SIZE, 3).whole(SIZE)
        assert set(graph.outputs) == {"output.aux", "output.out", "output.pooled"}
        for name in ("aux", "out"):
            problem = check_support(graph, model, name) or check_fields(graph, net, name)
            assert not problem, (seed, net.text, problem)
            value = graph.named()[f"output.{name}"]
            refused += [] if isinstance(value, Value) else [(seed, net.text)]
            counted += isinstance(value, Value)
    assert counted > 1.6 * BLOCK, refused


@pytest.mark.parametrize("block", range(2))
def test_at_another_size(block: int) -> None:
    """A graph of one size serves another only where it is the graph of that size."""
    tried = 0
    for seed in range(100 + block * BLOCK, 100 + (block + 1) * BLOCK):
        net = RandomNet(seed, SIZE)
        model, network = prepared(net), Network(net, SIZE, 3)
        network.whole(SIZE)
        for name in ("aux", "out"):
            with torch.no_grad():
                try:
                    model(torch.rand(1, 3, *OTHER, dtype=torch.float64))
                except RuntimeError:
                    with pytest.raises(RfbenchError):
                        network.graph(OTHER, f"output.{name}")
                    continue
            graph = network.graph(OTHER, f"output.{name}")
            problem = check_support(graph, model, name)
            assert not problem, (seed, net.text, problem)
            tried += 1
    assert tried > 1.2 * BLOCK
