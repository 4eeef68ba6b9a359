"""Operations in which many positions meet: matrix products, softmax, Fourier transforms.

Products with a constant matrix are linear layers, over channels or over positions; products of two
maps, and softmax over positions, are attention.
"""

import math

import numpy as np
import torch

from rfbench.spatial_graph.axis import Dense, names
from rfbench.spatial_graph.broadcast import pad_rank
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import (
    CONSTANT,
    SPATIAL,
    Factor,
    Scrambled,
    Value,
    dim_of,
    insert,
    solid,
    tidy,
)
from rfbench.spatial_graph.node import Opaque, Reach
from rfbench.spatial_graph.ops.registry import Constant, register_op
from rfbench.spatial_graph.ops.views import copies, widen

Matrix = Value | Constant
MOST = 2**20  # pairs of channels of a matrix with zeros that are looked at one by one


@register_op("aten::addmm", "aten::baddbmm")
def addmm(
    b: Builder, more: Matrix, x: Matrix, y: Matrix, *, beta: float = 1, **_: object
) -> Value | Opaque | None:
    """A product and what is added to it: a bias, or a map."""
    out = product(b, x, y) if isinstance(x, Value) or isinstance(y, Value) else None
    if isinstance(more, Constant) or not beta or isinstance(out, Opaque):
        return out
    more = copies(pad_rank(more, len(b.out_shape)), b.out_shape)
    return more if out is None else b.combine([more, out])


@register_op("aten::mm", "aten::bmm")
def product(b: Builder, x: Matrix, y: Matrix) -> Value | Opaque | None:
    try:
        return matmul(b, x, y)
    except Scrambled:
        if isinstance(x, Constant) or isinstance(y, Constant):
            raise
        # queries of one map meet keys of another (global queries of GCViT)
        return b.opaque(Reach.GLOBAL)


def matmul(b: Builder, x: Matrix, y: Matrix) -> Value | Opaque | None:
    """x (..., M, K) times y (..., K, N); one of them may be constant."""
    if isinstance(x, Constant):
        assert isinstance(y, Value)
        return linear(b, y, len(y.dims) - 2, x, x.shape[-2], left=True)
    last = len(x.dims) - 1
    if isinstance(y, Constant):
        return linear(b, x, last, y, y.shape[-1])
    shape = (*x.shape[:-1], y.shape[-1])
    partial = mixing_reach(b, y, last - 1)
    x, y = b.contract(x, [last], "pool"), b.contract(y, [last - 1], "pool")
    rows = {f.axis for f in x.dims[last - 1]} & {*SPATIAL}
    if rows & {f.axis for f in y.dims[last]}:  # every query meets every key
        partial = mixing_reach(b, y, last)
        y = widen(b.contract(y, [last], "pool"), last, shape[-1])
    return copies(b.combine([x, y], "product", Reach.GLOBAL, partial), shape)


@register_op("aten::_euclidean_dist", "aten::_cdist_forward")
def distances(b: Builder, x: Matrix, y: Matrix, *_: object) -> Value | Opaque:
    """From every row of one to every row of the other: as a product with its transpose."""
    if isinstance(y, Constant) and isinstance(x, Value):
        last = len(x.dims) - 1
        return widen(b.contract(x, [last], "pool"), last, y.shape[-2])
    raise Scrambled("distances between what depends on the input")


def linear(
    b: Builder, x: Value, dim: int, weight: Constant, out: int, left: bool = False
) -> Value | Opaque | None:
    """`out` weighted sums over a dimension: new channels, or new positions of one axis.

    left: whether the matrix stands on the left, (..., out, K), and not on the right, (..., K, out).
    None: of a matrix of zeros.
    """
    if weight.vanishes:
        return None
    held = {f.axis for f in x.dims[dim]}
    if held & {*SPATIAL} and weight.nonzero is not None:
        raise Scrambled("a matrix with zeros mixes positions")
    letter = next(iter(held), "")
    others = any(x.factors(other) for other in b.letters if other != letter)
    whole = len(held) == 1 and len(x.factors(letter)) == len(x.dims[dim])
    if out > 1 and whole and letter in b.letters and others:
        return _mix(b, x, dim, out)
    if not held & {*SPATIAL} and (x.labels != x.labels.take([0], axis=dim)).any():
        nonzero = weight.nonzero  # where channels differ, it matters which of them a sum has
        if nonzero is not None:
            return _chosen(b, x, dim, nonzero.mT.numpy() if left else nonzero.numpy())
    return widen(b.contract(x, [dim]), dim, out)


def _chosen(b: Builder, x: Value, dim: int, nonzero: np.ndarray) -> Value:
    """Sums over some channels each: of a matrix (K, out) with zeros."""
    x = solid(x, dim)
    rows = np.moveaxis(x.labels, dim, -1)
    if nonzero.ndim != 2 or rows.size * nonzero.shape[1] > MOST:
        raise Scrambled("a matrix with zeros chooses among channels of different history")
    each = rows.reshape(-1, rows.shape[-1])
    labels = [
        [_sum_of(b, row[nonzero[:, k]], len(row)) for k in range(nonzero.shape[1])] for row in each
    ]
    made = np.array(labels).reshape(*rows.shape[:-1], nonzero.shape[1])
    dims = (*x.dims[:dim], tidy([Factor("c", nonzero.shape[1])]), *x.dims[dim + 1 :])
    out = Value(dims, np.moveaxis(made, -1, dim))
    if not out.depends_on_input:
        raise Scrambled("a matrix of zeros leaves nothing")
    return out


def _sum_of(b: Builder, labels: np.ndarray, channels: int) -> int:
    """The node of a sum over these of so many channels."""
    known, counts = np.unique(labels[labels != CONSTANT], return_counts=True)
    return b.weighted(dict(zip(known.tolist(), counts.tolist(), strict=True)), channels)


def _mix(b: Builder, x: Value, dim: int, out: int) -> Value | Opaque:
    """Every of `out` positions of an axis depends on all of it; the other axes are left alone."""
    factors = x.dims[dim]
    axis = b.letters.index(factors[0].axis)
    if len(factors) > 1 or factors[0].size != b.graph.map_size(x)[axis]:
        name = names(len(b.letters))[axis]
        return b.opaque(Reach.GLOBAL, f"global along {name}: it mixes all positions there")
    b.rigid = True
    dims = (*x.dims[:dim], tidy([Factor(factors[0].axis, out)]), *x.dims[dim + 1 :])
    return b.moved(x, b.on_axis(axis, Dense(out)), dims)


def mixing_reach(b: Builder, x: Value, dim: int) -> Reach:
    """What mixing all positions of a dimension is: windowed while they stand close together.

    Along one axis at least.
    """
    size = dict(zip(b.letters, b.graph.map_size(x), strict=True))
    wide = {f.axis for f in x.dims[dim] if 2 * (f.size - 1) * f.step >= size.get(f.axis, math.inf)}
    return Reach.GLOBAL if wide >= {a for a, n in size.items() if n > 1} else Reach.WINDOWED


@register_op("aten::_softmax", "aten::_safe_softmax", "aten::_log_softmax")
def softmax(b: Builder, x: Value, dim: int, *_: object) -> Value:
    """Every entry depends on all others of the dimension.

    Over channels of one history (branches, classes) it is an activation.
    """
    dim = dim_of(x, dim)
    alike = (x.labels == x.labels.take([0], axis=dim)).all()
    if alike and not {f.axis for f in x.dims[dim]} & {*SPATIAL}:
        return b.same(x)
    both = [x, b.contract(x, [dim], "pool")]
    return copies(b.combine(both, "product", partial=mixing_reach(b, x, dim)), x.shape)


@register_op("aten::complex")
def complex_(b: Builder, real: Matrix, imaginary: Matrix) -> Value:
    """One number of two."""
    if isinstance(real, Constant) or isinstance(imaginary, Constant):
        raise Scrambled(_PARTS)
    shape = b.out_shape
    return _whole(b, *(copies(v, shape) for v in (real, imaginary)))


@register_op("aten::view_as_complex")
def view_as_complex(b: Builder, x: Value) -> Value:
    """The last dimension holds both parts."""
    last = len(x.dims) - 1
    if any(f.axis in SPATIAL for f in x.dims[last]):
        raise Scrambled(_PARTS)
    x = solid(x, last)
    return _whole(b, *(Value(x.dims[:-1], x.labels[..., i]) for i in (0, 1)))


def _whole(b: Builder, real: Value, imaginary: Value) -> Value:
    """What depends on both parts; which is which is kept, where they differ."""
    pairs = np.stack([real.labels.ravel(), imaginary.labels.ravel()]).T
    alike = all(b.graph.alike(*pair) for pair in np.unique(pairs, axis=0).tolist())
    if real.dims == imaginary.dims and alike:
        return b.same(real)
    if real.dims != imaginary.dims or real.labels.shape != imaginary.labels.shape:
        raise Scrambled(_PARTS)
    made = b.combine([real, imaginary])
    if made.labels.shape != real.labels.shape:
        raise Scrambled(_PARTS)
    held = zip(made.labels.flat, real.labels.flat, imaginary.labels.flat, strict=True)
    b.parts |= {int(i): (int(re), int(im)) for i, re, im in held}
    return made


_PARTS = "real and imaginary parts depend on different positions"


@register_op("aten::_to_copy")
def converted(
    b: Builder, x: Value, *_: object, dtype: torch.dtype | None = None, **__: object
) -> Value:
    """The same as other numbers; real ones have the real part alone."""
    if dtype is None or dtype.is_complex or b.graph.ancestors(set(x.share)).isdisjoint(b.parts):
        return b.same(x)
    if not set(x.share) <= b.parts.keys():
        raise Scrambled(_PARTS)
    return b.same(b.each(x, lambda i: b.parts[i][0]))


@register_op("aten::view_as_real")
def view_as_real(b: Builder, x: Value) -> Value:
    """Both parts. Raises Scrambled where something came between that may have mixed them."""
    share = set(x.share)
    if not share & b.parts.keys():
        if not b.graph.ancestors(share).isdisjoint(b.parts):
            raise Scrambled(_PARTS)
        return copies(insert(x, len(x.dims)), b.out_shape)
    if not share <= b.parts.keys():
        raise Scrambled(_PARTS)
    parts = [b.each(x, lambda i, k=k: b.parts[i][k]).labels for k in (0, 1)]  # type: ignore[misc]
    return b.same(Value((*x.dims, (Factor("c", 2),)), np.stack(parts, -1)))


@register_op("aten::_fft_r2c", "aten::_fft_c2c", "aten::_fft_c2r")
def fourier(b: Builder, x: Value, dims: list[int], *_: object) -> Value | Opaque:
    """Over channels, over windows of a signal, along an axis; global where it holds all axes."""
    dims = [dim_of(x, d) for d in dims]
    kept = {f.axis for i, d in enumerate(x.dims) if i not in dims for f in d}
    if any(f.axis in SPATIAL for d in dims for f in x.dims[d]) and not kept & {*SPATIAL}:
        return b.opaque(Reach.GLOBAL)
    for dim in dims:
        held = {f.axis for f in x.dims[dim]} & {*SPATIAL}
        if held - kept:
            made = _mix(b, x, dim, b.out_shape[dim])
            if isinstance(made, Opaque):
                return made
            x = made
        else:  # channels, or a window's part of an axis
            x = widen(b.contract(x, [dim], "pool"), dim, b.out_shape[dim])
    return x
