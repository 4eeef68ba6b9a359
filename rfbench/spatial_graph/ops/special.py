"""Operations that look at more than positions: shapes of constant tensors, values of fixed ones."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rfbench.spatial_graph.axis import Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.graph import Opaque, Reach, Witness
from rfbench.spatial_graph.layout import Scrambled, Value, insert, shape, view
from rfbench.spatial_graph.ops.convolve import Convolution, convolve, gated
from rfbench.spatial_graph.ops.table import matmul
from rfbench.spatial_graph.ops.views import cat, copies, pick, scatter
from rfbench.spatial_graph.ops.windows import col2im, im2col, resize, tabled
from rfbench.spatial_graph.trace import Op, Ref


class Run(Protocol):
    """What these functions need of the interpreter."""

    builder: Builder

    def value(self, ref: Any) -> Any:
        """The Value behind a Ref, None for a constant tensor."""

    def form(self, ref: Ref) -> tuple[int, ...]:
        """The recorded shape of a tensor."""

    def constant(self, ref: Ref) -> Tensor | None:
        """The values of a tensor that was made from buffers alone."""


def _convolution(run: Run, op: Op) -> Value:
    source, kernel, _, stride, padding, dilation, transposed, _, groups = op.args
    x, gate = run.value(source), run.value(kernel)
    if x is None:
        raise Scrambled("the weights, but not the map, depend on the input")
    forms = run.form(kernel), run.form(op.out)
    fixed = None if gate is not None else run.constant(kernel)
    conv = Convolution(*forms, stride, padding, dilation, groups, transposed, fixed)
    out = convolve(run.builder, x, conv)
    return out if gate is None else gated(run.builder, out, gate)


def _addmm(run: Run, op: Op) -> Value:
    bias, x, y = (run.value(r) for r in op.args[:3])
    if bias is not None:
        raise Scrambled("a bias depends on the input")
    return matmul(run.builder, x, y, (run.form(op.args[1]), run.form(op.args[2])))


def _matmul(run: Run, op: Op) -> Value | Opaque:
    x, y = (run.value(r) for r in op.args[:2])
    try:
        return matmul(run.builder, x, y, (run.form(op.args[0]), run.form(op.args[1])))
    except Scrambled:
        if x is None or y is None:
            raise
        # queries of one map meet keys of another (global queries of GCViT)
        return Opaque(Witness(Reach.GLOBAL, op.name, op.layer))


def _cat(run: Run, op: Op) -> Value | None:
    dim = op.args[1] if len(op.args) > 1 else 0
    sizes = [run.form(r)[dim] for r in op.args[0]]
    return cat(run.builder, [run.value(r) for r in op.args[0]], dim, sizes)


def _stack(run: Run, op: Op) -> Value | None:
    dim = op.args[1] if len(op.args) > 1 else 0
    dim %= len(run.form(op.out))
    parts = [run.value(r) for r in op.args[0]]
    parts = [p if p is None else insert(p, dim) for p in parts]
    return cat(run.builder, parts, dim, [1] * len(parts))


def _view(run: Run, op: Op) -> Value:
    return view(run.value(op.args[0]), run.form(op.out))


def _expand(run: Run, op: Op) -> Value:
    return copies(run.value(op.args[0]), run.form(op.out))


def _resize(run: Run, op: Op) -> Value:
    size = list(run.form(op.out)[-2:])
    more = [a for a in op.args[2:] if isinstance(a, bool | float) or a is None]
    return resize(run.builder, op.func, run.value(op.args[0]), size, *more)


def _slice_scatter(run: Run, op: Op) -> Value | None:
    x, source, *where = op.args
    dim, start, end, step = where + [0, None, None, 1][len(where) :]
    n = run.form(op.out)[dim]
    at = np.arange(n)[slice(start, end, step)]
    return scatter(run.builder, run.value(x), run.value(source), dim, at, n)


def _select_scatter(run: Run, op: Op) -> Value | None:
    x, source, dim, index = op.args
    n = run.form(op.out)[dim]
    value = run.value(source)
    source = insert(value, dim) if value is not None else None
    return scatter(run.builder, run.value(x), source, dim, np.array([index % n]), n)


def _copy(run: Run, op: Op) -> Value | None:
    value = run.value(op.args[1])
    return None if value is None else copies(run.builder.same(value), run.form(op.out))


def _index(run: Run, op: Op) -> Value:
    x, places = run.value(op.args[0]), op.args[1]
    if x is None or any(p is not None and run.value(p) is not None for p in places):
        raise Scrambled("an index depends on the input")
    dims = [i for i, p in enumerate(places) if p is not None]
    if len(dims) != 1 or len(run.form(places[dims[0]])) != 1:
        raise Scrambled("positions are picked by a table")
    dim = dims[0]
    at = run.constant(places[dim])
    if at is not None:
        return pick(run.builder, x, dim, at.numpy())
    alike = (x.labels == x.labels.take([0], axis=dim)).all()
    if alike and all(f.axis == "c" for f in x.dims[dim]):  # whichever it picks
        return pick(run.builder, x, dim, np.zeros(run.form(op.out)[dim], int))
    raise Scrambled("positions are picked by a table that is not known")


def _index_select(run: Run, op: Op) -> Value:
    x, dim, table = op.args
    at, value = run.constant(table), run.value(x)
    if at is None or value is None:
        raise Scrambled("positions are picked by a table that is not known")
    return pick(run.builder, value, dim, at.numpy())


def _reflect(run: Run, op: Op) -> Value:
    left, right, top, bottom = op.args[1]
    ends = [(top, bottom), (left, right)]
    x = run.value(op.args[0])
    inner = [Window(1, 1, *end) for end in ends]
    return tabled(run.builder, x, lambda t, i: op.func(t, [0, 0, *ends[i]]), inner)


def _roll(run: Run, op: Op) -> Value:
    x: Value = run.value(op.args[0])
    dims = op.args[2] if len(op.args) > 2 else []
    if not dims:
        raise Scrambled("positions are rolled into other rows")
    for shift, dim in zip(op.args[1], dims, strict=True):
        x = pick(run.builder, x, dim, np.roll(np.arange(shape(x)[dim]), shift))
    return x


def _im2col(run: Run, op: Op) -> Value:
    return im2col(run.builder, run.value(op.args[0]), *op.args[1:])


def _fourier(run: Run, op: Op) -> Opaque:
    return Opaque(Witness(Reach.GLOBAL, op.name, op.layer))


def _col2im(run: Run, op: Op) -> Value:
    return col2im(run.builder, run.value(op.args[0]), *op.args[1:])


def _restride(run: Run, op: Op) -> Value:
    x, size, _, *offset = (run.value(op.args[0]), *op.args[1:])
    if tuple(size) != run.form(op.args[0]) or x.spatial or any(offset):
        raise Scrambled("a tensor is read in another order than it is written")
    return run.builder.same(x)  # a pooled vector in channels-last order


WHOLE: dict[str, Callable[[Run, Op], Any]] = {
    "convolution": _convolution,
    "as_strided_": _restride,
    "addmm": _addmm,
    "mm": _matmul,
    "bmm": _matmul,
    "cat": _cat,
    "stack": _stack,
    "view": _view,
    "_unsafe_view": _view,
    "expand": _expand,
    "upsample_nearest2d": _resize,
    "_upsample_nearest_exact2d": _resize,
    "upsample_bilinear2d": _resize,
    "upsample_bicubic2d": _resize,
    "_upsample_bilinear2d_aa": _resize,
    "_upsample_bicubic2d_aa": _resize,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "copy": _copy,
    "index": _index,
    "reflection_pad2d": _reflect,
    "replication_pad2d": _reflect,
    "roll": _roll,
    "index_select": _index_select,
    "im2col": _im2col,
    "col2im": _col2im,
    "_fft_r2c": _fourier,
    "_fft_c2c": _fourier,
}

# element-wise, though not tagged so by torch
POINTWISE = {
    "alias", "clone", "_to_copy", "detach", "contiguous", "lift_fresh", "native_dropout",
    "hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "elu", "celu", "selu", "leaky_relu",
    "prelu", "_prelu_kernel", "rrelu_with_noise", "rrelu_with_noise_functional", "softplus",
    "softshrink", "hardshrink",
    "log_sigmoid_forward", "masked_fill", "where", "bitwise_not",
}  # fmt: skip
