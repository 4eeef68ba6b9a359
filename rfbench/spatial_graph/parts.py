"""Positions of several axes one after another in a dimension, and what is done to each alone.

Coordinate attention joins the means of the rows and of the columns, convolves both by one 1x1
kernel, and takes them apart again. No map has such positions, so the joined tensor is opaque; the
tensors that it was joined of are kept beside it.
"""

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import Scrambled, Value, dim_of
from rfbench.spatial_graph.node import Opaque
from rfbench.spatial_graph.ops import convolution, indexing, lookup, pointwise, views
from rfbench.spatial_graph.ops.registry import Constant, each_axis


def by_parts(b: Builder, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What an operation gives on each part of its joined arguments; None where it mixes them."""
    joined = [a for a in args if isinstance(a, Opaque)]
    forms = {(a.dim, tuple(p.shape[a.dim] for p in a.parts)) for a in joined}
    if len(forms) != 1 or not joined[0].parts:
        return None
    (dim, sizes), handler, new = forms.pop(), lookup(func), -1
    if handler is indexing.split:
        return [_cut(b, joined[0], along, rows) for along, rows in _split(joined[0], *args[1:])]
    if handler is indexing.slice_:
        return _cut(b, joined[0], *_slice(joined[0], *args[1:]))
    if handler is views.reorder:
        new = [d % len(b.out_shape) for d in args[1]].index(dim)
    elif handler is views.transpose:
        i, j = (d % len(b.out_shape) for d in args[1:])
        new = {i: j, j: i}.get(dim, dim)
    elif _stays(handler, args, dim):
        new = dim
    if new < 0 or handler is None:
        return None
    whole, parts = b.out_shape, []
    for i, size in enumerate(sizes):
        b.out_shape = (*whole[:new], size, *whole[new + 1 :])
        out = handler(b, *(a.parts[i] if isinstance(a, Opaque) else a for a in args), **kwargs)
        first = out[0] if isinstance(out, list) else out
        if not isinstance(first, Value):
            return None
        parts.append(first)
    b.out_shape = whole
    return replace(joined[0], parts=tuple(parts), dim=new)


def _stays(handler: Any, args: tuple, dim: int) -> bool:
    """Whether an operation does the same to each position of a dimension, apart from all others."""
    if handler is pointwise.norm:
        return True
    if handler is pointwise.pointwise:
        rank = max(len(a.parts[0].dims) for a in args if isinstance(a, Opaque))
        return not any(isinstance(a, Value) or _varies(a, rank - dim) for a in args)
    if handler is not convolution.convolution or dim < 2 or not isinstance(args[1], Constant):
        return False
    kernel = args[1].shape[2:]
    steps, pads = (each_axis(a, len(kernel)) for a in args[3:5])
    return bool(kernel[dim - 2] == steps[dim - 2] == 1 and pads[dim - 2] == 0)


def _varies(argument: object, behind: int) -> bool:
    """Whether a constant has numbers of its own for each position of a dimension.

    behind: the dimension, counted from the end.
    """
    if not isinstance(argument, Constant) or len(argument.shape) < behind:
        return False
    return argument.shape[-behind] > 1


def shape_of(joined: Opaque) -> tuple[int, ...]:
    """The shape of a joined tensor."""
    first, dim = joined.parts[0].shape, joined.dim
    return (*first[:dim], sum(p.shape[dim] for p in joined.parts), *first[dim + 1 :])


def _split(joined: Opaque, sizes: int | list[int], dim: int = 0) -> list[tuple[int, range]]:
    dim = dim_of(joined.parts[0], dim)
    n = shape_of(joined)[dim]
    ends = [*accumulate(sizes)] if isinstance(sizes, list) else [*range(sizes, n, sizes), n]
    return [(dim, range(lo, hi)) for lo, hi in pairwise([0, *ends])]


def _slice(
    joined: Opaque,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> tuple[int, range]:
    dim = dim_of(joined.parts[0], dim)
    rows = range(shape_of(joined)[dim])[start:end]
    if step != 1:
        raise Scrambled("every other one of positions that were concatenated is taken")
    return dim, rows


def _cut(b: Builder, joined: Opaque, dim: int, rows: range) -> Value | Opaque:
    """Entries of a dimension, next to each other: of one part, or of several."""
    taken, start = [], 0
    for part in joined.parts:
        if dim != joined.dim:
            taken.append(indexing.pick(b, part, dim, np.array(rows)))
            continue
        size = part.shape[dim]
        inside = np.arange(max(rows.start - start, 0), min(rows.stop - start, size))
        if inside.size:
            taken.append(indexing.pick(b, part, dim, inside))
        start += size
    return taken[0] if len(taken) == 1 else replace(joined, parts=tuple(taken))
