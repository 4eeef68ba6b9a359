"""Views: the same entries under another shape, and copies of them. Nothing is added up."""

import numpy as np

from rfbench.spatial_graph.axis import from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import (
    SPATIAL,
    Factor,
    Scrambled,
    Value,
    dim_of,
    insert,
    permute,
    solid,
    tidy,
    view,
)
from rfbench.spatial_graph.ops.registry import Shape, register_op
from rfbench.spatial_graph.spread import spread


def widen(value: Value, dim: int, size: int) -> Value:
    """Repeat a dimension of size 1 as `size` channels of the same history."""
    dims = (*value.dims[:dim], tidy([Factor("c", size)]), *value.dims[dim + 1 :])
    return Value(dims, np.repeat(value.labels, size, axis=dim))


def copies(value: Value, shape: Shape) -> Value:
    """Broadcast to a shape: dimensions of size 1 become copies."""
    if value.shape == tuple(shape):
        return value
    extra = len(shape) - len(value.dims)
    dims = ((),) * extra + value.dims
    new = tuple(d or tidy([Factor("b", n)]) for d, n in zip(dims, shape, strict=True))
    return Value(new, value.labels.reshape((1,) * extra + value.labels.shape))


@register_op("aten::view", "aten::_unsafe_view")
def reshape(b: Builder, x: Value, *_: object) -> Value:
    """The traced shape has no -1 left."""
    return view(x, b.out_shape)


@register_op("aten::expand")
def expand(b: Builder, x: Value, *_: object, **__: object) -> Value:
    return copies(x, b.out_shape)


@register_op("aten::permute")
def reorder(b: Builder, x: Value, order: list[int]) -> Value:
    return permute(x, [dim_of(x, d) for d in order])


@register_op("aten::transpose")
def transpose(b: Builder, x: Value, i: int, j: int) -> Value:
    order = list(range(len(x.dims)))
    i, j = dim_of(x, i), dim_of(x, j)
    order[i], order[j] = j, i
    return permute(x, order)


@register_op("aten::t")
def t(b: Builder, x: Value) -> Value:
    return permute(x, list(range(len(x.dims)))[::-1])


@register_op("aten::unsqueeze")
def unsqueeze(b: Builder, x: Value, dim: int) -> Value:
    return insert(x, dim % (len(x.dims) + 1))


@register_op("aten::squeeze")
def squeeze(b: Builder, x: Value, dims: int | list[int]) -> Value:
    gone = {dim_of(x, d) for d in ([dims] if isinstance(dims, int) else dims)}
    gone = {d for d in gone if not x.dims[d]}
    return Value(
        tuple(d for i, d in enumerate(x.dims) if i not in gone),
        x.labels.squeeze(tuple(gone)) if gone else x.labels,
    )


@register_op("aten::repeat")
def repeat(b: Builder, x: Value, times: list[int]) -> Value:
    extra = len(times) - len(x.dims)
    x = copies(x, (1,) * extra + x.shape)
    for dim, n in enumerate(times):
        if n > 1 and any(f.axis in SPATIAL for f in x.dims[dim]):
            x = _tiled(b, x, dim, n)
        elif n > 1 and not x.dims[dim]:
            x = copies(x, tuple(n if i == dim else m for i, m in enumerate(x.shape)))
        elif n > 1:
            x = solid(x, dim)
            new = tidy([Factor("c", n * x.shape[dim])])
            labels = np.concatenate([x.labels] * n, axis=dim)
            x = Value((*x.dims[:dim], new, *x.dims[dim + 1 :]), labels)
    return x


def _tiled(b: Builder, x: Value, dim: int, n: int) -> Value:
    """A map n times, side by side, along an axis that a dimension holds whole."""
    x = spread(b, x, dim)
    name, size = x.dims[dim][0].axis, x.shape[dim]
    axis = b.letters.index(name) if name in SPATIAL else -1
    if x.dims[dim] != (Factor(name, size),) or len(x.factors(name)) > 1:
        raise Scrambled("something else than one whole axis of the map is repeated")
    b.rigid = True
    axes = b.on_axis(axis, from_matrix(np.tile(np.arange(size), n)[:, None], size))
    dims = (*x.dims[:dim], (Factor(name, n * size),), *x.dims[dim + 1 :])
    return b.moved(x, axes, dims)


@register_op("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(b: Builder, x: Value, groups: int) -> Value:
    shape = x.shape
    x = view(x, (shape[0], groups, shape[1] // groups, *shape[2:]))
    return view(transpose(b, x, 1, 2), shape)


@register_op("aten::unfold")
def unfold(b: Builder, x: Value, dim: int, size: int, step: int) -> Value:
    """Windows along a dimension; their taps become a dimension of their own, the last."""
    dim = dim_of(x, dim)
    (f,) = x.dims[dim] or (Factor("b", 1),)
    if f.axis not in SPATIAL:
        raise Scrambled("channels are unfolded")
    outer = Factor(f.axis, (f.size - size) // step + 1, f.step * step)
    x = insert(x, len(x.dims))
    dims = list(x.dims)
    dims[dim], dims[-1] = tidy([outer]), tidy([Factor(f.axis, size, f.step)])
    return Value(tuple(dims), x.labels)


@register_op("aten::as_strided")
def frames(
    b: Builder, x: Value, size: list[int], stride: list[int], offset: int | None = None
) -> Value:
    """Windows of a signal, 1 x L, as torch.stft cuts them."""
    if list(x.shape[:-1]) != [1] * (len(size) - 2) or len(size) != len(x.shape) + 1:
        raise Scrambled("a tensor is read in another order than it is written")
    if size[:-2] != [1] * (len(size) - 2) or stride[-1] != 1 or offset:
        raise Scrambled("a tensor is read in another order than it is written")
    return unfold(b, x, len(x.shape) - 1, size[-1], stride[-2])


@register_op("aten::as_strided_")
def restride(b: Builder, x: Value, size: list[int], _: object, *offset: int) -> Value:
    """Only another order in memory (channels last), of a pooled vector."""
    if tuple(size) != x.shape or x.spatial or any(offset):
        raise Scrambled("a tensor is read in another order than it is written")
    return b.same(x)
