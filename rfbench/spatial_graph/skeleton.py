"""A module without its weights: the same Python objects around meta tensors."""

import copy
import copyreg
import sys
import types
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
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
    parts = dict(module.named_modules())
    _refuse_unreadable(module, parts)
    try:
        return _skeleton(module, list(parts.values()))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise RfbenchError(f"{type(module).__name__} cannot be copied: {reason}") from error


def _refuse_unreadable(module: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    """Layers without shapes: lazy ones before their first pass, quantised ones at all times."""
    for name, part in parts.items():
        lazy = isinstance(part, LazyModuleMixin) and part.has_uninitialized_params()
        quantised = ".quantized" in type(part).__module__
        if lazy or quantised:
            where = f"{type(module).__name__} has a layer {name or 'itself'} that is"
        if lazy:
            raise RfbenchError(f"{where} lazy and has no weights yet. Run the network once.")
        if quantised:
            raise RfbenchError(
                f"{where} quantised: its operations cannot be run without values. Measure the "
                "network that was quantised; its receptive field is the same."
            )


def _skeleton(module: nn.Module, parts: list[nn.Module]) -> tuple[nn.Module, dict[int, Tensor]]:
    """Fixed values are those of buffers, and of tensors that are no function of a weight."""
    memo = _scripted(parts)
    buffers: dict[int, Tensor] = {}
    for tensor in _tensors(parts):
        if id(tensor) in memo:
            continue
        memo[id(tensor)] = meta = _on_meta(tensor)
        if not isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            buffers[id(meta)] = tensor
    copied = _copied(module, memo).eval()
    for m in copied.modules():
        if _only_rounds(m):  # their control flow and their statistics need values
            m.forward = torch.clone
    if any(isinstance(m, nn.SELU | nn.RReLU) for m in parts):
        for m in copied.modules():
            if isinstance(m, nn.SELU | nn.RReLU):  # functionalisation fails on their in-place forms
                m.inplace = False
    return copied, buffers


def _only_rounds(module: nn.Module) -> bool:
    """Whether it is a FakeQuantize or an observer, which round a map or look at it."""
    own = sys.modules.get("torch.ao.quantization")  # not imported for networks that have none
    return own is not None and isinstance(module, own.FakeQuantizeBase | own.ObserverBase)


def without_weights(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with parameters on the meta device; it shares the buffers."""
    parts = list(module.modules())
    memo = _scripted(parts)
    for tensor in _tensors(parts):
        learned = isinstance(tensor, nn.Parameter) or tensor.requires_grad
        memo.setdefault(id(tensor), _on_meta(tensor) if learned else tensor)
    return _copied(module, memo).eval()


def _scripted(parts: Iterable[nn.Module]) -> dict[int, Any]:
    """Parts of torch.jit by id(): shared, since copying one copies its weights."""
    scripted = [m for m in parts if isinstance(m, torch.jit.ScriptModule)]
    return {id(m): m for m in scripted if not getattr(m, "training", False)}  # frozen: none


def _tensors(parts: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters, buffers, and what else modules keep: pruned and normalised weights, tables."""
    for owner in parts:
        if not isinstance(owner, torch.jit.ScriptModule):
            for key, value in vars(owner).items():
                if value is not None and key != "_modules" and isinstance(value, _TREES):
                    yield from _leaves(value)


def _leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in what an attribute holds."""
    if isinstance(value, Tensor):
        yield value
    elif type(value) in _DICTS:
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, _TREES):
        yield from (t for t in tree_leaves(value) if isinstance(t, Tensor))


def _on_meta(tensor: Tensor) -> Tensor:
    if type(tensor) in (Tensor, nn.Parameter) and tensor.is_contiguous():
        meta = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    else:
        meta = tensor.detach().to("meta", copy=True)
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta


_TREES = (Tensor, list, tuple, dict)  # where a module may keep a tensor that is not registered


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy`, and the same faster for modules and what they are made of."""
    kind = type(value)
    if kind in _ATOMS or (kind is tuple and all(type(part) in _ATOMS for part in value)):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in _DICTS and all(type(key) is str for key in value):
        memo[id(value)] = made = kind()
        for key, part in value.items():
            made[key] = part if type(part) in _ATOMS else _copied(part, memo)
        return made
    if kind is set and all(type(part) in _ATOMS for part in value):
        memo[id(value)] = copied = set(value)
        return copied
    plain = not hasattr(kind, "__deepcopy__") and getattr(kind, "__getattr__", None) is _GETATTR
    if plain and isinstance(value, nn.Module):
        make, args, state, *more = (*value.__reduce_ex__(4), None)[:5]
        if make is _NEWOBJ and type(state) is dict and not any(more):
            memo[id(value)] = module = make(*args)
            # not by its own id(): the state may be a dictionary of the moment
            module.__setstate__({key: _copied(part, memo) for key, part in state.items()})
            return module
    return copy.deepcopy(value, memo)


_ATOMS = {int, float, bool, str, type(None), torch.dtype, torch.device, type, types.FunctionType}
_DICTS = {dict, OrderedDict}
_GETATTR = nn.Module.__getattr__
_NEWOBJ = copyreg.__newobj__  # type: ignore[attr-defined]
