"""Sampling behind a convolution (Zhang, 2019): where its activation is, if one follows directly.

A convolution at stride 1, its norm and its activation run at full resolution; then the map is
blurred and sampled. Where the activation is a layer of its own, that layer gets the pool. Where it
is shared or a function (torchvision's ResNets), the only convolution that reads it gets the pool,
before it: the same thing. Without an activation (a shortcut), the convolution itself gets it.
"""

import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, counted
from rfbench.models.meta import meta_copy
from rfbench.models.variant import Variant
from rfbench.models.variants.recorded import Call, Example, Recording, record
from rfbench.models.variants.sampled import (
    MAX_POOLS,
    PooledAfter,
    attach,
    make_pool,
    stride_of,
    swap,
    unstrided,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a convolution's pool goes: to a layer by its path, behind or before it."""

    path: str
    after: bool
    channels: int


def change(
    model: nn.Module,
    layers: dict[str, Any],
    variant: Variant,
    seen: Recording,
    label: str,
    example: Example,
) -> list[str]:
    """Change `layers` in place; returns the paths of the layers that got a pool.

    The log says where the pools are, and what the convolutions cost now.
    """
    places = {
        name: place(model, seen, name, set(layers))
        for name, layer in layers.items()
        if not isinstance(layer, MAX_POOLS)
    }
    trial = meta_copy(model)
    _change(trial, list(layers), places, variant, seen)
    then = record(trial, label, "that its maps keep their sizes", example)
    if _output(then) != _output(seen):
        raise RfbenchError(
            f"variant '{variant.name}' changes the size of the output of {label}: a map is read "
            "where the pass does not show it."
        )
    cost = _macs(seen, meta_copy(model), places), _macs(then, trial, places)
    _change(model, list(layers), places, variant, seen)
    _say(_told(label, variant, places, *cost))
    return [p.path if p else name for name, p in places.items()]


def _change(
    model: nn.Module,
    names: list[str],
    places: dict[str, Place | None],
    variant: Variant,
    seen: Recording,
) -> None:
    for name in names:
        layer: Any = model.get_submodule(name)
        there = places.get(name)
        if there is None:
            given = seen.calls[seen.of(name)[-1]].given if seen.of(name) else None
            swap(layer, variant.pool, channels=1 if given is None else given.shape[1])
            continue
        sample = make_pool(variant.pool, there.channels, stride_of(layer))
        unstrided(layer)
        attach(model.get_submodule(there.path), sample, there.after)


def place(model: nn.Module, seen: Recording, name: str, changed: set[str]) -> Place | None:
    """Where the pool of a convolution goes if an activation follows; None: to itself."""
    activation = _activation(seen, name)
    if activation is None or seen.opaque:
        return None
    call = seen.calls[activation]
    assert call.made is not None
    channels = call.made.shape[1]
    if call.whole and len(seen.of(call.path)) == 1:
        return Place(call.path, True, channels)
    readers = seen.readers(activation)
    if len(readers) != 1:
        return None
    reader = seen.calls[readers[0]]
    alone = reader.kind == "conv" and reader.given is call.made
    if alone and len(seen.of(reader.path)) == 1 and reader.path not in changed:
        return Place(reader.path, False, channels)
    return None


def _activation(seen: Recording, name: str) -> int | None:
    """The number of the activation that directly follows a convolution, through its norm."""
    calls = seen.of(name)
    if len(calls) != 1:
        return None
    at, norms = calls[0], 0
    while len(readers := seen.readers(at)) == 1:
        call = seen.calls[readers[0]]
        if not _same_shape(seen.calls[at], call):
            return None
        if call.kind == "activation":
            return readers[0]
        if call.kind != "norm" or norms:
            return None
        at, norms = readers[0], 1
    return None


def _same_shape(before: Call, call: Call) -> bool:
    a, b = before.made, call.made
    return (
        call.given is a and isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    )


def _output(seen: Recording) -> tuple[int, ...]:
    made = seen.calls[-1].made
    return () if made is None else tuple(made.shape)


def _macs(seen: Recording, model: nn.Module, names: dict[str, Any]) -> int:
    """Multiply-adds of these convolutions, for one image."""
    total = 0
    for call in seen.calls:
        if not call.whole or call.path not in names or call.made is None:
            continue
        made, layer = call.made, model.get_submodule(call.path)
        if isinstance(layer, PooledAfter):  # before its pool
            with torch.no_grad():
                made = layer.rf_base.forward(layer, *call.args, **call.kwargs)
        total += made.numel() * call.weights
    return total


def _told(
    label: str, variant: Variant, places: dict[str, Place | None], before: int, after: int
) -> str:
    """Where the pools are, and what it costs."""
    parts = []
    for where, there in (("behind the activation", True), ("behind the convolution", False)):
        names = [name for name, p in places.items() if (p is not None) == there]
        if names:
            some = f"{', '.join(names[:3])}{', ...' * (len(names) > 3)}"
            parts.append(f"{where}: {len(names)} ({some})")
    cost = (
        f"{counted(len(places), 'convolution')} from {before / 1e9:.3g} to {after / 1e9:.3g} GMACs"
    )
    times = f" (x{after / before:.2f})" if before else ""
    return f"{label} / {variant.name}: blurred {', '.join(parts)}; {cost}{times}"


@functools.cache  # a network is built several times in one process
def _say(text: str) -> None:
    log.info(text)
