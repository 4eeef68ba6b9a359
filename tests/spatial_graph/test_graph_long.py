"""Long sequences: what copies samples is read in linear time and memory."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rfbench import rf
from tests.spatial_graph.cases import Net

LONG = 120_000  # a table of all pairs would take 115 GB

COPIES = {
    "reflected": nn.ReflectionPad1d((3, 5)),
    "replicated": nn.ReplicationPad1d((3, 5)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest-exact": nn.Upsample(size=LONG * 2, mode="nearest-exact"),
    "by 3": nn.Upsample(size=LONG // 3, mode="nearest"),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_long_sequence(name: str) -> None:
    net = nn.Sequential(COPIES[name], nn.Conv1d(1, 1, 3))
    x = torch.rand(1, 1, LONG, requires_grad=True)
    graph = rf.record(net, inputs=[x])
    y = net(x)
    middle = (y.shape[2] - 1) // 2
    for unit in (0, middle, y.shape[2] - 1):
        (gradient,) = torch.autograd.grad(y[0, 0, unit], x, retain_graph=True)
        counts, figures = rf.path_counts(graph, unit=(unit,))
        assert torch.equal(torch.from_numpy(counts != 0), gradient[0, 0] != 0)
        assert figures["read"] == (3 / 7 if name == "by 3" else 1)  # 1 in the padding too


def test_resizing_that_mixes_some_samples_alone_is_no_copy() -> None:
    """From 9 to 5 the central one is a copy, the others are not."""
    x = torch.rand(1, 1, 9, requires_grad=True)
    net = Net(lambda n, x: F.interpolate(n.a(x), 5, mode="linear"), a=nn.Conv1d(1, 1, 1))
    graph = rf.record(net, inputs=[x])
    for unit in range(5):
        (gradient,) = torch.autograd.grad(net(x)[0, 0, unit], x)
        counts, _ = rf.path_counts(graph, unit=(unit,))
        assert torch.equal(torch.from_numpy(counts != 0), gradient[0, 0] != 0)
