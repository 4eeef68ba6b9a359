"""The paper's variants and alternatives: which stride-2 convolutions change, and how.

A variant changes behaviour, never parameter names: a convolution keeps its path, weights and
state-dict keys, and gets a class that first samples with a pool of `pools.POOLS`. Any checkpoint
thus loads strictly into any variant. `fix(model)` changes any network.
"""

import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from rfbench.errors import LONGEST, RfbenchError, UsageError, one_line, suggest
from rfbench.models.meta import meta_copy
from rfbench.models.pools import POOLS

Model = TypeVar("Model", bound=nn.Module)


class Pooled(nn.Module):
    """Mixed in before a convolution's class: samples with the pool `rf_pool`, then convolves."""

    rf_base: type[nn.Module]
    if TYPE_CHECKING:  # TorchScript would read these annotations, and does not support such types
        rf_pool: nn.Module
        rf_convolve: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / 2), ceil(W / 2))."""
        return self.rf_convolve(self.rf_pool(x))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # the class is created at run time: pickle and deepcopy recreate it from its base
        return (_blank, (self.rf_base,), *super().__reduce_ex__(max(2, protocol))[2:])


_CLASSES: dict[type[nn.Module], Any] = {}  # one class per class of convolution


def _pooled(base: type[nn.Module]) -> type[Pooled]:
    if base not in _CLASSES:
        body = {"__module__": __name__, "__doc__": base.__doc__, "rf_base": base}
        _CLASSES[base] = type(f"Pooled{base.__name__}", (Pooled, base), body | _methods(base))
    return _CLASSES[base]


def _methods(base: type[nn.Module]) -> dict[str, Any]:
    """The methods that `Pooled` needs: the convolution's forward pass under another name."""
    forward = base.forward
    if not inspect.isfunction(forward) or len(inspect.signature(forward).parameters) != 2:
        return {"forward": _forward_with_more}
    # TorchScript supports neither super() nor *args, and reads a method's name from its code
    code, scope = forward.__code__, forward.__globals__
    convolve = types.FunctionType(
        code, scope, "rf_convolve", forward.__defaults__, forward.__closure__
    )
    convolve.__annotations__ = forward.__annotations__
    return {"rf_convolve": convolve}


def _forward_with_more(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """For convolutions with more inputs than a map: the expert weights of timm's CondConv2d."""
    return self.rf_base.forward(self, self.rf_pool(x), *args, **kwargs)


def _blank(base: type[nn.Module]) -> Pooled:
    return _pooled(base).__new__(_pooled(base))


def _swap(conv: Any, pool: str, level: int) -> None:
    """Change one convolution in place."""
    sample = _make_pool(pool, conv.in_channels, len(conv.kernel_size))
    if hasattr(sample, "level"):
        vars(sample)["level"] = level
    x = torch.empty(1, conv.in_channels, *(8 for _ in conv.stride), device="meta")
    if sample(x).shape != x.shape:
        # on the module, because timm's convolutions (Conv2dSame, StdConv2d, ...) read it from there
        conv.stride = tuple(1 for _ in conv.stride)
    conv.__class__ = _pooled(type(conv))
    conv.rf_pool = sample.train(conv.training)


def _make_pool(pool: str, channels: int, axes: int) -> nn.Module:
    sample = POOLS[pool](channels, axes)
    held = [value for m in sample.modules() for value in vars(m).values()]
    if [*sample.parameters(), *sample.buffers()] or any(isinstance(v, Tensor) for v in held):
        raise UsageError(
            f"the pool '{pool}' stores a tensor, which would change the keys of checkpoints or be "
            "lost by to_empty(). Compute it in forward()."
        )
    return sample


@dataclass(frozen=True)
class Variant:
    """Stride-2 convolutions of size `kernels` (k means k x k) sample with `POOLS[pool]`."""

    name: str
    kernels: tuple[int, ...]
    pool: str


def _variant(kernels: Any, pool: Any) -> Variant:
    """A variant with its canonical name, such as 'baseline', '1x1+3x3' or 'blur:3x3'."""
    if not isinstance(kernels, list | tuple) or any(type(k) is not int or k < 1 for k in kernels):
        raise UsageError(f"variant: kernels is a list of sizes such as [1, 3], not {kernels!r}.")
    if not isinstance(pool, str) or pool not in POOLS:
        near = suggest(str(pool), POOLS) or f" There are: {', '.join(POOLS)}."
        raise UsageError(f"variant: unknown pool '{pool}'.{near}")
    if not kernels:
        return Variant("baseline", (), "avg")
    sizes = tuple(sorted(set(kernels)))
    name = "+".join(f"{k}x{k}" for k in sizes)
    return Variant(name if pool == "avg" else f"{pool}:{name}", sizes, pool)


PAPER = ("baseline", "1x1", "3x3", "1x1+3x3")
_LISTED = [([], "avg"), ([1], "avg"), ([3], "avg"), *(([1, 3], pool) for pool in POOLS)]
VARIANTS: dict[str, Variant] = {v.name: v for v in (_variant(*listed) for listed in _LISTED)}


def get(variant: str | Mapping[str, Any] | Variant) -> Variant:
    """The variant of a name ('1x1', 'blur:3x3'), of {kernels: [1, 3], pool: avg}, or itself.

    Raises UsageError for an unknown name, key or pool, or an impossible kernel size.
    """
    if isinstance(variant, Variant):
        return _variant(variant.kernels, variant.pool)
    if isinstance(variant, Mapping):
        if unknown := [str(key) for key in variant if key not in ("kernels", "pool")]:
            near = suggest(unknown[0], ["kernels", "pool"])
            raise UsageError(f"variant: unknown key '{unknown[0]}'.{near}")
        return _variant(variant.get("kernels"), variant.get("pool", "avg"))
    if len(variant) > LONGEST:
        raise UsageError(f"unknown variant '{variant[:40]}...' of {len(variant)} characters.")
    if variant in VARIANTS:
        return VARIANTS[variant]
    # a variant that is not listed, by the name that `_variant` gives it
    pool, _, sizes = str(variant).rpartition(":")
    kernels = re.findall(r"(\d+)x\1", sizes)
    if not kernels or sizes != "+".join(f"{k}x{k}" for k in kernels):
        near = suggest(str(variant), VARIANTS) or f" There are: {', '.join(VARIANTS)}."
        raise UsageError(f"unknown variant '{variant}'.{near}")
    return _variant([int(k) for k in kernels], pool or "avg")


def fix(model: Model, variant: str | Mapping[str, Any] | Variant = "1x1+3x3") -> Model:
    """Change the stride-2 convolutions of any network in place, and return it; see `apply`."""
    apply(model, variant)
    return model


def apply(
    model: nn.Module,
    variant: str | Mapping[str, Any] | Variant,
    label: str | None = None,
    size: tuple[int, int] = (224, 224),
) -> list[str]:
    """Change `model` in place; returns the module paths of the changed convolutions.

    Changes every Conv2d (and timm's CondConv2d) of stride (2, 2) with one of the variant's kernels.
    label: the model's name in errors. size: (H, W) in px of an input that the model accepts; only
    pools with a `level` run the model.

    Raises, and leaves the model unchanged: UsageError if it has already been changed, if nothing
    would change, or if a convolution could not keep its output size (VALID 3x3); RfbenchError if
    levels are needed and the model does not run.
    """
    variant, label = get(variant), label or type(model).__name__
    if changed := [name for name, module in model.named_modules() if isinstance(module, Pooled)]:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(f"{label} has already been changed ({changed[0]}{more}). Build a new one.")
    if not variant.kernels:
        return []
    convs = {name: m for name, m in model.named_modules() if _matches(m, variant.kernels)}
    if not convs:
        sizes = " or ".join(f"{k}x{k}" for k in variant.kernels)
        why = _frozen_program(model) or f"no stride-2 {sizes} convolution"
        raise UsageError(f"variant '{variant.name}' replaces no convolution in {label} ({why}).")
    if unfit := [name for name, conv in convs.items() if not _keeps_size(conv, variant.pool)]:
        raise UsageError(
            f"variant '{variant.name}' cannot keep the output size of these convolutions in "
            f"{label}, usually for lack of padding: {', '.join(unfit)}."
        )
    needs_levels = hasattr(_make_pool(variant.pool, 1, 2), "level")
    levels = _levels(model, list(convs), label, size) if needs_levels else {}
    for name, conv in convs.items():
        _swap(conv, variant.pool, levels.get(name, -1))
    _refuse_fusing(model, list(convs), variant.name)
    return list(convs)


def _frozen_program(model: nn.Module) -> str:
    """Why a program made of a network cannot be changed; '' for a network of Python layers."""
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        return "it is scripted or traced; change the network before torch.jit.script or trace"
    layers = any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
    if isinstance(model, torch.fx.GraphModule) and not layers:
        return "it is an exported program; change the network before torch.export"
    return ""


def _is_conditional(module: nn.Module) -> bool:
    # timm's CondConv2d is not a Conv2d; checked by name to avoid importing timm
    return any(cls.__name__ == "CondConv2d" for cls in type(module).__mro__)


def _matches(module: Any, kernels: tuple[int, ...]) -> bool:
    is_conv = isinstance(module, nn.Conv2d) or _is_conditional(module)
    squares = [(k, k) for k in kernels]
    return is_conv and tuple(module.stride) == (2, 2) and tuple(module.kernel_size) in squares


def _keeps_size(conv: nn.Module, pool: str) -> bool:
    """Whether changing `conv` keeps the size of its output, measured on copies."""
    before, after = meta_copy(conv), meta_copy(conv)
    _swap(after, pool, level=0)
    sizes = [(1, 1), (2, 2), (3, 5), (4, 7), (7, 4), (8, 8), (9, 9), (14, 15), (33, 32)]
    shapes = [(shape, size) for size in sizes if (shape := _output_shape(before, *size))]
    return bool(shapes) and all(_output_shape(after, *size) == shape for shape, size in shapes)


def _output_shape(conv: Any, height: int, width: int) -> torch.Size | None:
    empty = functools.partial(torch.empty, dtype=conv.weight.dtype, device="meta")
    routing = [empty(1, conv.num_experts)] if _is_conditional(conv) else []
    try:
        with torch.no_grad():
            return conv(empty(1, conv.in_channels, height, width), *routing).shape
    except (RuntimeError, TypeError, ValueError):  # such as a VALID 3x3 on 2 px
        return None


def _levels(model: nn.Module, names: list[str], label: str, size: tuple[int, int]) -> dict:
    """The level of each convolution that a forward pass reaches, by name.

    Found by a pass on the meta device: parallel convolutions (a block and its shortcut) read maps
    of one size.
    """
    skeleton = meta_copy(model)
    areas: dict[str, int] = {}
    for name in names:
        skeleton.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: areas.update({name: args[0][0, 0].numel()})
        )
    conv = next(m for m in skeleton.modules() if isinstance(m, nn.Conv2d))
    try:
        with torch.no_grad():
            skeleton(torch.empty(1, conv.in_channels, *size, dtype=conv.weight.dtype).to("meta"))
        if not areas:
            raise RuntimeError("none of them is reached")
    except Exception as error:
        why = one_line(error)
        raise RfbenchError(
            f"{label} is run on {size[0]}x{size[1]} px to see which convolutions are parallel, "
            f"and that failed: {type(error).__name__}: {why}"
        ) from error
    finest_first = sorted(set(areas.values()), reverse=True)
    return {name: finest_first.index(area) for name, area in areas.items()}


def _refuse_fusing(model: nn.Module, convs: list[str], variant: str) -> None:
    """Shadow the methods that would merge a changed convolution (RepVGG, MobileOne, FastViT, ...).

    They build a new convolution from `conv.stride`, which would silently drop the sampling.
    """
    for conv in convs:
        parts = conv.split(".")
        for owner in (".".join(parts[:n]) for n in range(len(parts))):
            module = model.get_submodule(owner)
            for method in ("fuse", "reparameterize", "switch_to_deploy"):
                if callable(getattr(type(module), method, None)):
                    called = f"{owner}.{method}".lstrip(".")
                    setattr(module, method, functools.partial(_refuse, called, conv, variant))


def _refuse(method: str, conv: str, variant: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise RfbenchError(
        f"{method}() would drop the sampling that variant '{variant}' put into {conv}. "
        f"Re-parametrise the unchanged model, or use the changed one as it is."
    )
