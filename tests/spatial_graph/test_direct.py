"""Calls whose operation is known leave the same trace as the calls made."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.spatial_graph import direct
from rfbench.spatial_graph.operations import Ref, Trace, mapped
from rfbench.spatial_graph.trace import trace_module

EMPTY = "aten.empty.memory_format"  # torch's own memory for statistics, which nothing reads


class Calls(nn.Module):
    """One call, and a layer behind it."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call
        self.weight = nn.Parameter(torch.zeros(6, 3, 3, 3))
        self.vector = nn.Parameter(torch.zeros(3))
        self.mean = nn.Buffer(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(self.call(self, x))


def in_grad(_m: Calls, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.relu(x * x).sum(), x)
    return slope.detach()


def batched(m: Calls, x: Tensor) -> Tensor:
    return torch.vmap(lambda one: F.conv2d(one[None], m.weight)[0])(x)


CALLS = {
    "numbers": lambda m, x: F.conv2d(x, m.weight, None, 2, 1),
    "lists": lambda m, x: F.conv2d(x, m.weight, None, [1, 2], [1, 0], [2, 1]),
    "by name": lambda m, x: torch.conv2d(x, weight=m.weight, padding=(1, 1), stride=(2, 1)),
    "one in a tuple": lambda m, x: F.conv2d(x, m.weight, stride=(2,)),
    "same": lambda m, x: F.conv2d(x, m.weight, padding="same"),
    "without a batch": lambda m, x: F.conv2d(x[0], m.weight)[None],
    "groups": lambda m, x: F.conv2d(x, m.weight[:3, :1], groups=3),
    "biased": lambda m, x: F.conv2d(x, m.weight[:3], m.vector),
    "norm": lambda m, x: F.batch_norm(x, m.mean, m.mean, m.vector, m.vector, False, 0.1, 1e-3),
    "norm without weights": lambda m, x: F.batch_norm(x, m.mean, m.mean),
    "norm of the batch": lambda m, x: F.batch_norm(x, None, None, training=True),
    "norm with a momentum": lambda m, x: F.batch_norm(x, m.mean, m.mean, momentum=0),
    "relu": lambda m, x: F.relu(x),
    "relu in place": lambda m, x: F.relu(x + 1, inplace=True),
    "relu of the input in place": lambda m, x: F.relu(x, True),
    "relu of a view in place": lambda m, x: F.relu((x + 1)[:, :2], True),
    "silu": lambda m, x: F.silu(x + 1, inplace=True),
    "numbers by rows": lambda m, x: F.relu(x.transpose(2, 3)),
    "cat": lambda m, x: torch.cat([x, F.relu(x)]),
    "cat of channels": lambda m, x: torch.cat((x, x), dim=1),
    "cat from behind": lambda m, x: torch.cat([x, x], -1),
    "cat of types": lambda m, x: torch.cat([x, x.double()], 1),
    "half": lambda m, x: F.conv2d(x.half(), m.weight.half()),
    "vmap": batched,
    "gradients": in_grad,
}


def both(monkeypatch: pytest.MonkeyPatch, module: nn.Module, size: tuple[int, ...]) -> list[Trace]:
    """The traces with the ways through C++ left out, and with all of them made."""
    left_out = trace_module(module, size)
    with monkeypatch.context() as patched:
        patched.setattr(direct, "CALLS", {})
        return [left_out, trace_module(module, size)]


def form(trace: Trace) -> tuple:
    """All that a trace holds; tensors numbered in the order in which operations name them."""
    numbers: dict[int, int] = {}

    def number(ref: Ref) -> int:
        return numbers.setdefault(ref.id, len(numbers))

    kept = [op for op in trace.ops if op.name != EMPTY]
    parts = [mapped(Ref, number, (op.args, op.kwargs, op.out)) for op in kept]
    ops = [(o.name, repr(p), o.layer, len(o.written)) for o, p in zip(kept, parts, strict=True)]
    before = len([op for op in trace.ops[: trace.sized or 0] if op.name != EMPTY])
    layers = {name: numbers.get(i) for name, i in trace.layers.items()}
    outputs = {name: numbers.get(i) for name, i in trace.outputs.items()}
    shapes = {new: trace.shapes[old] for old, new in numbers.items()}
    failure = str(trace.failure or "")
    return ops, layers, outputs, shapes, trace.sized is not None and before, failure


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_the_trace_that_torch_would(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both(monkeypatch, Calls(CALLS[call]), (9, 8))
    assert form(one) == form(other)
    assert len(one.ops) > 1


NETWORKS = ["densenet121", "efficientnet_b0", "resnet18", "convnext_atto", "repvgg_a0", "dla34"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_leaves_the_trace_that_torch_would(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both(monkeypatch, timm.create_model(name), (64, 64))
    assert form(one) == form(other)


def test_calls_that_are_known_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(monkeypatch, timm.create_model("resnet18"), (64, 64))
    empty = [sum(op.name == EMPTY for op in trace.ops) for trace in (one, other)]
    assert empty == [1, 21]  # the image; and one for each of 20 norms
