"""Networks without memory: every parameter and buffer is on the meta device."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rfbench.errors import UsageError

Model = TypeVar("Model", bound=nn.Module)


def meta_copy(module: Model) -> Model:
    """A copy without memory: every parameter and buffer on the meta device."""
    tensors = [*module.parameters(), *module.buffers()]
    # what pruning and the old weight_norm compute cannot be copied by deepcopy
    held = (value for part in module.modules() for value in vars(part).values())
    tensors += [t for t in held if isinstance(t, Tensor) and not t.is_leaf]
    memo: dict[int, Any] = {id(t): t.detach().to("meta", copy=True) for t in tensors}
    memo |= {id(p): nn.Parameter(memo[id(p)], requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, memo).eval()


class _EmptyOnMeta(TorchFunctionMode):
    """Only torch.empty, from which layers get their parameters, allocates nothing."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})


def build_on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Build with every parameter and buffer on the meta device, except fixed kernels."""
    # RegNet computes its widths with tensors, which fails with everything on meta; hybrid ViTs run
    # on zeros, which fails with only torch.empty on meta; what fails in both ways is allocated
    for context in (_EmptyOnMeta(), torch.device("meta"), contextlib.nullcontext()):
        try:
            with context:
                module = make()
        except Exception as error:
            if isinstance(error, UsageError) or isinstance(context, contextlib.nullcontext):
                raise
            continue
        named = [(m, key, b) for m in module.modules() for key, b in m._buffers.items()]
        kernels = [(m, key, b) for m, key, b in named if b is not None and _is_kernel(b)]
        if all(hasattr(m, "init_non_persistent_buffers") for m, _, b in kernels if b.is_meta):
            break
    module.to("meta")
    for owner, key, kernel in kernels:
        owner._buffers[key] = torch.empty_like(kernel, device="cpu") if kernel.is_meta else kernel
        if kernel.is_meta:
            owner.init_non_persistent_buffers()  # type: ignore[operator]  # timm's protocol
    return module


def _is_kernel(buffer: Tensor) -> bool:
    """Whether it can be the weight of a fixed 2-D convolution, or its mask: (C_out, C_in, h, w)."""
    if buffer.ndim != 4:
        return False
    outputs, inputs, *window = buffer.shape
    return max(window) > 1 and (outputs > 1 or inputs == 1)  # (1, C, H, W) is an image or a table
