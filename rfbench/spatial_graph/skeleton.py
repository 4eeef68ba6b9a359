"""A module without its weights: the same Python objects around meta tensors."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError


def skeleton(module: nn.Module) -> tuple[nn.Module, dict[int, Tensor]]:
    """A copy of `module` in which every tensor is on the meta device, in evaluation mode.

    Returns the copy and, by id() of its meta tensors, the values of the registered buffers. Raises
    RfbenchError where the module cannot be copied or has no weights yet.
    """
    try:
        return _skeleton(module)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise RfbenchError(f"{type(module).__name__} cannot be copied: {reason}") from error


def _skeleton(module: nn.Module) -> tuple[nn.Module, dict[int, Tensor]]:
    """Weights are neither copied nor read: the deep copy finds their stand-ins in its memo."""
    memo: dict[int, Any] = {}
    buffers: dict[int, Tensor] = {}
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            meta = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
            memo.setdefault(id(parameter), meta)
        for buffer in owner.buffers(recurse=False):
            meta = memo.setdefault(id(buffer), buffer.detach().to("meta", copy=True))
            buffers[id(meta)] = buffer.detach()
        for value in tree_leaves([v for v in vars(owner).values() if isinstance(v, _TREES)]):
            if isinstance(value, Tensor) and id(value) not in memo:
                memo[id(value)] = value.detach().to("meta")
    copied = copy.deepcopy(module, memo).eval()
    for m in copied.modules():
        if isinstance(m, nn.SELU | nn.RReLU):  # functionalisation fails on their in-place forms
            m.inplace = False
    return copied, buffers


_TREES = (Tensor, list, tuple, dict)  # where a module may keep a tensor that is not registered
