"""Changing a network: `fix`, and `apply`, which says what it has changed."""

import functools
import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models.meta import meta_copy
from rfbench.models.own import checked_module
from rfbench.models.variant import Variant, get
from rfbench.models.variants import behind
from rfbench.models.variants.choose import (
    called_as_functions,
    chosen,
    is_conditional,
    may_call_functions,
)
from rfbench.models.variants.recorded import Example, Recording, record
from rfbench.models.variants.sampled import (
    MAX_POOLS,
    SAMPLED,
    axes_of,
    each,
    is_after,
    make_pool,
    stride_of,
    swap,
)

Model = TypeVar("Model", bound=nn.Module)
log = logging.getLogger(__name__)


def fix(
    model: Model,
    variant: str | Mapping[str, Any] | Variant = "1x1+3x3",
    *,
    layers: str | list[str] | tuple[str, ...] | None = None,
    groups: str | None = None,
    size: Sequence[int] | None = None,
    inputs: Sequence[Any] | None = None,
) -> Model:
    """Change the strided convolutions of any network in place, and return it.

    variant: a name such as '1x1+3x3', 'blur:3x3' or '1x1+3x3+7x7+maxpool', a mapping or a Variant.
    layers: a glob over module paths, or several: only what they select changes; a path selects what
    is below it. groups: 'dense' or 'depthwise' convolutions only. size: of an input that the model
    accepts, px along each axis; inputs: examples of all that it takes, in place of that. Needed for
    alt, blur_after and maxpool, which run it; others run networks of one's own to see what their
    code does with the layers.

    Raises, and leaves the model unchanged: UsageError if it has already been changed, if nothing
    would change, if a layer could not keep its output size (VALID 3x3), or is of a kind that cannot
    be changed; RfbenchError if the model has to be run and does not run.
    """
    apply(checked_module(model), get(variant, layers, groups), size=size, inputs=inputs)
    return model


def apply(
    model: nn.Module,
    variant: str | Mapping[str, Any] | Variant,
    label: str | None = None,
    size: Sequence[int] | None = None,
    inputs: Sequence[Any] | None = None,
) -> list[str]:
    """Change `model` in place; returns the module paths of the changed layers.

    Changes every Conv1d, Conv2d and Conv3d (and timm's CondConv2d) that strides, with one of the
    variant's kernels in every direction, among those that its `layers` and `groups` choose. label:
    the model's name in errors. size: px along each axis of an input that the model accepts; inputs:
    examples of all that it takes, in place of that.

    Raises, and leaves the model unchanged: UsageError if it has already been changed, if nothing
    would change, if a layer could not keep its output size (VALID 3x3), or is of a kind that cannot
    be changed; RfbenchError if the model has to be run and does not run.
    """
    variant, label = get(variant), label or type(model).__name__
    example = Example(size, inputs)
    layers, seen = _fit(model, variant, label, example)
    if not variant.changes:
        return []
    if seen is not None and is_after(variant.pool):
        touched = behind.change(model, layers, variant, seen, label, example)
    else:
        levels = {} if seen is None else _levels(seen, list(layers))
        if hasattr(make_pool(variant.pool, 1), "level") and not levels:
            raise RfbenchError(
                f"{label} is run to see which of them are parallel, and none of them is reached"
            )
        if seen is not None and _has_own_code(model):
            trial = meta_copy(model)
            _swap({name: trial.get_submodule(name) for name in layers}, variant, levels, seen)
            _refuse_other_shapes(trial, variant, seen, label, example)
        _swap(layers, variant, levels, seen)
        touched = list(layers)
    _refuse_fusing(model, [*dict.fromkeys([*layers, *touched])], variant.name)
    return list(layers)


def _swap(
    layers: Mapping[str, Any], variant: Variant, levels: Mapping[str, int], seen: Recording | None
) -> None:
    for name, layer in layers.items():
        channels = _channels(seen, name) if isinstance(layer, MAX_POOLS) else 1
        swap(layer, variant.pool, levels.get(name, -1), channels)


def _refuse_other_shapes(
    changed: nn.Module, variant: Variant, seen: Recording, label: str, example: Example
) -> None:
    """Raise where a network no longer returns maps of the same sizes: its code looks at strides."""
    before, now = seen.returned(), record(changed, label, "what it returns", example).returned()
    if before != now:
        one, other = next((a, b) for a, b in zip_longest(before, now) if a != b)
        raise UsageError(
            f"variant '{variant.name}' would change what {label} returns from {one} to {other}: "
            "its code looks at the strides of its layers. Write them there as numbers."
        )


def changeable(
    model: nn.Module,
    variant: str | Mapping[str, Any] | Variant,
    label: str | None = None,
    size: Sequence[int] | None = None,
) -> list[str]:
    """The module paths of the layers that `apply` would change; `model` is left as it is.

    Raises what `apply` raises, but for a network that does not run once it is changed.
    """
    return list(_fit(model, get(variant), label or type(model).__name__, Example(size))[0])


def _fit(
    model: nn.Module, variant: Variant, label: str, example: Example
) -> tuple[dict[str, Any], Recording | None]:
    """The layers to change, by module path, and a pass of the network where one was needed."""
    if changed := [name for name, module in model.named_modules() if isinstance(module, SAMPLED)]:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(f"{label} has already been changed ({changed[0]}{more}). Build a new one.")
    if not variant.changes:
        return {}, None
    layers = chosen(model, variant, label)
    _check(layers, variant, label)
    seen = _recording(model, variant, label, example)
    if seen is not None:
        _refuse_functions(called_as_functions(model, variant, seen), variant, label)
        for name in [n for n, m in layers.items() if isinstance(m, MAX_POOLS) and not seen.of(n)]:
            del layers[name]  # how many channels it would read is not known
    return layers, seen


def _check(layers: dict[str, Any], variant: Variant, label: str) -> None:
    """Refuse, by name, the layers that could not keep their output size or their stride."""
    if own := [name for name, layer in layers.items() if "forward" in vars(layer)]:
        raise UsageError(
            f"variant '{variant.name}' cannot change layers of {label} that had their forward "
            f"method replaced: {', '.join(own)}. Change them first."
        )
    for name, layer in layers.items():
        try:
            make_pool(variant.pool, 1, stride_of(layer))
        except UsageError as error:
            if "stride" not in str(error):
                raise
            raise UsageError(
                f"variant '{variant.name}' cannot change {name} in {label}: {error}."
            ) from None
    if unfit := [name for name, layer in layers.items() if not _keeps_size(layer, variant.pool)]:
        kinds = "layers" if variant.maxpool else "convolutions"
        raise UsageError(
            f"variant '{variant.name}' cannot keep the output size of these {kinds} in "
            f"{label}, usually for lack of padding: {', '.join(unfit)}."
        )


def _recording(
    model: nn.Module, variant: Variant, label: str, example: Example
) -> Recording | None:
    """A pass of the network, where the change depends on one."""
    pool = make_pool(variant.pool, 1)
    if hasattr(pool, "level"):
        return record(model, label, "which convolutions are parallel", example)
    if getattr(pool, "after", False):
        return record(model, label, "where activations follow", example)
    if variant.maxpool:
        return record(model, label, "what max pools read", example)
    likely = may_call_functions(model, variant)
    if likely or _has_own_code(model):
        try:
            return record(model, label, "what it convolves in functions", example)
        except RfbenchError as error:
            if likely:
                log.warning("%s. Those are not changed.", error)
    return None


def _has_own_code(model: nn.Module) -> bool:
    """Whether code of others may use a layer's weights without calling it."""
    return any(type(m).__module__.partition(".")[0] not in _LIBRARIES for m in model.modules())


_LIBRARIES = {"timm", "torch", "torchvision", "rfbench"}


def _channels(seen: Recording | None, name: str) -> int:
    given = None if seen is None else seen.calls[seen.of(name)[-1]].given
    return 1 if given is None else given.shape[1]


def _refuse_functions(found: list[str], variant: Variant, label: str) -> None:
    if found:
        raise UsageError(
            f"variant '{variant.name}' cannot change what {label} calls as functions "
            f"({'; '.join(found[:3])}). Use the layers nn.Conv2d and nn.MaxPool2d there, or choose "
            "others with layers=."
        )


def _keeps_size(layer: nn.Module, pool: str) -> bool:
    """Whether changing `layer` keeps the size of its output, measured on copies."""
    if type(layer) not in _OF_TORCH:
        return _measured(layer, pool)
    settings = (type(layer), pool, *(vars(layer).get(key) for key in _SIZING))
    key = repr(settings)  # numbers and lists alike
    if key not in _KEPT:
        _KEPT[key] = _measured(layer, pool)
    return _KEPT[key]


# what the size of the output of torch's own layers depends on, and what was measured of them
_OF_TORCH = {nn.Conv1d, nn.Conv2d, nn.Conv3d, *MAX_POOLS}
_SIZING = ("kernel_size", "stride", "padding", "padding_mode", "dilation", "ceil_mode")
_KEPT: dict[str, bool] = {}


def _measured(layer: nn.Module, pool: str) -> bool:
    before, after = meta_copy(layer), meta_copy(layer)
    swap(after, pool, level=0)
    axes, stride = axes_of(layer), max(stride_of(layer))
    first, least = max(each(layer.kernel_size, axes)) + stride, 1
    if getattr(layer, "padding_mode", "") in ("reflect", "circular") and layer.padding != "valid":
        least = stride * (max(each(layer.padding, axes)) + 1)  # the smaller map has more, too
    sides = [1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 32, 33, *range(first, first + 2 * stride)]
    sides = [side for side in sides if side >= least]
    sizes = [[sides[i - 3 * axis] for axis in range(axes)] for i in range(len(sides))]
    shapes = [(shape, size) for size in sizes if (shape := _output_shape(before, size))]
    return bool(shapes) and all(_output_shape(after, size) == shape for shape, size in shapes)


def _output_shape(layer: Any, size: list[int]) -> torch.Size | None:
    if isinstance(layer, MAX_POOLS):
        x = torch.empty(1, 1, *size, device="meta")
        routing = []
    else:
        empty = functools.partial(torch.empty, dtype=layer.weight.dtype, device="meta")
        x = empty(1, layer.in_channels, *size)
        routing = [empty(1, layer.num_experts)] if is_conditional(layer) else []
    try:
        with torch.no_grad():
            return layer(x, *routing).shape
    except (RuntimeError, TypeError, ValueError):  # such as a VALID 3x3 on 2 px
        return None


def _levels(seen: Recording, names: list[str]) -> dict[str, int]:
    """The level of each layer that a forward pass reaches, by name.

    Parallel layers (a block and its shortcut) read maps of one size.
    """
    areas = {
        name: given[0, 0].numel()
        for name in names
        for number in seen.of(name)
        if (given := seen.calls[number].given) is not None
    }
    finest_first = sorted(set(areas.values()), reverse=True)
    return {name: finest_first.index(area) for name, area in areas.items()}


def _refuse_fusing(model: nn.Module, layers: list[str], variant: str) -> None:
    """Shadow the methods that would merge a changed convolution (RepVGG, MobileOne, FastViT, ...).

    They build a new convolution from `conv.stride`, which would silently drop the sampling.
    """
    for layer in layers:
        parts = layer.split(".")
        for owner in (".".join(parts[:n]) for n in range(len(parts))):
            module = model.get_submodule(owner)
            for method in ("fuse", "reparameterize", "switch_to_deploy"):
                if callable(getattr(type(module), method, None)):
                    called = f"{owner}.{method}".lstrip(".")
                    setattr(module, method, functools.partial(_refuse, called, layer, variant))


def _refuse(method: str, layer: str, variant: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise RfbenchError(
        f"{method}() would drop the sampling that variant '{variant}' put into {layer}. "
        f"Re-parametrise the unchanged model, or use the changed one as it is."
    )
