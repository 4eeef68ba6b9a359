"""The spatial graph of code that says where tensors lie: made without a device, moved, typed.

A trace runs on the meta device; on a CPU the same code runs as it is.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.spatial_graph.cases import Cases, conv

CASES = Cases()
A: dict[str, Any] = {"size": (12, 14), "a": conv(), "b": conv(4, 4, 5), "c": conv(4, 4, 3, 2)}


@CASES.add(**A)
def moved_to_the_cpu(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.c(y.cpu() + y.to("cpu", torch.float64).to(y.dtype))


@CASES.add(**A)
def typed_as_another(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    columns = torch.arange(y.shape[-1]).type(y.type())  # YOLOX
    return n.c(y + columns) if y.type() == f"torch.{type_name(y)}" else y


def type_name(y: Tensor) -> str:
    return {torch.float32: "FloatTensor", torch.float64: "DoubleTensor"}[y.dtype]


@CASES.add(**A)
def written_into_zeros(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    z = torch.zeros(1, 4, *y.shape[2:], dtype=y.dtype)
    z[:, :2] = n.b(y)[:, :2]
    z[:, 2:].add_(y[:, 2:])
    return n.c(z)


@CASES.add(**A)
def interleaved(n: Any, x: Tensor) -> Tensor:
    y, h, w = n.a(x), *x.shape[2:]
    z = torch.empty(1, 4, 2 * h, w, dtype=y.dtype)
    z[:, :, ::2] = y
    z[:, :, 1::2] = n.b(y)
    return z


@CASES.add(**A)
def copied_into_an_empty_one(n: Any, x: Tensor) -> Tensor:
    y = n.b(n.a(x))
    return n.c(torch.empty(y.shape, dtype=y.dtype).copy_(y))


@CASES.add(**A)
def a_kernel_put_together(n: Any, x: Tensor) -> Tensor:  # ECBSR
    kernel = torch.zeros(4, 4, 5, 5, dtype=x.dtype)
    for i in range(4):
        kernel[i, i, 1:4, 1:4] = n.c.weight[i, 0]
    return F.conv2d(n.a(x), kernel, padding=2)


@CASES.add(**A)
def a_kernel_of_one_tap(n: Any, x: Tensor) -> Tensor:
    kernel = torch.zeros(4, 4, 9, dtype=x.dtype)
    middle = torch.full((4, 4, 1), 4)
    kernel.scatter_(2, middle, n.c.weight.mean((2, 3))[..., None])
    return F.conv2d(n.a(x), kernel.view(4, 4, 3, 3), padding=1)


@CASES.add(**A)
def scaled_by_weights_put_together(n: Any, x: Tensor) -> Tensor:
    scale = torch.zeros(4, dtype=x.dtype)
    scale[:] = n.c.weight.mean((1, 2, 3))
    return n.b(n.a(x)) * scale.view(4, 1, 1)


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()
