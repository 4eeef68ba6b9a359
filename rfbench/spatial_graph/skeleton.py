"""A module without its weights: the same Python objects around meta tensors."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from rfbench.copies import copied, evaluating, held_tensors, named_parts
from rfbench.errors import RfbenchError

# (meta tensor, values) by the id() of the former, which is only unique while that tensor lives
Buffers = dict[int, tuple[Tensor, Tensor]]


def skeleton(module: nn.Module) -> tuple[nn.Module, Buffers]:
    """A copy of `module` in which every tensor is on the meta device, in evaluation mode.

    Returns the copy and, with its meta tensors, the values of the registered buffers. Raises
    RfbenchError where the module cannot be copied or has no weights yet.
    """
    parts = named_parts(module)
    refuse_unreadable(module, parts)
    return _skeleton(module, list(parts.values()))


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


def _skeleton(module: nn.Module, parts: list[nn.Module]) -> tuple[nn.Module, Buffers]:
    """Fixed values are those of buffers, and of tensors that are no function of a weight."""
    memo = _scripted(parts)
    buffers: Buffers = {}
    for tensor in held_tensors(parts):
        if id(tensor) in memo:
            continue
        memo[id(tensor)] = meta = _on_meta(tensor)
        if not isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            buffers[id(meta)] = meta, tensor
    bare = _evaluating(copied(module, memo))
    unrounded(bare)  # their control flow and their statistics need values
    for kind in {type(m) for m in parts}:
        if issubclass(kind, nn.SELU | nn.RReLU):  # functionalisation fails on their in-place forms
            _set(bare, kind, "inplace", False)
    return bare, buffers


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
        return evaluating(module)
    for m in parts:
        vars(m)["training"] = False
    return module


def unrounded(module: nn.Module) -> None:
    """Let what rounds a map for a quantised network, or looks at it, hand it on."""
    for m in module.modules():
        if _only_rounds(type(m).__mro__):
            m.forward = torch.clone


@cache
def _only_rounds(kinds: tuple[type, ...]) -> bool:
    """Whether they are those of a FakeQuantize or an observer, of torch.ao or torchao."""
    own = (c for c in kinds if c.__module__.startswith(("torch.ao.", "torchao.")))
    return any(c.__name__.endswith(_ROUNDING) for c in own)


def without_weights(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with parameters on the meta device; it shares the buffers."""
    refuse_unreadable(module)
    parts = list(module.modules())
    memo = _scripted(parts)
    for tensor in held_tensors(parts):
        learned = isinstance(tensor, nn.Parameter) or tensor.requires_grad
        memo.setdefault(id(tensor), _on_meta(tensor) if learned else tensor)
    return evaluating(copied(module, memo))


def _scripted(parts: Iterable[nn.Module]) -> dict[int, Any]:
    """Parts of torch.jit by id(): shared, since copying one copies its weights."""
    scripted = [m for m in parts if isinstance(m, torch.jit.ScriptModule)]
    return {id(m): m for m in scripted if not getattr(m, "training", False)}  # frozen: none


def _on_meta(tensor: Tensor) -> Tensor:
    plain = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_quantized
    if plain and tensor.is_contiguous():
        meta = torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
    else:
        meta = tensor.detach().to("meta", copy=True)
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta


_ROUNDING = ("FakeQuantizeBase", "FakeQuantizerBase", "ObserverBase")
META = torch.device("meta")  # as a word it is read anew at every call
_MODES = [("train", nn.Module.train), ("eval", nn.Module.eval)]
