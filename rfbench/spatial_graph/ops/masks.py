"""Maps that a constant takes entries out of: products with ones and zeros, masks, choices.

A position, or a channel, that is multiplied by zero or overwritten depends on nothing any more.
"""

import math

import numpy as np
import torch

from rfbench.spatial_graph.axis import SAME, Axis, Index, from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import CONSTANT, SPATIAL, Dim, Factor, Scrambled, Value, solid
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.ops.pointwise import pointwise
from rfbench.spatial_graph.ops.registry import Constant, dependent, is_number, register_op
from rfbench.spatial_graph.ops.slide import is_block, within
from rfbench.spatial_graph.ops.views import copies
from rfbench.spatial_graph.spread import spread

MOST = 64  # rectangles of positions, and masks of different channels

Blocks = list[tuple[np.ndarray, ...]]  # of each: along every dimension, which positions it holds


@register_op("aten::mul")
def multiply(b: Builder, *factors: object, **_: object) -> Value | None:
    if any(f.vanishes if isinstance(f, Constant) else is_number(f, 0) for f in factors):
        return None
    values = [f for f in factors if isinstance(f, Value)]
    if len(values) > 1 or b.graph.witness(values[0]).reach > Reach.CONTEXT:
        return pointwise(b, *factors)
    masks = [m for f in factors if isinstance(f, Constant) and (m := _mask(f)) is not None]
    return kept(b, values[0], masks[0]) if masks else pointwise(b, *factors)


@register_op("aten::masked_fill")
def masked_fill(b: Builder, x: object, mask: object, value: object) -> Value | None:
    taken = _values(mask)
    if taken is None or not isinstance(x, Value) or isinstance(value, Value):
        return pointwise(b, x, mask, value)
    return kept(b, x, ~taken)


@register_op("aten::where")
def where(b: Builder, mask: object, x: object = None, y: object = None) -> Value | None:
    taken = _values(mask)
    if taken is None:
        return pointwise(b, mask, x, y)
    pairs = ((dependent(x), taken), (dependent(y), ~taken))
    parts = [part for v, m in pairs if v is not None and (part := kept(b, v, m)) is not None]
    return b.combine(parts) if parts else None


def _values(mask: object) -> np.ndarray | None:
    """A mask that does not depend on the input, and of which the values are known."""
    values = mask.values if isinstance(mask, Constant) else None
    return None if values is None else values.bool().numpy()


def _mask(factor: Constant) -> np.ndarray | None:
    """Where a constant is not zero; None where that is everywhere.

    Raises Scrambled where something wrote zeros, and which they are is not known.
    """
    nonzero = None if math.prod(factor.shape) == 1 else factor.nonzero
    return None if nonzero is None else nonzero.numpy()


@register_op("aten::pow")
def power(b: Builder, x: object, exponent: object) -> Value | None:
    """x ** 0 is one, whatever x is."""
    if is_number(exponent, 0):
        return None
    taken = exponent.values if isinstance(exponent, Constant) else None
    if taken is None or not isinstance(x, Value):
        return pointwise(b, x, exponent)
    return kept(b, x, (taken != 0).numpy())


@register_op("aten::lerp")
def lerp(b: Builder, x: object, y: object, weight: object) -> Value | None:
    """x + weight (y - x): with a weight of 0 it is x, with 1 it is y."""
    known = weight.values if isinstance(weight, Constant) else None
    if isinstance(weight, int | float):
        known = torch.tensor(weight)
    pairs = [(x, 1), (y, 0)]
    if known is None:
        return pointwise(b, x, y, weight)
    masks = [(v, (known != without).numpy()) for v, without in pairs if isinstance(v, Value)]
    parts = [part for v, mask in masks if (part := kept(b, v, mask)) is not None]
    return b.combine(parts) if parts else None


def kept(b: Builder, x: Value, mask: np.ndarray) -> Value | None:
    """The entries of a tensor where a mask (that broadcasts against it) is true; None: none."""
    x = copies(x, b.out_shape)
    mask = mask.reshape((1,) * (len(x.dims) - mask.ndim) + mask.shape)
    varied = [i for i, n in enumerate(mask.shape) if n > 1]
    for i in varied:
        x = spread(b, x, i)
    held = [i for i in varied if any(f.axis in SPATIAL for f in x.dims[i])]
    if mask.all() or b.graph.witness(x).reach > Reach.CONTEXT:
        return b.same(x)  # attention: positions meet all the same
    if not x.spatial and any(f.axis == "b" for i in varied for f in x.dims[i]):
        raise Scrambled("a mask of positions meets what is the same at all of them")
    for i in (i for i in varied if i not in held):
        x = solid(x, i)
    rows = np.moveaxis(mask, held, range(-len(held), 0))
    form = rows.shape[: rows.ndim - len(held)]
    every, which = np.unique(rows.reshape(math.prod(form), -1), axis=0, return_inverse=True)
    if len(every) > MOST:
        raise Scrambled("channels have different masks of their positions")
    mine = which.reshape([1 if i in held else n for i, n in enumerate(mask.shape)])
    labels = np.full(np.broadcast_shapes(x.labels.shape, mine.shape), CONSTANT)
    forms: set[tuple[Dim, ...]] = set()
    for i, one in enumerate(every):
        if one.any():
            shape = [mask.shape[k] for k in held]
            part = _held(b, x, held, one.reshape(shape))
            labels = np.where(mine == i, part.labels, labels)
            forms.add(part.dims)
    if len(forms) > 1:
        raise Scrambled("channels have different masks of their windows")
    out = Value(forms.pop() if forms else x.dims, labels)
    return out if out.depends_on_input else None


def _held(b: Builder, x: Value, dims: list[int], mask: np.ndarray) -> Value:
    """A tensor at some positions of these dimensions."""
    if mask.all():
        return b.same(x)
    b.rigid = True
    if len(dims) == 1 and is_block(x, dims[0]):  # the window of a Fourier transform
        at = np.where(mask, np.arange(len(mask)), -1)[:, None]
        own, made, new = within(b, x, dims[0], Index(at), x.dims)
        return b.moved(x, b.on_axis(own, made), tuple(new))
    axes = [_axis(b, x, dim) for dim in dims]
    parts = []
    for block in blocks(mask):
        maps: list[Axis] = list(b.still)
        for axis, rows in zip(axes, block, strict=True):
            at = np.where(rows, np.arange(len(rows)), -1)
            maps[axis] = SAME if rows.all() else from_matrix(at[:, None], len(rows))
        parts.append(b.moved(x, tuple(maps), x.dims))
    return parts[0] if len(parts) == 1 else b.combine(parts)


def _axis(b: Builder, x: Value, dim: int) -> int:
    """The axis that a dimension holds whole, and alone."""
    name = next(f.axis for f in x.dims[dim] if f.axis in SPATIAL)
    axis = b.letters.index(name)
    if x.dims[dim] != (Factor(name, b.graph.map_size(x)[axis]),) or len(x.factors(name)) > 1:
        raise Scrambled("a mask covers something else than whole axes")
    return axis


def blocks(mask: np.ndarray) -> Blocks:
    """Products of positions along every dimension that make up a mask, none of them twice."""
    if mask.ndim == 1:
        return [(mask,)]
    rows = mask.reshape(len(mask), -1)
    every, which = np.unique(rows, axis=0, return_inverse=True)
    if len(every) > MOST:
        raise Scrambled("a mask of positions is no product of rows and columns")
    out: Blocks = []
    for i, row in enumerate(every):
        if row.any():
            inner = blocks(row.reshape(mask.shape[1:]))
            out += [(which.reshape(-1) == i, *block) for block in inner]
    return out
