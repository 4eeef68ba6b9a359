"""What a caller in Python gives: a name or a module, a size, inputs; as a subject to measure."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.copies import whole_copy
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import arguments, backbones, own, variants
from rfbench.rf.core.network import Network
from rfbench.rf.core.subjects import Subject, input_size, of_inputs, tell_conditions
from rfbench.spatial_graph import call, order
from rfbench.spatial_graph.hooks import channels_first, input_names
from rfbench.spatial_graph.inputs import size_as_fits
from rfbench.spatial_graph.size import Size
from rfbench.spatial_graph.skeleton import without_weights

Model = str | nn.Module | torch.export.ExportedProgram


def _checked(inputs: Sequence[Any]) -> list[Any]:
    """Example inputs; of what is no map, those of one map."""
    maps, rest = call.split(inputs)
    if odd := [x for x in maps if not 3 <= x.dim() <= 5]:
        raise UsageError(
            f"an input is (1, C, L), (1, C, H, W) or (1, C, D, H, W); this one is "
            f"{tuple(odd[0].shape)}"
        )
    count = len(maps[0]) if maps else 1
    return [call.alone(x, count) if i in rest else x for i, x in enumerate(inputs)]


def weighted(
    model: Model, variant: str, subject: Subject, model_args: Mapping[str, Any] | None
) -> nn.Module:
    """A subject's network with its weights, in a variant; one that is given is left as it is."""
    inputs = subject.backbone.inputs
    if isinstance(model, str):
        name = arguments.named(model, model_args)
        module = backbones.build(name, variant, inputs=inputs).module
    else:
        module, changed = module_of(model), variants.get(variant)
        if changed.changes:
            module = whole_copy(module)
            variants.apply(module, changed, type(model).__name__, subject.size, inputs)
    return subject.network.call.of(module)


def with_inputs(
    model: Model,
    size: int | Size | None,
    variant: str,
    in_channels: int | None,
    inputs: Sequence[Any] | None,
    model_args: Mapping[str, Any] | None,
    input_axes: str | None = None,
) -> Subject:
    """A network in a variant, with the inputs that are said."""
    given = _checked(inputs) if inputs else None
    if given and (size is not None or in_channels is not None):
        raise UsageError("inputs= says size and channels: leave out size= and in_channels=")
    if input_axes and not given:
        raise UsageError("input_axes= names the axes of inputs=: give these as well")
    if given:
        tell_conditions(given)
        size = next((tuple(x.shape[2:]) for x in call.split(given)[0]), None)
    subject = _subject(model, size, variant, in_channels, model_args, given)
    if given:
        subject.network = of_inputs(subject.backbone.module, given, input_axes)
        subject.backbone = replace(subject.backbone, module=subject.network.module)
        subject.size = subject.network.native
    else:
        subject.network = Network(subject.network.module, subject.network.native, in_channels)
    return subject


Batch = tuple[Tensor, ...]  # (N, C, H, W) of each input


def shown(
    images: Tensor | Iterable[Tensor] | None, inputs: Sequence[Any] | None
) -> tuple[list[Batch], dict[int, Any]]:
    """What an effective field is averaged over: images of the only input, or those of each.

    And what else the network takes, by position: the same for all images.
    """
    if (images is None) == (inputs is None):
        raise UsageError("give images, or those of each input with inputs=")
    if images is not None:
        return [(x,) for x in ([images] if isinstance(images, Tensor) else images)], {}
    assert inputs is not None
    maps, rest = call.split(inputs)
    if not maps:
        raise call.no_map(inputs, "Of a generator, give the part that begins with a map")
    if len({len(x) for x in maps}) > 1:
        raise UsageError("inputs= has as many images for each input: (N, C, H, W), the same N")
    conditions = {}
    for i, value in rest.items():
        conditions[i] = call.alone(value, len(maps[0]))
        if isinstance(value, Tensor) and not bool((value == conditions[i]).all()):
            raise UsageError(f"input.{i} is no map: give one for all images, (1, ...)")
    return [tuple(maps)], conditions


def source_of(
    module: nn.Module, batches: list[Batch], source: str | None
) -> tuple[str | None, int]:
    """The input that is looked at: 'input.1' and 1; of an only one None and 0."""
    names = input_names(module, len(batches[0])) if batches else []
    if source is not None and source not in names:
        raise UsageError(f"source='{source}' is none of {', '.join(names)}")
    if len(names) < 2:
        return None, 0
    if source is None:
        raise UsageError(
            f"the network has several inputs: choose one with source= ({', '.join(names)})"
        )
    return source, names.index(source)


def with_channels_first(
    module: nn.Module, batches: list[Batch], axes: str | None = None
) -> tuple[nn.Module, list[Batch]]:
    """A network and what it is shown, with the channels in dimension 1.

    Both as they are where the network is not to be traced: it says itself what does not fit. axes:
    of the inputs, such as 'NLC'.
    """
    shapes = [tuple(x.shape[1:]) for x in batches[0]] if batches else []
    dim = 1
    if axes is not None:
        dim = order.said(axes, shapes)
    elif shapes and min(map(len, shapes)) >= 2:
        with contextlib.suppress(RfbenchError):
            dim, _ = order.found(module, shapes)
    moved = [tuple(x.movedim(dim, 1) for x in batch) for batch in batches]
    return channels_first(module, dim), moved


Buffers = list[tuple[nn.Module, str, Tensor, Tensor]]


def buffers_of(module: nn.Module) -> Buffers:
    """What a forward pass may change: every buffer, with a copy of its values."""
    parts = (m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule))
    every = ((m, name, t) for m in parts for name, t in m._buffers.items() if t is not None)
    return [(m, name, t, t.detach().clone()) for m, name, t in every]


def restore(held: Buffers) -> None:
    """Give buffers back the values that they had."""
    with torch.no_grad():
        for module, name, tensor, values in held:
            module._buffers[name] = tensor
            tensor.detach().copy_(values)


def module_of(model: Model) -> nn.Module:
    """A network with the weights that it has."""
    if isinstance(model, str):
        return backbones.build(model).module
    if isinstance(model, torch.export.ExportedProgram):
        return model.module()
    return own.checked_module(model)


def _subject(
    model: Model,
    size: int | Size | None,
    variant: str,
    channels: int | None = None,
    model_args: Mapping[str, Any] | None = None,
    inputs: Sequence[Any] | None = None,
) -> Subject:
    """A network in a variant; of a module, all is copied but the weights."""
    wanted = None if size is None else checked(size)
    if isinstance(model, str):
        name = arguments.named(model, model_args)
        held = backbones.build(name, variant, meta=True, inputs=inputs)
        wanted = input_size(held, wanted, channels)
    elif model_args:
        raise UsageError("model_args are of a network by name; a module is what it is")
    else:
        changed, model = variants.get(variant), module_of(model)
        copied, label = without_weights(model), type(model).__name__
        if not isinstance(wanted, tuple):
            wanted = size_as_fits(copied, wanted, channels)
        # one that was changed already may be looked at as it is
        changes = bool(changed.changes)
        replaced = variants.apply(copied, changed, label, wanted, inputs) if changes else []
        held = backbones.Backbone(label, copied, wanted, changed.name, replaced, inputs)
    native = held.input_size if len(held.input_size) == len(wanted) else wanted
    return Subject(held.variant, held, Network(held.module, native), wanted)


def checked(size: int | Size) -> int | Size:
    """A size as plain integers. Raises UsageError for anything else."""
    several = isinstance(size, tuple | list)
    try:
        sides = tuple(map(index, size if isinstance(size, tuple | list) else [size]))
    except TypeError:  # no whole numbers
        sides = ()
    if not 1 <= len(sides) <= 3 or min(sides) < 1:
        raise UsageError(
            "a size is N, (L,), (H, W) or (D, H, W), at least one pixel a side; this one is "
            f"{size!r}"
        )
    return sides if several else sides[0]
