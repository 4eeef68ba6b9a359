"""A module without its weights: the same Python objects around meta tensors."""

import copy
import sys
import types
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
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
    parts = named_parts(module)
    refuse_unreadable(module, parts)
    try:
        return _skeleton(module, list(parts.values()))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise RfbenchError(f"{type(module).__name__} cannot be copied: {reason}") from error


def named_parts(module: nn.Module) -> dict[str, nn.Module]:
    """What `named_modules` gives, which hands each through all levels above it."""
    parts: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def add(name: str, part: nn.Module) -> None:
        if id(part) not in seen:
            seen.add(id(part))
            parts[name] = part
            for key, below in part._modules.items():
                if below is not None:
                    add(f"{name}.{key}" if name else key, below)

    add("", module)
    return parts


def refuse_unreadable(module: nn.Module, parts: Mapping[str, nn.Module] | None = None) -> None:
    """Raise RfbenchError for layers without shapes.

    Lazy ones before their first pass, quantised ones at all times. parts: all modules by name.
    """
    for name, part in (named_parts(module) if parts is None else parts).items():
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
    copied = _evaluating(_copied(module, memo))
    for kind in {type(m) for m in parts}:
        if _only_rounds(kind):  # their control flow and their statistics need values
            _set(copied, kind, "forward", torch.clone)
        if issubclass(kind, nn.SELU | nn.RReLU):  # functionalisation fails on their in-place forms
            _set(copied, kind, "inplace", False)
    return copied, buffers


def _set(module: nn.Module, kind: type, name: str, value: Any) -> None:
    for m in module.modules():
        if type(m) is kind:
            setattr(m, name, value)


def _evaluating(module: nn.Module) -> nn.Module:
    """A module in evaluation mode; what `eval` does to modules that do not say otherwise."""
    parts = list(named_parts(module).values())
    kinds = {*map(type, parts)}
    own = any(getattr(kind, key) is not method for kind in kinds for key, method in _MODES)
    own |= any(issubclass(kind, torch.jit.ScriptModule) for kind in kinds)
    if own or any("train" in (held := vars(m)) or "eval" in held for m in parts):
        return module.eval()
    for m in parts:
        vars(m)["training"] = False
    return module


def _only_rounds(kind: type) -> bool:
    """Whether it is that of a FakeQuantize or an observer, which round a map or look at it."""
    own = sys.modules.get("torch.ao.quantization")  # not imported for networks that have none
    return own is not None and issubclass(kind, own.FakeQuantizeBase | own.ObserverBase)


def without_weights(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with parameters on the meta device; it shares the buffers."""
    refuse_unreadable(module)
    parts = list(module.modules())
    memo = _scripted(parts)
    for tensor in _tensors(parts):
        learned = isinstance(tensor, nn.Parameter) or tensor.requires_grad
        memo.setdefault(id(tensor), _on_meta(tensor) if learned else tensor)
    return _copied(module, memo).eval()


def whole_copy(module: nn.Module) -> nn.Module:
    """`copy.deepcopy`, also of modules that keep a computed tensor: weight_norm, pruning."""
    every = (t for t in _tensors(list(module.modules())) if not t.is_leaf)
    memo = {id(t): t.detach().clone() for t in every}
    return copy.deepcopy(module, memo)


def _scripted(parts: Iterable[nn.Module]) -> dict[int, Any]:
    """Parts of torch.jit by id(): shared, since copying one copies its weights."""
    scripted = [m for m in parts if isinstance(m, torch.jit.ScriptModule)]
    return {id(m): m for m in scripted if not getattr(m, "training", False)}  # frozen: none


def _tensors(parts: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters, buffers, and what else modules keep: pruned and normalised weights, tables."""
    found: list[Tensor] = []
    for owner in parts:
        if not isinstance(owner, torch.jit.ScriptModule):
            for key, value in vars(owner).items():
                kind = type(value)
                if kind in _ATOMS or key == "_modules" or (kind in _DICTS and not value):
                    continue
                if isinstance(value, _TREES):
                    _gather(value, found)
    return found


def _gather(value: Any, found: list[Tensor]) -> None:
    """Add the tensors in what an attribute holds."""
    kind = type(value)
    if isinstance(value, Tensor):
        found.append(value)
    elif kind in _PLAIN:
        for part in value.values() if kind in _DICTS else value:
            if type(part) not in _ATOMS:
                _gather(part, found)
    else:
        found += (t for t in tree_leaves(value) if isinstance(t, Tensor))


def _on_meta(tensor: Tensor) -> Tensor:
    plain = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_quantized
    if plain and tensor.is_contiguous():
        meta = torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
    else:
        meta = tensor.detach().to("meta", copy=True)
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy`, and the same faster for modules and what they are made of."""
    kind: Any = type(value)
    if id(value) in memo:
        return memo[id(value)]
    if kind in _ATOMS or (kind is tuple and _ATOMS.issuperset(map(type, value))):
        return value
    if kind in _DICTS and _ATOMS.issuperset(map(type, value)):
        made: dict[Any, Any] = kind()
        memo[id(value)] = made
        _copy_items(value, made, memo)
        return made
    if kind is set and _ATOMS.issuperset(map(type, value)):
        memo[id(value)] = copied = set(value)
        return copied
    if isinstance(value, nn.Module) and _is_plain(kind):
        memo[id(value)] = module = object.__new__(kind)
        if kind.__setstate__ is nn.Module.__setstate__:  # adds what old files lack
            _copy_items(vars(value), vars(module), memo)
        else:
            state: dict[str, Any] = {}
            _copy_items(vars(value), state, memo)
            module.__setstate__(state)
        return module
    return copy.deepcopy(value, memo)


@lru_cache(maxsize=256)
def _is_plain(kind: type) -> bool:
    """Whether copying a module is copying its attributes."""
    own = any(hasattr(kind, key) for key in _OWN)
    return not own and all(getattr(kind, key, None) is method for key, method in _METHODS)


def _copy_items(items: Mapping, made: dict, memo: dict[int, Any]) -> None:
    """Copies of the values of a dictionary; most of a module's are numbers and empty."""
    for key, part in items.items():
        kind = type(part)
        if kind in _ATOMS:
            made[key] = part
        elif kind in _DICTS and not part:
            made[key] = memo.setdefault(id(part), kind())
        else:
            made[key] = _copied(part, memo)


META = torch.device("meta")  # as a word it is read anew at every call
_ATOMS = {int, float, bool, str, type(None), torch.dtype, torch.device, type, types.FunctionType}
_DICTS = {dict, OrderedDict}
_PLAIN = {*_DICTS, list, tuple}
_TREES = (Tensor, list, tuple, dict)  # where a module may keep a tensor that is not registered
_OWN = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__")
_SHARED = ("__getattr__", "__getstate__", "__new__", "__reduce__", "__reduce_ex__")
_METHODS = [(key, getattr(nn.Module, key, None)) for key in _SHARED]
_MODES = [("train", nn.Module.train), ("eval", nn.Module.eval)]
