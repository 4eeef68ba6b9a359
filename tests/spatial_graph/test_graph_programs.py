"""Random programs: the graph's support is that of autograd, its counts are autograd's gradients."""

from collections import Counter

import numpy as np
import pytest
import torch

from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import examine
from tests.spatial_graph.oracle import Alive, reached, sampled
from tests.spatial_graph.programs import Program

BLOCK = 100  # programs a test


@pytest.mark.parametrize(("block", "axes"), [(0, 2), (1, 2), (2, 2), (0, 1), (0, 3)])
def test_support(block: int, axes: int) -> None:
    seen: Counter[Reach] = Counter()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        program = Program(seed, axes=axes)
        verdict = examine(program, program.size, program.channels, units=8)
        assert not verdict.wrong, (seed, program.text, verdict.wrong)
        seen[verdict.reach] += 1
    assert seen[Reach.LOCAL] + seen[Reach.CONTEXT] > 0.6 * BLOCK, seen  # not all is refused


@pytest.mark.parametrize(("block", "axes"), [(0, 2), (1, 2), (0, 1), (0, 3)])
def test_counts(block: int, axes: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        program = Program(seed, linear=True, axes=axes)
        graph = spatial_graph(program, program.size, program.channels)
        if graph.witness(graph.output).reach > Reach.CONTEXT:
            continue
        assert isinstance(graph.output, Value)
        x = torch.ones(1, program.channels, *program.size, dtype=torch.float64, requires_grad=True)
        with Alive():
            out = program(x.clone())
        for index in sampled(graph.output, 6):
            (grad,) = torch.autograd.grad(out[index], x, retain_graph=True, allow_unused=True)
            truth = np.zeros(program.size) if grad is None else grad[0].sum(0).numpy()
            rule = {"channels": "real", "pool": "mean", "gates": "count"}
            found = reached(graph, graph.output, index, **rule)
            assert np.allclose(found, truth, rtol=1e-9), (seed, program.text, index)
