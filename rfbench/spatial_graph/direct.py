"""Frequent calls of torch's functions as the operations that torch makes of them.

torch takes a call such as conv2d apart in C++, and hands the operation back to Python. Where it is
known which operation that will be, the way through C++ can be left out. A rule here gives None for
every form of a call of which it does not know that; tests/spatial_graph/test_direct.py compares
both ways.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

Operation = tuple[Any, tuple]  # an operation and its arguments
_aten = torch.ops.aten


def operation(func: Any, args: tuple, kwargs: dict[str, Any]) -> Operation | None:
    """What a call comes to; None where it has to be made."""
    rule = CALLS.get(func)
    if rule is None or not _is_bare():
        return None
    try:
        return rule(*args, **kwargs)
    except TypeError:  # other arguments than the rule knows
        return None


def _is_bare() -> bool:
    """Whether nothing looks on that a call made by C++ would tell: gradients, vmap, other modes."""
    return not (
        torch.is_grad_enabled()
        or torch._C._functorch.peek_interpreter_stack()
        or torch._C._len_torch_dispatch_stack() > 1
        or forward_ad._current_level >= 0
    )


def _each(value: Any, axes: int) -> list[int] | None:
    """A number, or one for every axis, as the list that the operation gets."""
    if type(value) is int:
        return [value] * axes
    fits = type(value) in (tuple, list) and len(value) == axes
    return list(value) if fits and all([type(n) is int for n in value]) else None


def _convolution(axes: int) -> Callable[..., Operation | None]:
    def convolution(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Operation | None:
        each = [_each(value, axes) for value in (stride, padding, dilation)]
        if None in each or type(groups) is not int:
            return None
        if not isinstance(input, Tensor) or input.dim() != axes + 2:  # one without a batch
            return None
        args = (input, weight, bias, *each, False, [0] * axes, groups)
        return _aten.convolution.default, args

    return convolution


def _batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Operation | None:
    if training or type(momentum) is not float or type(eps) is not float:
        return None
    args = (input, weight, bias, running_mean, running_var, False, momentum, eps)
    return _aten.native_batch_norm.default, args


def _activation(name: str) -> Callable[..., Operation | None]:
    in_place = getattr(_aten, f"{name}_").default, getattr(_aten, name).default

    def activation(input: Any, inplace: bool = False) -> Operation | None:
        return in_place[not inplace], (input,)

    return activation


def _cat(tensors: Any, dim: int = 0) -> Operation | None:
    if type(tensors) not in (list, tuple) or type(dim) is not int:
        return None
    return _aten.cat.default, (list(tensors), dim) if dim else (list(tensors),)


CALLS: dict[Any, Callable[..., Operation | None]] = {
    torch.conv1d: _convolution(1),
    torch.conv2d: _convolution(2),
    torch.conv3d: _convolution(3),
    F.batch_norm: _batch_norm,
    F.relu: _activation("relu"),
    F.silu: _activation("silu"),
    torch.cat: _cat,
}
