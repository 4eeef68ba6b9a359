"""How a network is called: with which maps, and what else it takes.

Everything else gives a network maps (N, C, H, W), or of other axes, and nothing more. One that
wants its channels elsewhere, or a time, a class or a latent vector as well, gets hooks that see to
that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import UsageError
from rfbench.spatial_graph.generator import from_map
from rfbench.spatial_graph.hooks import Conditions, channels_first, with_hook

_TAKEN = (Tensor, int, float, str, type(None))
KINDS = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}
Form = Sequence[int | str]  # the axes of an input without its batch, and a kind where it has one


@dataclass(frozen=True)
class Call:
    """How a network is called with maps.

    channel_dim: of its channels in each of them. conditions: what else it takes, by the position
    among its arguments; tensors (1, ...) for one map. start: of a network that takes vectors alone,
    the number of the call that makes a map of them, which is given instead.
    """

    channel_dim: int = 1
    conditions: Mapping[int, Any] = field(default_factory=dict)
    start: int | None = None

    def of(self, module: nn.Module) -> nn.Module:
        """The network as one that takes maps (N, C, ...) alone; it shares weights and layers."""
        if self.start is not None:
            module = from_map(module, self.conditions, self.start)
        elif self.conditions:
            module = with_hook(module, Conditions(self.conditions))
        return channels_first(module, self.channel_dim)


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
    with the most. There may be none.
    """
    if odd := [x for x in inputs if not isinstance(x, _TAKEN)]:
        raise UsageError(f"an input is a tensor or a number; this one is a {type(odd[0]).__name__}")
    axes = max((x.dim() for x in inputs if _is_map(x)), default=0)
    maps = {i: x for i, x in enumerate(inputs) if _is_map(x) and x.dim() == axes}
    return [*maps.values()], {i: x for i, x in enumerate(inputs) if i not in maps}


def alone(value: Any, count: int) -> Any:
    """Of a condition for so many maps that of the first."""
    many = isinstance(value, Tensor) and value.dim() > 0 and len(value) == count > 1
    return value[:1] if many else value


def no_map(inputs: Sequence[Any], why: str) -> UsageError:
    """The error for inputs without a map; why: the network makes none of them."""
    some = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
    return UsageError(
        f"no input has channels and positions, as (1, C, H, W) has: {some or 'no tensor'}. {why}"
    )


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 2


def text(value: Any) -> str:
    """'512', '77xint' or 'int' of an input, without its batch."""
    if not isinstance(value, Tensor):
        return repr(value)
    sides = [str(n) for n in value.shape[1:]]
    kind = next((k for k, dtype in KINDS.items() if dtype == value.dtype and k != "float"), "")
    return "x".join([*sides, *([kind] if kind else [])]) or "float"
