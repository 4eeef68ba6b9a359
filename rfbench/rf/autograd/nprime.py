"""N' of the paper while a module runs: functions that act on a map are replaced by their twins.

A *map* is a tensor that depends on the input (`requires_grad`; parameters do not require it here).
A *context* is a map without positions: the global average in a squeeze-and-excitation gate and what
follows from it. Each map carries a tag: one that torch's functions did not make is noticed by its
lack and refused.
"""

import contextlib
import inspect
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from rfbench.rf.autograd.twins import (
    IDENTITY,
    NONLOCAL,
    QUERIES,
    REDUCTIONS,
    SHAPES,
    SUMS,
    Call,
    Refused,
    Windows,
    no_positions,
    reduced,
    reshaped,
    summed,
    tensors,
)


class Tag(NamedTuple):
    """What is known of a map: whether its last axis holds the channels, whether it is a context."""

    channels_last: bool = False
    context: bool = False


class NPrime(TorchFunctionMode):
    """While it is active, `model` runs as N'. Raises `Refused` for a function without a twin.

    `single`: convolutions weigh 1/C_in, else 1. `count`: pooling windows sum, else averages stay.
    `ignore`: a context that joins a map is a constant, else its paths are added. axes: of the
    input.
    """

    def __init__(
        self, model: nn.Module, single: bool, count: bool, ignore: bool, axes: int = 2
    ) -> None:
        super().__init__()
        self.single, self.count, self.ignore = single, count, ignore
        self.tags: MutableMapping[Tensor, Tag] = WeakTensorKeyDictionary()
        self.fixed: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        self.axes = axes
        self.windows = Windows(single, count, self.fixed, axes)
        for buffer in model.buffers():
            self.fixed[buffer] = True

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        given = list(tensors((args, kwargs)))
        if name.endswith("_as") or name == "to":
            given = given[:1]  # the other one lends only its shape, or its type
        maps = [tensor for tensor in given if tensor.requires_grad]
        getter = getattr(func, "__name__", "") == "__get__" and name not in SHAPES | IDENTITY
        if maps and name not in QUERIES and not getter:
            in_place = _in_place(func, args, kwargs)
            return self._on_maps(Call(func, name, args, kwargs, in_place, given, maps))
        out = func(*args, **kwargs)
        if all(tensor in self.fixed for tensor in given):  # or made of none: torch.arange
            for tensor in tensors(out):
                self.fixed[tensor] = True
        return out

    def _on_maps(self, call: Call) -> Any:
        """Choose the maps whose paths go on, run the twin, tag what comes out."""
        if not torch.is_grad_enabled() or any(tensor not in self.tags for tensor in call.maps):
            what = "acts on the work of no_grad, an autograd.Function or TorchScript"
            raise Refused(f"torch.{call.name}", what)
        full = [tensor for tensor in call.maps if not self.tags[tensor].context]
        call.kept = call.maps
        if self.ignore and full:  # a context that joins a map is dropped
            call.kept = [tensor for tensor in full if not no_positions(tensor)] or full
        call.last = self.tags[call.kept[0]].channels_last
        call.context = all(self.tags[tensor].context for tensor in call.kept)
        out = self._twin(call)
        results = list(tensors(out))
        if call.in_place or call.name == "setitem":
            written = (call.args[0], call.args[0]._base)
            results += [one for one in written if one is not None and one not in self.tags]
        for tensor in results:
            if tensor.requires_grad and tensor.dtype is not torch.float64:
                raise Refused(f"torch.{call.name}", f"leaves float64 for {tensor.dtype}")
            self.tags[tensor] = Tag(call.last, call.context)
        return iter(out) if call.name == "iter" else out

    def _twin(self, call: Call) -> Any:
        """The result of the call's twin, which notes in `call` what becomes of its tag."""
        name = call.name
        if len(call.maps) == 1 and (name in IDENTITY or (call.context and name == "softmax")):
            # a clone, since what comes out may be written to while the original is still in use
            return call.maps[0] if call.in_place else call.maps[0].clone()
        if name in SUMS or (name in ("max", "min") and len(call.given) > 1):
            return summed(call)
        if name in REDUCTIONS:
            return reduced(call, self.single, self.count, self.axes)
        if name in SHAPES:
            return reshaped(call)
        other = name == "conv1d" and self.axes > 1 and not call.context
        if name in Windows.NAMES and not other:
            return self.windows(call)
        if call.context and self.ignore:  # cut off where it meets a map, whatever happens before
            return tree_map_only(Tensor, Tensor.detach, call.func(*call.args, **call.kwargs))
        if name in NONLOCAL:
            raise Refused(f"torch.{name}", "is not local: positions see each other")
        raise Refused(f"torch.{name}", "has no twin in rf/twins.py, and this engine does not guess")


def _name(func: Callable[..., Any]) -> str:
    """'relu' for F.relu, torch.relu_, Tensor.relu_, aten.relu.default; 'shape' for Tensor.shape."""
    name = str(getattr(func, "__name__", func))
    if name in ("__get__", "__set__"):
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return name.split(".")[0].strip("_")


def _in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the call writes into its first argument."""
    name = str(getattr(func, "__name__", "")).split(".")[0]
    if name.endswith("_"):
        return not name.endswith("__") or name.startswith("__i")
    if inspect.isfunction(func):  # F.relu(x, True), F.dropout(x, p, training, inplace)
        with contextlib.suppress(TypeError, ValueError):
            return bool(inspect.signature(func).bind(*args, **kwargs).arguments.get("inplace"))
    return False
