"""How a network is called: where it has its channels, and what it takes beside maps.

Everything else gives a network maps (N, C, H, W), or of other axes, and nothing more. One that
wants its channels elsewhere, or a time, a class or a latent vector as well, gets hooks that see to
that.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import UsageError

_TAKEN = (Tensor, int, float, str, type(None))
KINDS = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}
Form = Sequence[int | str]  # the axes of an input without its batch, and a kind where it has one


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


@dataclass(frozen=True)
class Call:
    """How a network is called with maps.

    channel_dim: of its channels in each of them. conditions: what else it takes, by the position
    among its arguments; tensors (1, ...) for one map.
    """

    channel_dim: int = 1
    conditions: Mapping[int, Any] = field(default_factory=dict)

    def of(self, module: nn.Module) -> nn.Module:
        """The network as one that takes maps (N, C, ...) alone; it shares weights and layers."""
        if self.conditions:
            module = with_hook(module, Conditions(self.conditions))
        return channels_first(module, self.channel_dim)


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


def example(form: Form) -> Tensor:
    """An input of a form, such as (3, 224, 224), (512,) or ('int',).

    On meta where it is a map. Else any values: normal ones, and zeros of the other kinds, which
    every embedding knows.
    """
    kind = form[-1] if isinstance(form[-1], str) else "float"
    sides = [n for n in form if isinstance(n, int)]
    if len(sides) > 1 and kind == "float":
        return torch.empty((1, *sides), device="meta")
    if kind == "float":
        generator = torch.Generator().manual_seed(0)
        return torch.randn((1, *sides), generator=generator)
    return torch.zeros((1, *sides), dtype=KINDS[kind])


def split(inputs: Sequence[Any]) -> tuple[list[Tensor], dict[int, Any]]:
    """The maps among example inputs, and the rest by position.

    Maps are those with channels and positions; where these have different numbers of axes, those
    with the most. Raises UsageError where there is none.
    """
    if odd := [x for x in inputs if not isinstance(x, _TAKEN)]:
        raise UsageError(f"an input is a tensor or a number; this one is a {type(odd[0]).__name__}")
    axes = max((x.dim() for x in inputs if _is_map(x)), default=0)
    if not axes:
        some = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
        raise UsageError(
            f"no input has channels and positions, as (1, C, H, W) has: {some or 'no tensor'}. "
            "Of a generator, give the part that begins with a map"
        )
    maps = {i: x for i, x in enumerate(inputs) if _is_map(x) and x.dim() == axes}
    return [*maps.values()], {i: x for i, x in enumerate(inputs) if i not in maps}


def alone(value: Any, count: int) -> Any:
    """Of a condition for so many maps that of the first."""
    many = isinstance(value, Tensor) and value.dim() > 0 and len(value) == count > 1
    return value[:1] if many else value


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 2


def text(value: Any) -> str:
    """'512', '77xint' or 'int' of an input, without its batch."""
    if not isinstance(value, Tensor):
        return repr(value)
    sides = [str(n) for n in value.shape[1:]]
    kind = next((k for k, dtype in KINDS.items() if dtype == value.dtype and k != "float"), "")
    return "x".join([*sides, *([kind] if kind else [])]) or "float"
