"""Which layers a variant changes, and what it would have to change but cannot."""

import fnmatch
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rfbench.errors import NothingToChange, UsageError, suggest
from rfbench.models.variant import GROUPS, Variant
from rfbench.models.variants.recorded import CONVS, Call, Recording
from rfbench.models.variants.sampled import MAX_POOLS, axes_of, each, shown, stride_of

DENSE, DEPTHWISE = GROUPS


def is_conditional(module: nn.Module) -> bool:
    """Whether it is timm's CondConv2d, which is not a Conv2d."""
    # by name, to avoid importing timm
    return any(cls.__name__ == "CondConv2d" for cls in type(module).__mro__)


def is_conv(module: Any) -> bool:
    """Whether it is a convolution that can be changed."""
    return isinstance(module, CONVS) or is_conditional(module)


def matches(module: Any, variant: Variant) -> bool:
    """Whether a variant changes a layer, wherever it stands."""
    if isinstance(module, MAX_POOLS):
        return variant.maxpool and is_uneven(module)
    if not is_conv(module) or not fits(module, variant):
        return False
    depthwise = module.groups > 1 and module.groups == module.in_channels
    return variant.groups is None or (variant.groups == DEPTHWISE) == depthwise


def fits(module: Any, variant: Variant) -> bool:
    """Whether a layer strides, with one of the variant's kernels in every direction."""
    kernel = each(module.kernel_size, axes_of(module))
    return max(stride_of(module)) > 1 and len(set(kernel)) == 1 and kernel[0] in variant.kernels


def is_uneven(pool: Any) -> bool:
    """Whether a max pool's stride does not divide its kernel: VGG's 2x2 reads every pixel once."""
    kernel = each(pool.kernel_size, axes_of(pool))
    return any(k % s for k, s in zip(kernel, stride_of(pool), strict=True))


def chosen(model: nn.Module, variant: Variant, label: str) -> dict[str, Any]:
    """The layers that a variant changes, by module path.

    Raises UsageError for a glob that selects none, for layers that would have to change and are of
    a kind that cannot, and where nothing would change.
    """
    every: dict[str, tuple[Any, list[str]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        _, paths = every.setdefault(str(id(module)), (module, []))
        paths.append(path)
    fit = {paths[0]: (m, paths) for m, paths in every.values() if matches(m, variant)}
    odd = {paths[0]: (why, paths) for m, paths in every.values() if (why := cannot(m, variant))}
    if variant.layers:
        for glob in variant.layers:
            if not any(selects(glob, path) for _, paths in fit.values() for path in paths):
                raise UsageError(_nothing(glob, variant, label, fit, every.values()))
        fit, odd = (
            {
                first: (m, paths)
                for first, (m, paths) in held.items()
                if any(selects(glob, path) for glob in variant.layers for path in paths)
            }
            for held in (fit, odd)
        )
    if odd and not _frozen_program(model):
        kinds = "; ".join(f"{path}: {why}" for path, (why, _) in list(odd.items())[:3])
        more = f"; and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise UsageError(
            f"variant '{variant.name}' cannot change all that it would have to in {label} "
            f"({kinds}{more})."
        )
    if not fit:
        kinds = " or ".join(f"{k}x{k}" for k in variant.kernels)
        why = _frozen_program(model) or " and ".join(
            [f"no strided {kinds} convolution"] * bool(kinds)
            + ["no max pool whose stride does not divide its kernel"] * variant.maxpool
        )
        what = "changes no layer" if variant.maxpool else "replaces no convolution"
        raise NothingToChange(f"variant '{variant.name}' {what} in {label} ({why}).")
    return {path: module for path, (module, _) in fit.items()}


def selects(glob: str, path: str) -> bool:
    """Whether a glob selects a module path: it, or one above it."""
    words = path.split(".")
    return any(fnmatch.fnmatchcase(".".join(words[:n]), glob) for n in range(1, len(words) + 1))


def _nothing(
    glob: str, variant: Variant, label: str, fit: dict[str, Any], every: Iterable[Any]
) -> str:
    """The error for a glob that selects nothing that a variant changes."""
    paths = [path for _, held in every for path in held if path]
    near = suggest(glob, [*fit, *paths]) or suggest(glob.split("*")[0].rstrip("."), paths)
    some = f" It changes: {', '.join(list(fit)[:3])}{', ...' * (len(fit) > 3)}." if fit else ""
    known = any(selects(glob, path) for path in paths)
    what = "no layer that the variant changes" if known else "no layer"
    where = f"variant '{variant.name}': layers '{glob}' selects {what} in {label}."
    return where + (some if known else near or some)


def cannot(module: Any, variant: Variant) -> str:
    """Why a layer that a variant would have to change cannot be; '' for all others."""
    if isinstance(module, torch.jit.ScriptModule):
        name = module.original_name
        conv = name.startswith("Conv") and not name.startswith("ConvTranspose")
        known = hasattr(module, "stride") and hasattr(module, "kernel_size")
        if conv and (not known or fits(module, variant)):
            return "it is scripted or traced; change the network before"
        return ""
    if isinstance(module, torch.fx.GraphModule):
        return _functions(module)
    if matches(module, variant):
        if isinstance(module, MAX_POOLS):
            return "it returns indices" if module.return_indices else ""
        if isinstance(module.weight, nn.parameter.UninitializedParameter):
            return "it is lazy; run the network once before"
        return ""
    like = all(hasattr(module, name) for name in ("kernel_size", "stride", "in_channels", "groups"))
    if not like or is_conv(module) or "Transpose" in type(module).__name__:
        return ""
    return f"a {type(module).__name__}" if _strides(module, variant) else ""


def _strides(module: Any, variant: Variant) -> bool:
    """`fits` of a layer of an unknown kind."""
    kernel, stride = each(module.kernel_size, 2), each(module.stride, 2)
    if not all(isinstance(n, int) for n in (*kernel, *stride)):
        return False
    return max(stride) > 1 and len(set(kernel)) == 1 and kernel[0] in variant.kernels


def _functions(module: torch.fx.GraphModule) -> str:
    """Why an exported network with strided convolutions cannot be changed."""
    for node in module.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if node.op != "call_function" or "conv" not in name or "transpose" in name:
            continue
        stride = node.kwargs.get("stride", node.args[3] if len(node.args) > 3 else 1)
        if max(stride if isinstance(stride, list | tuple) else [stride]) > 1:
            return "it is an exported program; change the network before torch.export"
    return ""


def _frozen_program(model: nn.Module) -> str:
    """Why a program made of a network cannot be changed; '' for a network of Python layers."""
    if isinstance(model, torch.jit.ScriptModule):
        return "it is scripted or traced; change the network before torch.jit.script or trace"
    layers = any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
    if isinstance(model, torch.fx.GraphModule) and not layers:
        return "it is an exported program; change the network before torch.export"
    return ""


def called_as_functions(model: nn.Module, variant: Variant, seen: Recording) -> list[str]:
    """What a network does in functions that a variant would have to change: 'path: function'."""
    found = []
    for call in seen.calls:
        if call.whole or (
            variant.layers and not any(selects(glob, call.path) for glob in variant.layers)
        ):
            continue
        stride = _pools_at(call, variant) or _convolves_at(call, variant, model)
        if stride:
            where = call.path or "its forward()"
            found.append(f"{where}: {call.name} of stride {shown(stride)}")
    return list(dict.fromkeys(found))


def _pools_at(call: Call, variant: Variant) -> tuple[int, ...]:
    """The stride of a max pool that the variant would have to change; () for anything else."""
    if not call.name.startswith("max_pool") or not variant.maxpool:
        return ()
    given = dict(zip(("input", "kernel_size", "stride"), call.args, strict=False)) | call.kwargs
    axes = int(call.name[len("max_pool")])
    kernel = each(given["kernel_size"], axes)
    stride = each(given["stride"], axes) if given.get("stride") else kernel
    return stride if any(k % s for k, s in zip(kernel, stride, strict=True)) else ()


def _convolves_at(call: Call, variant: Variant, model: nn.Module) -> tuple[int, ...]:
    """The stride of a convolution that the variant would have to change; () for anything else."""
    if call.name not in ("conv1d", "conv2d", "conv3d"):
        return ()
    names = ("input", "weight", "bias", "stride")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    weight, stride = given["weight"], each(given.get("stride", 1), int(call.name[4]))
    kernel = set(weight.shape[2:])
    if max(stride) == 1 or len(kernel) > 1 or not kernel <= set(variant.kernels):
        return ()
    learned = isinstance(weight, nn.Parameter) or _has_kernel(model, call.path, weight)
    return stride if learned else ()


def _has_kernel(model: nn.Module, path: str, weight: Any) -> bool:
    """Whether the layer whose code convolves has a parameter as large as the kernel."""
    owner = model.get_submodule(path)
    return any(p.shape == weight.shape for p in owner.parameters(recurse=False))


def may_call_functions(model: nn.Module, variant: Variant) -> bool:
    """Whether a layer that is no convolution has a parameter like a kernel of the variant."""
    return any(
        p.ndim in (3, 4, 5)
        and len(set(p.shape[2:])) == 1
        and set(p.shape[2:]) <= set(variant.kernels)
        for m in model.modules()
        if not isinstance(m, nn.modules.conv._ConvNd | torch.jit.ScriptModule)
        and not is_conditional(m)
        for p in m.parameters(recurse=False)
    )
