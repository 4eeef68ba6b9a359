"""Windows along the axes of a tensor: which of its dimensions holds what of an axis."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rfbench.spatial_graph.axis import SAME, Axis, Expand, Index, Window, from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Dim, Factor, Scrambled, Value, tidy, windows_over
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.spread import spread


def slide(b: Builder, value: Value, windows: Mapping[int, Axis], kind: str) -> Value:
    """Apply a map along each of the dimensions given: of one whole axis each, or of channels."""
    value, windows = over_channels(b, value, windows)
    for dim in windows:
        value = unfurl(b, value, dim)
    axes, dims = along(b, value, windows)
    return b.moved(value, axes, dims, kind)


def over_channels(
    b: Builder, x: Value, windows: Mapping[int, Axis]
) -> tuple[Value, dict[int, Axis]]:
    """Move over channels that stand where positions would; the windows that are left.

    AvgPool3d of N x 1 x C x H x W; a vector that was laid out as a map. Channels are averaged.
    """
    kept: dict[int, Axis] = {}
    for dim, window in windows.items():
        if not x.dims[dim] or any(f.axis != "c" for f in x.dims[dim]):
            kept[dim] = window
            continue
        at = window.matrix(x.shape[dim])
        if isinstance(window, Index) and window.weights is not None:
            if (x.labels != x.labels.take([0], axis=dim)).any():
                raise Scrambled("channels of different history are interpolated")
            at = at.max(axis=1, keepdims=True)  # any of them
        rows = windows_over(x.labels, dim, at)
        labels = b.mixed(rows, lambda r: b.node("pool", r, learned=1))
        x = Value((*x.dims[:dim], tidy([Factor("c", len(at))]), *x.dims[dim + 1 :]), labels)
    return x, kept


def along(
    b: Builder, value: Value, windows: Mapping[int, Axis]
) -> tuple[tuple[Axis, ...], tuple[Dim, ...]]:
    """Maps by dimension as a map for each axis, and the dimensions that they leave."""
    axes: dict[int, Axis] = {}
    dims = list(value.dims)
    for dim, window in windows.items():
        axis, made = None, window
        if len(value.dims[dim]) > 1 and _is_still(window):  # of several axes, all as they are
            continue
        if is_block(value, dim):
            axis, made, dims = within(b, value, dim, window, dims)
        else:
            axis, n = whole_axis(b, value, dim, len(value.dims) - dim)
            if axis is not None:
                dims[dim] = tidy([Factor(b.letters[axis], window.out_size(n))])
        if axis is None:
            if not _is_identity(window):
                raise Scrambled("a window changes a dimension that is no axis of the map")
        elif axis in axes:
            raise Scrambled("windows move over two parts of one axis")
        else:
            axes[axis] = made
    return tuple(axes.get(k, SAME) for k in range(len(b.letters))), tuple(dims)


def is_block(value: Value, dim: int) -> bool:
    """Whether a dimension holds one factor of an axis whose others stand elsewhere."""
    factors = value.dims[dim]
    if len(factors) != 1 or factors[0].axis not in SPATIAL:
        return False
    return len(value.factors(factors[0].axis)) > 1


def within(
    b: Builder, value: Value, dim: int, window: Axis, dims: Sequence[Dim]
) -> tuple[int, Axis, list[Dim]]:
    """A map along one factor of an axis, the same in all blocks that its other factors make.

    Returns the axis, the map along it, and `dims` as it leaves them.
    """
    name, size = value.dims[dim][0].axis, value.dims[dim][0].size
    if isinstance(window, Window) and window.taps:
        raise Scrambled("a fixed kernel moves inside of blocks")
    table, weights = window.matrix(size), window.weight_table(size)
    blocks = sorted(value.slots(name).items(), key=lambda item: -item[1].step)
    at, weight, inside = np.zeros((1, 1), int), np.ones((1, 1)), np.ones((1, 1), bool)
    for slot, f in blocks:
        own = slot[0] == dim
        part = table if own else np.arange(f.size)[:, None]
        at = (at[:, None, :] + part * f.step).reshape(-1, max(at.shape[1], part.shape[1]))
        inside = (inside[:, None, :] & (part >= 0)).reshape(at.shape)
        scale = weights if own and weights is not None else np.ones(part.shape)
        weight = (weight[:, None, :] * scale).reshape(at.shape)
    new, count = {}, 1
    for slot, f in reversed(blocks):
        size = len(table) if slot[0] == dim else f.size
        new[slot] = Factor(name, size, count)
        count *= size
    b.rigid = True
    axis = b.letters.index(name)
    n = b.graph.map_size(value)[axis]
    made = from_matrix(np.where(inside, at, -1), n, None if weights is None else weight)
    moved = [tidy([new.get((i, j), f) for j, f in enumerate(d)]) for i, d in enumerate(dims)]
    return axis, made, moved


def unfurl(b: Builder, value: Value, dim: int) -> Value:
    """Copies along an axis as positions: of a pooled branch, which has one, or of a longer map."""
    value = spread(b, value, dim)
    axis = dim - len(value.dims) + len(b.letters)
    copies = [f.size for f in value.dims[dim] if f.axis == "b"]
    if axis < 0 or len(copies) != 1 or len(value.dims[dim]) != 1:
        return value
    if value.factors(b.letters[axis]) or b.graph.map_size(value)[axis] != 1:
        return value
    b.rigid = True
    axes = b.on_axis(axis, Expand(copies[0], 0))
    dims = (*value.dims[:dim], (Factor(b.letters[axis], copies[0]),), *value.dims[dim + 1 :])
    return b.moved(value, axes, dims, "context", Reach.CONTEXT)


def whole_axis(b: Builder, value: Value, dim: int, from_end: int) -> tuple[int | None, int]:
    """Which axis (its number) a dimension holds whole, and its size.

    A dimension of size 1 is the axis that stands there in N x C x H x W, or N x C x L.
    """
    factors = value.dims[dim]
    if not factors:
        rank = len(b.letters)
        axis = rank - from_end if 1 <= from_end <= rank else None
        if axis is None or value.factors(b.letters[axis]) or b.graph.map_size(value)[axis] != 1:
            return None, 1
        return axis, 1
    f = factors[0]
    axis = b.letters.find(f.axis)
    if len(factors) > 1 or axis < 0 or len(value.factors(f.axis)) > 1:
        raise Scrambled("a window moves over something else than one whole axis")
    if f.step != 1 or b.graph.map_size(value)[axis] != f.size:
        raise Scrambled("a window moves over part of an axis")
    return axis, f.size


def _is_still(window: Axis) -> bool:
    """Whether a map takes every position to itself, whatever their number."""
    return isinstance(window, Window) and replace(window, ceil=False, divide="") == SAME


def _is_identity(window: Axis) -> bool:
    """Whether a map takes a single position to itself, once."""
    if isinstance(window, Window) and window.taps:
        return False
    weights = window.weight_table(1)
    once = window.out_size(1) == 1 and (window.matrix(1) == 0).sum() == 1
    return once and (weights is None or (weights == 1).all())
