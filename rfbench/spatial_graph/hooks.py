"""Hooks that change how a network is called: its channels elsewhere, more than maps."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MoveChannels:
    """A hook before a forward pass: tensors (N, C, ...) with their channels moved to `dim`."""

    dim: int

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(x.movedim(1, self.dim) if isinstance(x, Tensor) else x for x in args)


class Conditions:
    """A hook before a forward pass that adds the arguments that are no maps.

    Of tensors the values may be any, as those of weights: so they are parameters. They take the
    device of the maps, and their precision.
    """

    def __init__(self, values: Mapping[int, Any]) -> None:
        """values: by their positions among the arguments; tensors are those of one map."""
        self.values = {i: _as_weight(v) for i, v in values.items()}

    def __call__(self, _module: nn.Module, maps: tuple[Any, ...]) -> tuple[Any, ...]:
        rest, first = iter(maps), maps[0]
        count = len(maps) + len(self.values)
        return tuple(
            _like(self.values[i], first) if i in self.values else next(rest) for i in range(count)
        )


def _as_weight(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return nn.Parameter(value.detach(), requires_grad=False)


def _like(value: Any, x: Tensor) -> Any:
    """A condition for a batch of maps."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(x.device, x.dtype if value.is_floating_point() else None)
    alone = value.dim() > 0 and len(value) == 1 < len(x)
    return value.expand(len(x), *value.shape[1:]) if alone else value


def channels_first(module: nn.Module, dim: int) -> nn.Module:
    """A network that takes (N, C, ...), of one that has its channels in dimension `dim`.

    Itself where that is 1; else another with the same weights and the same layers.
    """
    return module if dim == 1 else with_hook(module, MoveChannels(dim))


class _Scripted(nn.Sequential):
    """A network of torch.jit, which takes no hooks itself."""

    def forward(self, *args: Any) -> Any:
        return self[0](*args)


def with_hook(module: nn.Module, hook: Callable[[nn.Module, tuple], tuple]) -> nn.Module:
    """Another network with the same weights and layers, and a hook ahead of all that it has."""
    if isinstance(module, torch.jit.ScriptModule):
        other: nn.Module = _Scripted(module)
    elif isinstance(module, torch.fx.GraphModule):
        other = object.__new__(type(module))  # its own copy forgets its hooks
        vars(other).update(vars(module))
    else:
        other = copy.copy(module)
    vars(other)["_forward_pre_hooks"] = OrderedDict(module._forward_pre_hooks)
    other.register_forward_pre_hook(hook, prepend=True)  # its own see what it takes
    return other


def input_names(module: nn.Module, maps: int) -> list[str]:
    """What so many maps are called: 'input.0', 'input.2', by their positions as arguments."""
    hooks = module._forward_pre_hooks.values()
    taken = {i for hook in hooks if isinstance(hook, Conditions) for i in hook.values}
    free = [i for i in range(maps + len(taken)) if i not in taken]
    return [f"input.{i}" for i in free]
