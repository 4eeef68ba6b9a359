"""A module without its weights: the same Python objects around meta tensors."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError


def skeleton(module: nn.Module) -> tuple[nn.Module, dict[int, Tensor]]:
    """A copy of `module` in which every tensor is on the meta device, in evaluation mode.

    Returns the copy and, by id() of its meta tensors, the values of the registered buffers. Raises
    RfbenchError where the module cannot be copied or has no weights yet.
    """
    _refuse_unreadable(module)
    try:
        return _skeleton(module)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise RfbenchError(f"{type(module).__name__} cannot be copied: {reason}") from error


def _refuse_unreadable(module: nn.Module) -> None:
    """Layers without shapes: lazy ones before their first pass, quantised ones at all times."""
    for name, part in module.named_modules():
        where = f"{type(module).__name__} has a layer {name or 'itself'} that is"
        if isinstance(part, LazyModuleMixin) and part.has_uninitialized_params():  # type: ignore[misc]
            raise RfbenchError(f"{where} lazy and has no weights yet. Run the network once.")
        if ".quantized" in type(part).__module__:
            raise RfbenchError(
                f"{where} quantised: its operations cannot be run without values. Measure the "
                "network that was quantised; its receptive field is the same."
            )


def _skeleton(module: nn.Module) -> tuple[nn.Module, dict[int, Tensor]]:
    """Fixed values are those of buffers, and of tensors that are no function of a weight."""
    memo = _scripted(module)
    buffers: dict[int, Tensor] = {}
    for tensor in _tensors(module):
        if id(tensor) in memo:
            continue
        memo[id(tensor)] = meta = _on_meta(tensor)
        if not isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            buffers[id(meta)] = tensor
    copied = copy.deepcopy(module, memo).eval()
    for m in copied.modules():
        if isinstance(m, nn.SELU | nn.RReLU):  # functionalisation fails on their in-place forms
            m.inplace = False
    return copied, buffers


def without_weights(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with parameters on the meta device; it shares the buffers."""
    memo = _scripted(module)
    for tensor in _tensors(module):
        learned = isinstance(tensor, nn.Parameter) or tensor.requires_grad
        memo.setdefault(id(tensor), _on_meta(tensor) if learned else tensor)
    return copy.deepcopy(module, memo).eval()


def _scripted(module: nn.Module) -> dict[int, Any]:
    """Parts of torch.jit by id(): shared, since copying one copies its weights."""
    parts = module.modules()
    scripted = [m for m in parts if isinstance(m, torch.jit.ScriptModule)]
    return {id(m): m for m in scripted if not getattr(m, "training", False)}  # frozen: none


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and what else a module keeps: pruned and normalised weights, tables."""
    for owner in module.modules():
        if not isinstance(owner, torch.jit.ScriptModule):
            held = [v for v in vars(owner).values() if isinstance(v, _TREES)]
            yield from (t for t in tree_leaves(held) if isinstance(t, Tensor))


def _on_meta(tensor: Tensor) -> Tensor:
    meta = tensor.detach().to("meta", copy=True)
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta


_TREES = (Tensor, list, tuple, dict)  # where a module may keep a tensor that is not registered
