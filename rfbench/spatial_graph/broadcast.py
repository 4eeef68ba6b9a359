"""Dimensions of several tensors that meet, cut alike: what broadcasting does to factors."""

from collections.abc import Sequence

import numpy as np

from rfbench.spatial_graph.layout import SPATIAL, Dim, Factor, Scrambled, Value, channels, split


def pad_rank(value: Value, rank: int) -> Value:
    """Dimensions of size 1 in front, up to a number of dimensions."""
    extra = rank - len(value.dims)
    labels = value.labels.reshape((1,) * extra + value.labels.shape)
    return Value(((),) * extra + value.dims, labels)


def common_dims(values: Sequence[Value], apart: int | None) -> tuple[list[Dim], list[Value], bool]:
    """Cut the dimensions of all operands alike.

    Returns the result's dimensions, the operands with dimensions cut alike, and whether channels
    of one stand where positions of another do.
    """
    if apart is None and (alike := _alike(values)) is not None:
        return alike, list(values), False
    dims: list[Dim] = []
    cut: list[list[Dim]] = [[] for _ in values]
    clash = False
    for i, column in enumerate(zip(*(v.dims for v in values), strict=True)):
        if i == apart:
            column = ((),) * len(values)
        present = [d for d in column if d]
        sizes = _common_sizes(present)
        merged: list[Factor] = []
        parts = [[g[0] for g in split(d, sizes)] if d else None for d in column]
        for j in range(len(sizes)):
            here = [p[j] for p in parts if p]
            spatial = [f for f in here if f.axis in SPATIAL]
            if len({f.axis for f in spatial}) > 1:
                raise Scrambled("positions of one axis meet those of another")
            clash |= bool(spatial) and any(f.axis == "c" for f in here)
            merged.append((spatial or [f for f in here if f.axis == "c"] or here)[0])
        for operand, p in zip(cut, parts, strict=True):
            operand.append(tuple(p or ()))
        dims.append(tuple(merged))
    return dims, [_recut(v, d, dims, apart) for v, d in zip(values, cut, strict=True)], clash


def _alike(values: Sequence[Value]) -> list[Dim] | None:
    """The common dimensions of operands that have each either whole or not at all (a gate)."""
    dims: list[Dim] = []
    for column in zip(*(v.dims for v in values), strict=True):
        whole = {d for d in column if d}
        if len(whole) > 1:
            return None
        dims.append(whole.pop() if whole else ())
    return dims


def _recut(value: Value, cut: list[Dim], dims: list[Dim], apart: int | None) -> Value:
    """An operand with its dimensions cut like the result's.

    Copies where the result has channels become channels; channels where it has positions, which
    must all be of one class, become copies.
    """
    labels = value.labels
    new: list[Dim] = []
    for i, (mine, whole) in enumerate(zip(cut, dims, strict=True)):
        pairs = list(zip(mine, whole, strict=bool(mine)))
        new.append(tuple(f if f.axis == g.axis else g._replace(axis="b") for f, g in pairs))
        if i == apart or not mine:
            continue
        left, right = labels.shape[:i], labels.shape[i + 1 :]
        labels = labels.reshape(*left, *(f.size if f.axis == "c" else 1 for f in mine), *right)
        for j, (f, g) in enumerate(pairs):
            if f.axis == "c" and g.axis != "c":
                first = labels.take([0], axis=i + j)
                if (labels != first).any():
                    raise Scrambled("channels of different history meet positions")
                labels = first
        form = (*left, *(g.size if g.axis == "c" else 1 for g in whole), *right)
        labels = np.broadcast_to(labels, form).reshape(*left, channels(whole), *right)
    return Value(tuple(new), labels)


def _common_sizes(dims: Sequence[Dim]) -> list[int]:
    """The coarsest sizes into which all these dimensions can be cut."""
    if not dims:
        return []
    ends = sorted({int(e) for d in dims for e in np.cumprod([f.size for f in reversed(d)])})
    sizes, last = [], 1
    for e in ends:
        if e % last:
            raise Scrambled("dimensions are cut in different places")
        sizes.append(e // last)
        last = e
    return sizes[::-1]
