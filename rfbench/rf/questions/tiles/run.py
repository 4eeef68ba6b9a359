"""Run a network on a whole random image and on its tiles, in float64, and compare."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.rf.core.doubles import as_map, output, outputs
from rfbench.rf.core.network import Network
from rfbench.rf.core.progress import progress
from rfbench.rf.core.target import Target
from rfbench.rf.questions.tiles.exact import same_units
from rfbench.rf.questions.tiles.plan import Tile, at

Inputs = Sequence[Tensor]  # an image for each input of a network
MOST = 400  # crops without a halo that are run
LIMIT = 1e-9  # of the largest output: rounding in float64 stays far below


def difference(module: nn.Module, target: Target, x: Inputs, whole: Tensor, tile: Tile) -> float:
    """The largest difference between a tile and the whole map, as a share of its largest value."""
    most = float(whole.abs().max())
    if not 0 < most < float("inf"):
        raise RfbenchError("the network's output is not finite, or zero: nothing can be compared")
    if any(p.first == p.last for p in tile.parts):
        return 0.0  # nothing is taken from it
    part = output(module, target, _crops(x, target, _pixels(tile)))
    own = tuple(slice(p.own, p.own + p.last - p.first) for p in tile.parts)
    there = tuple(slice(p.first, p.last) for p in tile.parts)
    return float((_cut(part, own) - _cut(whole, there)).abs().max()) / most


def without_halo(
    module: nn.Module, target: Target, x: Inputs, whole: Tensor, crop: Sequence[int]
) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """What crops side by side, without a halo, differ by: the largest over channels by unit.

    As a share of the largest value; with the px along each axis that were looked at: of many crops
    the first are run. None where crops do not fit together so: without padding their maps are
    smaller.
    """
    most = round(MOST ** (1 / len(crop)))
    size = tuple(min(n, most * c) for n, c in zip(target.source_size, crop, strict=True))
    out = torch.full_like(whole, float("nan"))
    sides = zip(target.source_size, size, crop, whole.shape[2:], strict=True)
    steps = [[(i, i * n // side, side) for i in range(0, end, c)] for side, end, c, n in sides]
    ends = [0] * len(crop)
    for starts in progress([*product(*steps)], "crop"):
        pixels = tuple(slice(i, i + c) for (i, *_), c in zip(starts, crop, strict=True))
        try:
            part = output(module, target, _crops(x, target, pixels))
        except RfbenchError:  # what is left over at the end may be too small
            return None
        units = tuple(slice(u, u + n) for (_, u, _), n in zip(starts, part.shape[2:], strict=True))
        if _cut(out, units).shape != part.shape or not _cut(out, units).isnan().all():
            return None
        out[(slice(None), slice(None), *units)] = part
        ends = [max(end, own.stop) for end, own in zip(ends, units, strict=True)]
    run = [slice(end) for end in ends]
    apart = (_cut(out, run) - _cut(whole, run)).abs().amax((0, 1)) / whole.abs().max()
    return None if apart.isnan().any() else (apart.numpy(), size)


def _crops(x: Inputs, target: Target, along: Sequence[slice]) -> list[Tensor]:
    """A part of every input, in px of the largest; of smaller ones in proportion."""
    crops = []
    for one in x:
        sides = zip(along, one.shape[2:], target.source_size, strict=True)
        own = [slice(px.start * n // most, -(-px.stop * n // most)) for px, n, most in sides]
        crops.append(_cut(one, own))
    return crops


def _cut(x: Tensor, along: Sequence[slice]) -> Tensor:
    """A part of a tensor (N, C, ...), by its last dimensions."""
    return x[(slice(None), slice(None), *along)]


def _pixels(tile: Tile) -> tuple[slice, ...]:
    return tuple(slice(p.start, p.start + p.size) for p in tile.parts)


def first_difference(
    module: nn.Module, network: Network, whole: Target, x: Inputs, tile: Tile
) -> str:
    """The first layer of which units differ that, by the steps of the network, are the same."""
    names = [n for n in whole.graph.layers if n in whole.graph.maps()]
    part = at(network, whole, tile.size)
    end = names.index(whole.name) + 1 if whole.name in names else len(names)
    there = outputs(module, names[:end], x)
    here = outputs(module, list(there), _crops(x, whole, _pixels(tile)))
    for name, map_ in there.items():
        one, other = (Target(t.graph, name, t.source) for t in (whole, part))
        same = same_units(one, other, tile.start)
        known = all(s.offset is not None and s.units.any() for s in same)
        if not known or map_.dim() != len(same) + 2:
            continue
        a, b = as_map(other, here[name]), as_map(one, map_)
        for axis, s in enumerate(same, 2):
            units = torch.from_numpy(np.flatnonzero(s.units))
            a, b = a.index_select(axis, units), b.index_select(axis, units + (s.offset or 0))
        if float((a - b).abs().max()) > LIMIT * float(map_.abs().max()):
            return name
    return ""
