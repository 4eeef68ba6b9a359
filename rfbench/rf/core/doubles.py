"""Run a network in float64 with random weights, up to a layer: what is said of it is then shown."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from rfbench.copies import evaluating, whole_copy
from rfbench.errors import RfbenchError, one_line
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.generator import left_at_the_end
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.skeleton import unrounded
from rfbench.spatial_graph.structure import named_tensors


class _Done(Exception):
    """The layer has been reached: what follows need not run."""


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy in float64 whose weights are random, so that nothing is hidden by a zero.

    It does not round as a quantised network would. Kernels are scaled to keep the size of values;
    norms have statistics of their own.
    """
    made = evaluating(whole_copy(module).double())
    draw = torch.Generator().manual_seed(seed)
    unrounded(made)
    with torch.no_grad():
        for p in made.parameters():
            values = torch.randn(p.shape, generator=draw, dtype=torch.float64)
            fan = max(1, p[0].numel()) if p.dim() > 1 else 0
            p.copy_(values / fan**0.5 if fan else 1 + 0.2 * values)
        for part in made.modules():
            mean, variance = (getattr(part, f"running_{n}", None) for n in ("mean", "var"))
            if isinstance(mean, Tensor) and isinstance(variance, Tensor):
                mean.copy_(0.1 * torch.randn(mean.shape, generator=draw))
                variance.copy_(0.5 + torch.rand(variance.shape, generator=draw))
    return made


def image(channels: int, size: Sequence[int], seed: int = 0) -> Tensor:
    """A random image (1, C, ...)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn((1, channels, *size), generator=draw, dtype=torch.float64)


def images(graph: SpatialGraph) -> list[Tensor]:
    """A random image for each input of a network, of the sizes of its graph."""
    values = list(graph.inputs.values())
    sizes = [graph.map_size(v) for v in values] or [graph.size]
    each = enumerate(zip(graph.channels, sizes, strict=True))
    return [image(channels, size, seed) for seed, (channels, size) in each]


def output(module: nn.Module, target: Target, x: Sequence[Tensor]) -> Tensor:
    """What a layer gives for images, one for each input: its map, (1, C, ...).

    Raises RfbenchError where the network fails before it, or its output is no such map.
    """
    name = target.name or "output"
    return as_map(target, outputs(module, [name], x)[name])


def as_map(target: Target, out: Tensor) -> Tensor:
    """The output of a layer as (1, C, ...), of one that has its channels elsewhere as well.

    Raises RfbenchError where its dimensions are others than a batch, channels and the axes.
    """
    dims, axes = target.value.dims, target.graph.letters
    held = [{f.axis for f in dim} & {*axes} for dim in dims]
    at = [i for axis in axes for i, known in enumerate(held) if known == {axis}]
    if all(len(dims[i]) == 1 for i in at) and len(at) == len(axes) == len(dims) - 2:
        rest = [i for i in range(len(dims)) if i not in at]
        if out.shape[rest[0]] == 1:
            out = out.permute(*rest, *at)
    if out.dim() != len(axes) + 2:
        name = target.name or "the network"
        raise RfbenchError(f"the output of {name} is no N x C map, but {tuple(out.shape)}")
    return out


def outputs(module: nn.Module, layers: Sequence[str], x: Sequence[Tensor]) -> dict[str, Tensor]:
    """What several layers give for images; the network runs until it has come to all of them."""
    held: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    wanted = set(layers)

    def leave(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            label = name if calls[name] == 1 else f"{name}#{calls[name]}"
            new = {k: v.clone() for k, v in named_tensors(out, label).items() if k in wanted}
            held.update(new)
            if wanted <= held.keys():
                raise _Done

        return hook

    parts = {n: m for n, m in module.named_modules() if n}
    plain = {n: m for n, m in parts.items() if not isinstance(m, torch.jit.ScriptModule)}
    hooks = [m.register_forward_hook(leave(n)) for n, m in plain.items()]  # scripted take none
    try:
        with torch.no_grad(), _double(), _InDouble(), left_at_the_end():
            returned = named_tensors(module(*x), "output")
            held |= returned
            if len(returned) == 1:  # {'out': map} has one output, which needs no name
                held.setdefault("output", *returned.values())
    except _Done:
        pass
    except Exception as error:
        said = str(error)
        if "TorchScript interpreter" in said:  # the reason is in the last line
            said = said.strip().splitlines()[-1].removeprefix("RuntimeError: ")
        why = _FROZEN if any(map(_is_frozen, module.modules())) else one_line(said, 200)
        raise RfbenchError(f"the network is run in float64 here, and fails: {why}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if missing := sorted(wanted - held.keys()):
        raise RfbenchError(f"the output of '{missing[0]}' is not to be had from a run")
    return held


_FROZEN = (
    "a frozen script holds its weights as constants, of their own type: give the script as it was "
    "before torch.jit.freeze"
)


def _is_frozen(part: nn.Module) -> bool:
    """Whether it is a script with tensors inside of its code."""
    if not isinstance(part, torch.jit.ScriptModule):
        return False
    code: Any = part.inlined_graph  # its nodes live as long as it does
    held = code.findAllNodes("prim::Constant")
    return any(n.hasAttribute("value") and n.kindOf("value") == "t" for n in held)


class _InDouble(TorchDispatchMode):
    """Every operation takes and makes float64, whatever the network asks for.

    Casts of its own (x.float()) would cost digits, and a frozen script has its weights inside.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not func._schema.is_mutable:
            args, kwargs = tree_map(_in_double, (args, kwargs))
        return func(*args, **kwargs)


def _in_double(part: Any) -> Any:
    if isinstance(part, Tensor) and part.layout == torch.strided:
        wanted = _in_double(part.dtype)
        return part if part.dtype == wanted else part.to(wanted)
    if isinstance(part, torch.dtype) and part.is_complex:
        return torch.complex128
    return torch.float64 if isinstance(part, torch.dtype) and part.is_floating_point else part


@contextmanager
def _double() -> Iterator[None]:
    """Tensors that the network makes itself are float64 as well."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
