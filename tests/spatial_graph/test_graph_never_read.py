"""Maps that take part in an operation and are never read: against gradients of the module."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.spatial_graph.cases import Cases, conv

CASES = Cases()
# `a` is read, and the wider `w` where it is
A: dict[str, Any] = {"size": (12, 14), "a": conv(), "w": conv(3, 4, 7)}


def held(**values: Tensor | nn.Parameter) -> nn.Module:
    """A module of buffers and parameters."""
    module = nn.Module()
    for name, value in values.items():
        if isinstance(value, nn.Parameter):
            module.register_parameter(name, value)
        else:
            module.register_buffer(name, value)
    return module


@CASES.add(**A)
def minus_itself(n: Any, x: Tensor) -> Tensor:
    y = n.w(x)
    return n.a(x) + (y - y)


@CASES.add(**A)
def minus_itself_in_place(n: Any, x: Tensor) -> Tensor:
    y = n.w(x)
    y -= y
    return n.a(x) + y


@CASES.add(**A)
def minus_twice_itself(n: Any, x: Tensor) -> Tensor:
    y = n.w(x)
    return n.a(x) + torch.sub(y, y, alpha=2)


@CASES.add(**A)
def largest_less_where_it_is(n: Any, x: Tensor) -> Tensor:
    """Two results of one operation are not the same tensor."""
    values, where = n.w(x).max(1, keepdim=True)
    return n.a(x) + (values - where)


POWERS = {
    "number": 0, "one": torch.zeros(1), "some": torch.tensor([0.0, 2.0, 0.0, 1.0]).view(4, 1, 1),
    "two": 2,
}  # fmt: skip


@CASES.each(POWERS, **A)
def to_the_power(n: Any, x: Tensor, exponent: Any) -> Tensor:
    return n.a(x) + n.w(x) ** exponent


LEFT = torch.arange(14) < 7
BETWEEN = {
    "first": 0.0, "second": 1, "both": 0.3, "first_buffer": torch.zeros(()),
    "channels": torch.tensor([0.0, 1.0, 0.5, 0.0]).view(4, 1, 1), "places": LEFT.double(),
}  # fmt: skip


@CASES.each(BETWEEN, **A)
def between(n: Any, x: Tensor, weight: Any) -> Tensor:
    weight = weight if isinstance(weight, float | int) else weight.to(x.dtype)
    return torch.lerp(n.a(x), n.w(x), weight)


@CASES.add(**A)
def between_by_a_map(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return torch.lerp(y, n.w(x), y.sigmoid())


KERNELS = {"number": 0, "zero_like": 0.0, "tensor": torch.zeros(()), "buffer": torch.zeros(1)}


@CASES.each(KERNELS, **A)
def with_a_kernel_of_zeros(n: Any, x: Tensor, zero: Any) -> Tensor:
    return n.a(x) + F.conv2d(x, n.w.weight * zero, padding=3)


GAMMAS = {"one": (1,), "four": (4, 1, 1), "all": (4, 12, 14)}
HELD = {name: held(gamma=torch.zeros(form)) for name, form in GAMMAS.items()}


@CASES.each({name: name for name in GAMMAS}, **A, **HELD)
def scaled_by_a_buffer_of_zeros(n: Any, x: Tensor, name: str) -> Tensor:
    return n.a(x) + n.w(x) * getattr(n, name).gamma


@CASES.add(**A)
def scaled_by_zeros_made_on_the_way(n: Any, x: Tensor) -> Tensor:
    return n.a(x) + n.w(x) * torch.zeros(1, device=x.device)


@CASES.add(**A, g=held(gamma=nn.Parameter(torch.zeros(4, 1, 1)), off=torch.zeros(1)))
def a_weight_times_a_buffer_of_zeros(n: Any, x: Tensor) -> Tensor:
    return n.a(x) + n.w(x) * (n.g.gamma * n.g.off)


@CASES.add(**A, g=held(gamma=nn.Parameter(torch.zeros(4, 1, 1))))
def a_weight_that_begins_at_zero_is_read(n: Any, x: Tensor) -> Tensor:
    return n.a(x) + n.w(x) * n.g.gamma


@CASES.add(**A, g=held(matrix=torch.zeros(4, 4)))
def through_a_matrix_of_zeros(n: Any, x: Tensor) -> Tensor:
    return n.a(x) + torch.einsum("nchw,cd->ndhw", n.w(x), n.g.matrix)


@CASES.add(**A, g=held(table=torch.zeros(1)))
def a_buffer_of_zeros_that_is_added(n: Any, x: Tensor) -> Tensor:
    return n.a(x) + n.w(x) + n.g.table


@CASES.add(**A, g=held(steps=torch.zeros(1)))
def scaled_by_a_buffer_that_counts_from_zero(n: Any, x: Tensor) -> Tensor:
    n.g.steps += 1
    return n.a(x) + n.w(x) * (1 - 0.9**n.g.steps)


@CASES.add(**A, g=held(gate=torch.zeros(4, 1, 1)))
def scaled_by_a_buffer_whose_parts_are_set(n: Any, x: Tensor) -> Tensor:
    n.g.gate[2:] = 1
    return n.a(x) + n.w(x) * n.g.gate


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()
