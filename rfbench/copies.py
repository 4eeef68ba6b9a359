"""Copies of modules, with all that belongs to them: hooks, and what functions hold of them.

`copy.deepcopy` leaves functions as they are, so that a hook which keeps features for its module
would keep them for the module that was copied; and modules that copy themselves
(torch.fx.GraphModule) forget their hooks.
"""

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from threading import Lock, RLock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError

Model = TypeVar("Model", bound=nn.Module)
Memo = dict[int, Any]


def evaluating(module: Model) -> Model:
    """The module, in evaluation mode; a `train` or `eval` of its own may return nothing."""
    module.eval()
    return module


def whole_copy(module: Model) -> Model:
    """A copy with its weights, also of modules that keep a computed tensor: weight_norm."""
    computed = [t for t in held_tensors(module.modules()) if not t.is_leaf]
    return copied(module, {id(t): t.detach().clone() for t in computed})


def copied(module: Model, memo: Memo) -> Model:
    """A copy of a module; what `memo` has by its id() is taken from there.

    Raises RfbenchError where a part of it cannot be copied.
    """
    functions: list[tuple[Any, Any]] = []
    try:
        made = _copied(module, memo, functions)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise RfbenchError(f"{type(module).__name__} cannot be copied: {reason}") from error
    _keep_hooks(module, made, memo, functions)
    for owner, key in functions:  # now all that they may hold has been copied
        owner[key] = _rebound(owner[key], memo)
    return made


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


def held_tensors(parts: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters, buffers, and what else modules keep: pruned weights, tables, features."""
    found: list[Tensor] = []
    for owner in parts:
        if not isinstance(owner, torch.jit.ScriptModule):
            for key, value in vars(owner).items():
                kind = type(value)
                if kind in ATOMS or key == "_modules" or (kind in DICTS and not value):
                    continue
                _gather(value, found)
    return found


def _gather(value: Any, found: list[Tensor], inside: bool = False) -> None:
    """Add the tensors in what an attribute holds; inside: of an object that is no container."""
    kind = type(value)
    if isinstance(value, Tensor):
        found.append(value)
    elif kind in _PLAIN:
        for part in value.values() if kind in DICTS else value:
            if type(part) not in ATOMS:
                _gather(part, found, inside)
    elif isinstance(value, list | tuple | dict):
        found += (t for t in tree_leaves(value) if isinstance(t, Tensor))
    elif not inside and hasattr(value, "__dict__") and not isinstance(value, _LEFT):
        for part in vars(value).values():
            if type(part) not in ATOMS:
                _gather(part, found, True)


def _copied(value: Any, memo: Memo, functions: list) -> Any:
    """`copy.deepcopy`, and the same faster for modules and what they are made of.

    functions: where functions are found, as (container, key): they are still the old ones.
    """
    kind: Any = type(value)
    if id(value) in memo:
        return memo[id(value)]
    if kind in ATOMS or (kind is tuple and ATOMS.issuperset(map(type, value))):
        return value
    if kind in DICTS and ATOMS.issuperset(map(type, value)):  # its keys
        made: dict[Any, Any] = kind()
        memo[id(value)] = made
        _copy_items(value, made, memo, functions)
        return made
    if kind is list:
        memo[id(value)] = items = [None] * len(value)
        _copy_items(dict(enumerate(value)), items, memo, functions)
        return items
    if kind is set and ATOMS.issuperset(map(type, value)):
        memo[id(value)] = same = set(value)
        return same
    if isinstance(value, nn.Module) and _is_plain(kind):
        memo[id(value)] = module = object.__new__(kind)
        if kind.__setstate__ is nn.Module.__setstate__:  # adds what old files lack
            _copy_items(vars(value), vars(module), memo, functions)
        else:
            state: dict[str, Any] = {}
            found: list[tuple[Any, Any]] = []
            _copy_items(vars(value), state, memo, found)
            module.__setstate__(state)
            functions += [(vars(module) if o is state else o, key) for o, key in found]
        return module
    if isinstance(value, SHARED):
        return value
    return copy.deepcopy(value, memo)


@lru_cache(maxsize=256)
def _is_plain(kind: type) -> bool:
    """Whether copying a module is copying its attributes."""
    own = any(hasattr(kind, key) for key in _OWN)
    return not own and all(getattr(kind, key, None) is method for key, method in _METHODS)


def _copy_items(items: Mapping, made: Any, memo: Memo, functions: list) -> None:
    """Copies of the values of a container; most of a module's are numbers and empty."""
    for key, part in items.items():
        kind = type(part)
        if kind in ATOMS:
            made[key] = part
        elif key == "_compiled_call_impl":  # of nn.Module.compile: it calls the old module
            made[key] = None
        elif kind in FUNCTIONS:
            made[key] = part
            functions.append((made, key))
        elif kind in DICTS and not part:
            made[key] = memo.setdefault(id(part), kind())
        else:
            made[key] = _copied(part, memo, functions)


def _keep_hooks(module: nn.Module, made: nn.Module, memo: Memo, functions: list) -> None:
    """Give parts of a copy the hooks that they have lost, and a torch.fx.GraphModule its state."""
    parts = named_parts(module)
    hooked = {n: m for n, m in parts.items() if m._forward_hooks or m._forward_pre_hooks}
    graphs = {n: m for n, m in parts.items() if isinstance(m, torch.fx.GraphModule)}
    if not hooked and not graphs:
        return
    others = named_parts(made)
    for name, part in (hooked | graphs).items():
        if (other := others.get(name)) is None or other is part:
            continue
        held, now = vars(part), vars(other)
        lost = {k: v for k, v in held.items() if name in graphs and k not in {*now, *_MODES}}
        lost |= {k: held[k] for k in _HOOKS if held.get(k) and not now.get(k)}
        _copy_items(lost, now, memo, functions)
        for key in _HOOKS:
            functions += [(now[key], i) for i, f in now[key].items() if type(f) in FUNCTIONS]


def _rebound(value: Any, memo: Memo) -> Any:
    """A function that holds the copies of what it held; itself where it held none of that.

    Of one that torch.compile made, the function that was compiled.
    """
    if (new := memo.get(id(value))) is not None:
        return new
    if isinstance(value, functools.partial):
        given = {k: _rebound(v, memo) for k, v in value.keywords.items()}
        func = _rebound(value.func, memo)
        return functools.partial(func, *(_rebound(v, memo) for v in value.args), **given)
    if isinstance(value, types.MethodType):
        return types.MethodType(_rebound(value.__func__, memo), _rebound(value.__self__, memo))
    if not isinstance(value, types.FunctionType):
        return value
    if (plain := getattr(value, "_torchdynamo_orig_callable", None)) is not None:
        return _rebound(plain, memo)
    return _function(value, memo) if _holds(value, memo, set()) else value


def _function(old: types.FunctionType, memo: Memo) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in old.__closure__ or ())
    new = types.FunctionType(old.__code__, old.__globals__, old.__name__, None, cells or None)
    memo[id(old)] = new  # it may hold itself
    functools.update_wrapper(new, old, updated=("__dict__",))
    vars(new).pop("__wrapped__", None)
    if old.__defaults__:
        new.__defaults__ = tuple(_rebound(v, memo) for v in old.__defaults__)
    if old.__kwdefaults__:
        new.__kwdefaults__ = {k: _rebound(v, memo) for k, v in old.__kwdefaults__.items()}
    for cell, before in zip(cells, old.__closure__ or (), strict=True):
        for content in _content(before):
            cell.cell_contents = _rebound(content, memo)
    return new


def _holds(value: Any, memo: Memo, seen: set[int]) -> bool:
    """Whether a function holds something that has been copied."""
    if id(value) in memo:
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    held: list[Any] = []
    if isinstance(value, types.MethodType):
        held = [value.__self__, value.__func__]
    elif isinstance(value, functools.partial):
        held = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.FunctionType):
        if hasattr(value, "_torchdynamo_orig_callable"):
            return True
        held = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        held += [content for cell in value.__closure__ or () for content in _content(cell)]
    return any(_holds(part, memo, seen) for part in held)


def _content(cell: types.CellType) -> list[Any]:
    """What a variable of an outer function holds; none before it is assigned."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


ATOMS = {int, float, bool, str, type(None), torch.dtype, torch.device, type}
DICTS = {dict, OrderedDict}
_PLAIN = {*DICTS, list, tuple}
_LEFT = (type, nn.Module, types.ModuleType, types.FunctionType)
FUNCTIONS = {types.FunctionType, types.MethodType, functools.partial}
SHARED = (torch.autograd.Function, type(Lock()), type(RLock()))  # no copy of these can be made
_OWN = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__")
_SHARED = ("__getattr__", "__getstate__", "__new__", "__reduce__", "__reduce_ex__")
_METHODS = [(key, getattr(nn.Module, key, None)) for key in _SHARED]
_MODES = ("train", "eval")  # exported programs refuse both
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
