"""What every aten operation does to positions: one table, from its name to a function.

A function gets the builder and the arguments, in which tensors that depend on the input are Values
and all others (weights, constants) None. It returns a Value, a list of them, or None for a result
that does not depend on the input. Norms are identities: their statistics count as constants.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch

from rfbench.rf.axis import Axis, Full, Index, Window, from_matrix
from rfbench.rf.build import Builder
from rfbench.rf.graph import Reach
from rfbench.rf.layout import (
    CONSTANT,
    Factor,
    Scrambled,
    Value,
    channels,
    insert,
    permute,
    shape,
    solid,
    take,
    tidy,
    view,
)

Shape = tuple[int, ...]
Result = Value | list[Value] | None


def widen(value: Value, dim: int, size: int) -> Value:
    """Repeat a dimension of size 1 as `size` channels of the same history."""
    dims = (*value.dims[:dim], tidy([Factor("c", size)]), *value.dims[dim + 1 :])
    return Value(dims, np.repeat(value.labels, size, axis=dim))


def copies(value: Value, form: Shape) -> Value:
    """Broadcast to a shape: dimensions of size 1 become copies."""
    extra = len(form) - len(value.dims)
    dims = ((),) * extra + value.dims
    new = tuple(d or tidy([Factor("b", n)]) for d, n in zip(dims, form, strict=True))
    return Value(new, value.labels.reshape((1,) * extra + value.labels.shape))


def pointwise(b: Builder, name: str, values: list[Value], form: Shape) -> Value:
    """Any element-wise operation: sums and products of maps, activations, constants."""
    product = any(word in name for word in ("mul", "div", "pow", "cmul"))
    if len(values) > 1:
        return copies(b.combine(values, "product" if product else "sum"), form)
    return copies(b.same(values[0]), form)


# -- views ------------------------------------------------------------------------------------------


def _dim(dim: int, value: Value) -> int:
    return dim % len(value.dims)


def _transpose(b: Builder, x: Value, i: int, j: int) -> Value:
    order = list(range(len(x.dims)))
    i, j = _dim(i, x), _dim(j, x)
    order[i], order[j] = j, i
    return permute(x, order)


def _squeeze(b: Builder, x: Value, dims: int | list[int]) -> Value:
    gone = {_dim(d, x) for d in ([dims] if isinstance(dims, int) else dims)}
    gone = {d for d in gone if not x.dims[d]}
    return Value(
        tuple(d for i, d in enumerate(x.dims) if i not in gone),
        x.labels.squeeze(tuple(gone)) if gone else x.labels,
    )


def _repeat(b: Builder, x: Value, times: list[int]) -> Value:
    extra = len(times) - len(x.dims)
    x = copies(x, (1,) * extra + shape(x))
    for dim, n in enumerate(times):
        if n > 1 and any(f.axis in "hw" for f in x.dims[dim]):
            raise Scrambled("a map is repeated")
        if n > 1:
            x = solid(x, dim)
            new = tidy([Factor("c", n * shape(x)[dim])])
            labels = np.concatenate([x.labels] * n, axis=dim)
            x = Value((*x.dims[:dim], new, *x.dims[dim + 1 :]), labels)
    return x


def _channel_shuffle(b: Builder, x: Value, groups: int) -> Value:
    form = shape(x)
    x = view(x, (form[0], groups, form[1] // groups, *form[2:]))
    return view(_transpose(b, x, 1, 2), form)


def flip(b: Builder, x: Value, dims: list[int]) -> Value:
    """Positions or channels in reverse order."""
    for dim in dims:
        x = pick(b, x, dim, np.arange(shape(x)[_dim(dim, x)])[::-1])
    return x


def _rot90(b: Builder, x: Value, k: int = 1, dims: Sequence[int] = (0, 1)) -> Value:
    turns = k % 4
    x = flip(b, x, [dims[1]]) if turns in (1, 2) else x
    x = flip(b, x, [dims[0]]) if turns in (2, 3) else x
    return _transpose(b, x, *dims) if turns in (1, 3) else x


def _glu(b: Builder, x: Value, dim: int = -1) -> Value:
    half = shape(x)[_dim(dim, x)] // 2
    return b.combine(_split(b, x, half, dim), "product")


def pick(b: Builder, x: Value, dim: int, at: np.ndarray) -> Value:
    """The entries `at` of a dimension: channels, or positions of one axis."""
    dim = _dim(dim, x)
    factors = x.dims[dim]
    size = shape(x)[dim]
    whole = len(at) == size and (at == np.arange(size)).all()
    if whole or len(factors) != 1 or factors[0].axis not in "hw":
        return take(x, dim, at)
    axis, made, dims = b.within(x, dim, np.asarray(at)[:, None], x.dims)
    axes = b.on_axis(axis, made)
    return b.each(x, lambda i: b.node("structure", [i], axes), tuple(dims))


def _slice(
    b: Builder,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    return pick(b, x, dim, np.arange(shape(x)[_dim(dim, x)])[slice(start, end, step)])


def _select(b: Builder, x: Value, dim: int, index: int) -> Value:
    dim = _dim(dim, x)
    return _squeeze(b, pick(b, x, dim, np.array([index % shape(x)[dim]])), dim)


def _split(b: Builder, x: Value, sizes: int | list[int], dim: int = 0) -> list[Value]:
    n = shape(x)[_dim(dim, x)]
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    ends = np.cumsum([0, *sizes])
    pairs = zip(ends[:-1], ends[1:], strict=True)
    return [pick(b, x, dim, np.arange(lo, hi)) for lo, hi in pairs]


def _unbind(b: Builder, x: Value, dim: int = 0) -> list[Value]:
    return [_select(b, x, dim, i) for i in range(shape(x)[_dim(dim, x)])]


def _unfold(b: Builder, x: Value, dim: int, size: int, step: int) -> Value:
    dim = _dim(dim, x)
    (f,) = x.dims[dim] or (Factor("b", 1),)
    if f.axis not in "hw":
        raise Scrambled("channels are unfolded")
    outer = Factor(f.axis, (f.size - size) // step + 1, f.step * step)
    x = insert(x, len(x.dims))
    dims = list(x.dims)
    dims[dim], dims[-1] = tidy([outer]), tidy([Factor(f.axis, size, f.step)])
    return Value(tuple(dims), x.labels)


def cat(b: Builder, parts: list[Value | None], dim: int, sizes: list[int]) -> Value | None:
    """Join channels, or positions of an axis. sizes: of every part along the dimension; a part is
    None where it is constant."""
    known = [p for p in parts if p is not None and p.alive]
    if not known:
        return None
    dim = _dim(dim, known[0])
    parts = [solid(p, dim) if p is not None and p.alive else None for p in parts]
    known = [p for p in parts if p is not None]
    if any(f.axis in "hw" for p in known for f in p.dims[dim]):
        starts = np.cumsum([0, *sizes])
        placed = [(p, np.arange(starts[-1]) - lo) for p, lo in zip(parts, starts, strict=False)]
        return lay(
            b, [(p, np.where(at < shape(p)[dim], at, -1)) for p, at in placed if p is not None], dim
        )
    dims, moved = b.meet(known, apart=dim)
    left = iter(moved)
    form = np.broadcast_shapes(*(m.shape[:dim] + (1,) + m.shape[dim + 1 :] for m in moved))
    rows = []
    for part, size in zip(parts, sizes, strict=True):
        row = next(left) if part is not None else np.array(CONSTANT)
        rows.append(np.broadcast_to(row, (*form[:dim], size, *form[dim + 1 :])))
    dims[dim] = tidy([Factor("c", sum(sizes))])
    return b.same(Value(tuple(dims), np.concatenate(rows, axis=dim)))


def lay(b: Builder, parts: Sequence[tuple[Value, np.ndarray]], dim: int) -> Value:
    """Lay the positions of several tensors into one axis, which a dimension holds whole.

    parts: tensors, and the place in each from which a position of the result comes, < 0 for none.
    """
    name = next(f.axis for p, _ in parts for f in p.dims[dim] if f.axis in "hw")
    axis, placed = "hw".index(name), []
    for value, at in parts:
        n = b.graph.map_size(value)[axis]
        whole = tidy([Factor(name, n)])
        if value.dims[dim] != whole or len(value.factors(name)) != len(whole):
            raise Scrambled("positions are concatenated with something else")
        axes = b.on_axis(axis, from_matrix(np.maximum(at, -1)[:, None], n))
        b.rigid = True
        dims = (*value.dims[:dim], tidy([Factor(name, len(at))]), *value.dims[dim + 1 :])
        node = partial(b.node, "structure", axes=axes)
        placed.append(b.each(value, lambda i, node=node: node([i]), dims))
    return b.combine(placed)


def scatter(
    b: Builder, x: Value | None, source: Value | None, dim: int, at: np.ndarray, n: int
) -> Value | None:
    """Overwrite entries `at` of a dimension of size n: what a write to a view becomes."""
    x, source = (v if v is not None and v.alive else None for v in (x, source))
    inside = np.isin(np.arange(n), at)
    if any(f.axis in "hw" for p in (x, source) if p is not None for f in p.dims[dim]):
        rest, new = np.where(inside, -1, np.arange(n)), np.full(n, -1)
        new[at] = np.arange(len(at))
        return lay(b, [(p, t) for p, t in ((x, rest), (source, new)) if p is not None], dim)
    runs = np.split(np.arange(n), np.flatnonzero(np.diff(inside)) + 1)
    parts: list[Value | None] = []
    for run in runs:
        whole, where = (source, np.searchsorted(at, run)) if inside[run[0]] else (x, run)
        parts.append(pick(b, whole, dim, where) if whole is not None else None)
    return cat(b, parts, dim, [len(run) for run in runs])


def spelled(b: Builder, x: Value, dim: int) -> Value:
    """Positions in a dimension as channels of different history (space-to-depth)."""
    factors, form = x.dims[dim], shape(x)
    x = view(x, (*form[:dim], *(f.size for f in factors), *form[dim + 1 :]))
    for i, f in enumerate(factors):
        if f.axis in "hw":
            parts: list[Value | None] = [insert(p, dim + i) for p in _unbind(b, x, dim + i)]
            x = cat(b, parts, dim + i, [1] * f.size)
    return view(x, form)


# -- sums over dimensions ---------------------------------------------------------------------------


def total(
    b: Builder,
    x: Value,
    dims: list[int] | None,
    keep: bool,
    divide: str = "",
    kind: str = "pool",
) -> Value:
    """Mean, sum, norm, variance or maximum over dimensions."""
    over = [_dim(d, x) for d in (dims or range(len(x.dims)))]
    out = b.contract(x, over, kind, divide)
    return out if keep else _squeeze(b, out, over)


def span(b: Builder, x: Value, dim: int) -> Reach:
    """What mixing all positions of a dimension is: windowed while they stand close together."""
    size = b.graph.map_size(x)
    wide = any(
        2 * (f.size - 1) * f.step >= size["hw".index(f.axis)]
        for f in x.dims[dim]
        if f.axis in "hw"
    )
    return Reach.GLOBAL if wide else Reach.WINDOWED


def softmax(b: Builder, x: Value, dim: int) -> Value:
    """Every entry depends on all others of the dimension."""
    dim = _dim(dim, x)
    if not {f.axis for f in x.dims[dim]} & {"c", "h", "w"}:
        return b.same(x)
    both = [x, b.contract(x, [dim], "pool")]
    return copies(b.combine(both, "product", partial=span(b, x, dim)), shape(x))


def matmul(b: Builder, x: Value | None, y: Value | None, forms: tuple[Shape, Shape]) -> Value:
    """x (..., M, K) times y (..., K, N); one of them may be constant."""
    if y is None:
        assert x is not None
        last = len(x.dims) - 1
        return widen(b.contract(x, [last]), last, forms[1][-1])
    if x is None:
        first = len(y.dims) - 2
        return widen(b.contract(y, [first]), first, forms[0][-2])
    last = len(x.dims) - 1
    partial = span(b, y, last - 1)
    x, y = b.contract(x, [last], "pool"), b.contract(y, [last - 1], "pool")
    rows = {f.axis for f in x.dims[last - 1]} & {"h", "w"}
    if rows & {f.axis for f in y.dims[last]}:  # every query meets every key
        partial = span(b, y, last)
        y = widen(b.contract(y, [last], "pool"), last, forms[1][-1])
    return copies(
        b.combine([x, y], "product", Reach.GLOBAL, partial), (*forms[0][:-1], forms[1][-1])
    )


# -- windows ----------------------------------------------------------------------------------------


def _pair(v: Any, rank: int = 2) -> list[int]:
    values = [v] if isinstance(v, int) else list(v)
    return values * rank if len(values) == 1 else values


def pool(
    b: Builder,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil: bool = False,
    divide: str = "",
) -> Value:
    """Max- and average pooling over the last two dimensions."""
    k, p, d = _pair(kernel), _pair(padding), _pair(dilation)
    s = _pair(stride) if stride else k
    first = len(x.dims) - 2
    windows = {first + i: Window(k[i], s[i], p[i], p[i], d[i], ceil, divide=divide) for i in (0, 1)}
    return b.slide(x, windows, "pool")


def adaptive(b: Builder, x: Value, size: list[int], divide: str) -> Value:
    """Adaptive pooling: a window where the input divides evenly, else torch's uneven bins."""
    axes: dict[int, Axis] = {}
    for i, m in enumerate(size):
        dim = len(x.dims) - 2 + i
        n = shape(x)[dim]
        if m == 1:
            axes[dim] = Full(divide and "valid")
        elif n % m == 0:
            axes[dim] = Window(n // m, n // m, divide=divide)
        else:
            bins = [(j * n // m, -(-(j + 1) * n // m)) for j in range(m)]
            most = max(hi - lo for lo, hi in bins)
            at = np.array([[*range(lo, hi), *[-1] * (most - hi + lo)] for lo, hi in bins])
            axes[dim] = Index(at, (at >= 0) / (at >= 0).sum(1, keepdims=True))
    if list(size) == [1, 1]:
        return b.slide(x, axes, "pool")
    b.rigid = True
    return b.slide(x, axes, "adaptive")


def pad(b: Builder, x: Value, amounts: list[int], value: Any = 0) -> Value | None:
    """Constant padding or cropping of channels or of whole axes."""
    windows: dict[int, Axis] = {}
    for i in range(0, len(amounts), 2):
        dim, before, after = len(x.dims) - 1 - i // 2, amounts[i], amounts[i + 1]
        if not (before or after):
            continue
        factors, n = x.dims[dim], shape(x)[dim]
        is_axis = b.whole_axis(x, dim, i // 2 + 1)[0] is not None if not factors else False
        if is_axis or any(f.axis in "hw" for f in factors):
            windows[dim] = Window(1, 1, before, after)
            continue
        middle = pick(b, x, dim, np.arange(n)[max(-before, 0) : n + min(after, 0)])
        joined = cat(b, [None, middle, None], dim, [max(before, 0), shape(middle)[dim], max(after, 0)])
        if joined is None:
            return None
        x = joined
    b.rigid = True
    return b.slide(x, windows, "structure") if windows else x


def tabled(
    b: Builder,
    x: Value,
    run: Callable[[torch.Tensor, int], torch.Tensor],
    inner: Sequence[Window | None] = (None, None),
) -> Value:
    """A map along each of the last two axes as torch itself tells it: `run` on one-hot columns.

    run: takes (1, n, n, 2) and the axis, returns (1, n, m, 2). inner: see axis.Index.
    """
    b.rigid = True
    axes: dict[int, Axis] = {}
    for i in (0, 1):
        dim = len(x.dims) - 2 + i
        n = shape(x)[dim]
        # two columns alike: torch 2.15 resizes maps of width 1 wrongly with antialiasing
        columns = torch.eye(n, dtype=torch.float64).view(1, n, n, 1).repeat(1, 1, 1, 2)
        table = run(columns, i)[0, :, :, 0].T.numpy()
        most = int((table != 0).sum(1).max())
        at = np.argsort(table == 0, axis=1, kind="stable")[:, :most]
        weights = np.take_along_axis(table, at, axis=1)
        at = np.where(weights != 0, at, -1)
        whole = (weights == 1).all()
        made = from_matrix(at, n, None if whole else weights)
        axes[dim] = replace(made, inner=inner[i]) if isinstance(made, Index) else made
    return b.slide(x, axes, "structure")


def resize(b: Builder, func: Any, x: Value, size: list[int], *more: Any) -> Value:
    """Interpolation; of a single position, copies."""
    if not x.spatial:
        return copies(b.same(x), (*shape(x)[:-2], *size))
    align = [m for m in more if isinstance(m, bool)]
    scales = [m for m in more if not isinstance(m, bool)] or [None, None]
    return tabled(b, x, lambda t, i: func(t, [size[i], 2], *align, scales[i], None))


def spread(
    b: Builder,
    x: Value,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    out: list[int],
) -> dict[int, Axis]:
    """The maps of a transposed convolution: output o hears input (o + padding - tap) / stride."""
    b.rigid = True
    axes: dict[int, Axis] = {}
    for i in range(len(kernel)):
        dim = len(x.dims) - len(kernel) + i
        taps = np.arange(kernel[i]) * dilation[i]
        there = np.add.outer(np.arange(out[i]) + padding[i], -taps)
        at, rest = np.divmod(there, stride[i])
        inside = (rest == 0) & (at >= 0) & (at < shape(x)[dim])
        axes[dim] = Index(np.where(inside, at, -1))
    return axes


def im2col(
    b: Builder,
    x: Value,
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """Every tap of a window as channels of its own: (1, C k k, h w)."""
    dims = x.dims
    taps = []
    for ty in range(kernel[0]):
        for tx in range(kernel[1]):
            windows: dict[int, Axis] = {}
            for i, tap in enumerate((ty, tx)):
                n, before = shape(x)[2 + i], padding[i] - tap * dilation[i]
                out = Window(kernel[i], stride[i], padding[i], padding[i], dilation[i]).out_size(n)
                after = (out - 1) * stride[i] + 1 - n - before
                windows[2 + i] = Window(1, stride[i], before, after)
            axes, dims = b.along(x, windows)
            taps.append(b.each(x, lambda i, a=axes: b.node("structure", [i], a)).labels)
    labels = np.concatenate([t.reshape(1, -1, 1, 1) for t in taps], axis=2).reshape(1, -1, 1)
    return Value(((), tidy([Factor("c", labels.shape[1])]), tidy([*dims[2], *dims[3]])), labels)


def col2im(
    b: Builder,
    x: Value,
    out: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """Sum taps back to where they came from: the transpose of im2col."""
    k = kernel[0] * kernel[1]
    sizes = [
        Window(kernel[i], stride[i], padding[i], padding[i], dilation[i]).out_size(out[i])
        for i in (0, 1)
    ]
    x = view(x, (1, shape(x)[1] // k, k, *sizes))
    taps = []
    for tap, (ty, tx) in enumerate(np.ndindex(*kernel)):
        part = _select(b, x, 2, tap)
        shift = [padding[0] - ty * dilation[0], padding[1] - tx * dilation[1]]
        axes = spread(b, part, [1, 1], stride, shift, [1, 1], out)
        taps.append(b.slide(part, axes, "structure"))
    return b.combine(taps)


def _pixel_unshuffle(b: Builder, x: Value, r: int) -> Value:
    _, c, h, w = shape(x)
    x = permute(view(x, (1, c, h // r, r, w // r, r)), [0, 1, 3, 5, 2, 4])
    return view(x, (1, c * r * r, h // r, w // r))


def _pixel_shuffle(b: Builder, x: Value, r: int) -> Value:
    _, c, h, w = shape(x)
    x = view(x, (1, c // r**2, r * r, h, w))
    if (x.labels != x.labels[:, :, :1]).any():
        raise Scrambled("channels of different history become positions")
    x = _select(b, x, 2, 0)
    return tabled(b, x, lambda t, i: t.repeat_interleave(r, 2))


def fractions(values: torch.Tensor) -> tuple[Fraction, ...]:
    """Weights of a fixed kernel as the simple fractions that they stand for."""
    return tuple(Fraction(float(v)).limit_denominator(10**6) for v in values)


def _first(f: Callable[..., Value]) -> Callable[..., Value]:
    return lambda b, x, *args, **kwargs: f(b, x)


TABLE: dict[str, Callable[..., Result]] = {
    "permute": lambda b, x, order: permute(x, [_dim(d, x) for d in order]),
    "transpose": _transpose,
    "t": lambda b, x: permute(x, list(range(len(x.dims)))[::-1]),
    "unsqueeze": lambda b, x, dim: insert(x, dim % (len(x.dims) + 1)),
    "squeeze": _squeeze,
    "repeat": _repeat,
    "slice": _slice,
    "select": _select,
    "split": _split,
    "unsafe_split": _split,
    "split_with_sizes": _split,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
    "flip": flip,
    "rot90": _rot90,
    "glu": _glu,
    "unbind": _unbind,
    "unfold": _unfold,
    "constant_pad_nd": pad,
    "mean": lambda b, x, dims=None, keep=False, **_: total(b, x, dims, keep, "valid"),
    "sum": lambda b, x, dims=None, keep=False, **_: total(b, x, dims, keep, kind="sum"),
    "amax": lambda b, x, dims=None, keep=False: total(b, x, dims, keep),
    "max": lambda b, x, dim=None, keep=False: total(b, x, dim if dim is None else [dim], keep),
    "amin": lambda b, x, dims=None, keep=False: total(b, x, dims, keep),
    "min": lambda b, x, dim=None, keep=False: total(b, x, dim if dim is None else [dim], keep),
    "var": lambda b, x, dims=None, keepdim=False, **_: total(b, x, dims, keepdim, "valid"),
    "std": lambda b, x, dims=None, keepdim=False, **_: total(b, x, dims, keepdim, "valid"),
    "linalg_vector_norm": lambda b, x, order=2, dims=None, keep=False, **_: total(b, x, dims, keep),
    "avg_pool2d": lambda b, x, k, s=None, p=0, ceil=False, include=True, divisor=None: pool(
        b, x, k, s, p, 1, ceil, "kernel" if include else "valid"
    ),
    "max_pool2d_with_indices": lambda b, x, k, s=None, p=0, d=1, ceil=False: pool(
        b, x, k, s, p, d, ceil
    ),
    "_adaptive_avg_pool2d": lambda b, x, size: adaptive(b, x, size, "kernel"),
    "adaptive_max_pool2d": lambda b, x, size: adaptive(b, x, size, ""),
    "_softmax": lambda b, x, dim, *_: softmax(b, x, dim),
    "_safe_softmax": lambda b, x, dim, *_: softmax(b, x, dim),
    "_log_softmax": lambda b, x, dim, *_: softmax(b, x, dim),
    "native_batch_norm": _first(Builder.same),
    "_native_batch_norm_legit_no_training": _first(Builder.same),
    "native_layer_norm": _first(Builder.same),
    "native_group_norm": _first(Builder.same),
    "_fused_rms_norm": _first(Builder.same),
    "pixel_shuffle": lambda b, x, r: _pixel_shuffle(b, x, r),
    "pixel_unshuffle": lambda b, x, r: _pixel_unshuffle(b, x, r),
}
