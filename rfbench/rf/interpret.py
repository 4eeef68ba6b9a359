"""Read a recording operation by operation into a spatial graph, by the table below."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from rfbench.errors import RfbenchError
from rfbench.rf import ops
from rfbench.rf.axis import Axis, Window
from rfbench.rf.build import Builder
from rfbench.rf.graph import Opaque, Reach, SpatialGraph, Witness, is_map
from rfbench.rf.layout import (
    CONSTANT,
    Factor,
    Scrambled,
    Value,
    channels,
    shape,
    solid,
    tidy,
    view,
)
from rfbench.rf.record import Op, Recording, Ref, record


class Interpreter:
    """Values of the recorded tensors; one method for operations that need more than positions."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.builder = Builder(recording.size)
        first = self.builder.start(recording.shapes[recording.input])
        self.values: dict[int, Value | Opaque] = {recording.input: first}
        self._constants: dict[int, Tensor | None] = {}
        self._written = {i for op in recording.ops for i in op.written}
        self.makers = {r.id: op for op in recording.ops for r in tree_leaves(op.out) if _is(r)}

    def run(self) -> SpatialGraph:
        """The whole graph."""
        named = set(self.recording.layers.values())
        for op in self.recording.ops:
            inputs = [self.values[r.id] for r in tree_leaves((op.args, op.kwargs)) if self.knows(r)]
            if not inputs:
                continue
            self.builder.begin(op.name, op.layer)
            self.keep(op, self.result(op, inputs), named)
            if op.written:
                why = Witness(Reach.UNSUPPORTED, op.name, op.layer, "it writes to a view")
                self.values |= dict.fromkeys(op.written, Opaque(why))
        graph = self.builder.graph
        layers = self.recording.layers
        graph.layers = {name: self.values[i] for name, i in layers.items() if i in self.values}
        out = self.recording.output
        graph.output = self.values.get(out) if out is not None else None
        graph.target = last_map(graph)
        return graph

    def knows(self, ref: Any) -> bool:
        """Whether a leaf of the arguments is a tensor that depends on the input."""
        return _is(ref) and ref.id in self.values

    def value(self, ref: Any) -> Any:
        """The Value behind a Ref, None for a constant tensor."""
        return self.values.get(ref.id)

    def form(self, ref: Ref) -> tuple[int, ...]:
        """The recorded shape of a tensor."""
        return self.recording.shapes[ref.id]

    def result(self, op: Op, inputs: list[Value | Opaque]) -> Any:
        """What an operation returns: Values, or an Opaque with a witness."""
        blind = [v for v in inputs if isinstance(v, Opaque)]
        if blind:
            worst = max(blind, key=_gravity)
            if worst.promise and len(inputs) > 1 and "bmm" in op.name:
                return Opaque(Witness(self.attention(op) or worst.promise, op.name, op.layer))
            return worst
        if op.layer in self.recording.recurrent:
            return Opaque(Witness(Reach.GLOBAL, "recurrence", op.layer))
        try:
            return self.apply(op)
        except Scrambled as error:
            seen = [self.builder.graph.witness(v) for v in inputs]
            worst = max(seen, key=lambda w: w.reach)
            if worst.reach == Reach.GLOBAL:
                return Opaque(worst)
            witness = Witness(Reach.UNSUPPORTED, op.name, op.layer, str(error))
            return Opaque(witness, self.promise(op, inputs))
        except _UNFORESEEN as error:  # a form of the operation that the table does not know
            reason = f"{type(error).__name__}: {error}"
            return Opaque(Witness(Reach.UNSUPPORTED, op.name, op.layer, reason))

    def attention(self, op: Op) -> Reach | None:
        """What a sum over all keys is, by whether positions stay outside of the second matrix."""
        values = self.value(op.args[1])
        if not isinstance(values, Value):
            return None
        left = {f.axis for i in (0, 2) for f in values.dims[i]} & {"h", "w"}
        return Reach.WINDOWED if left else Reach.GLOBAL

    def promise(self, op: Op, inputs: list[Value | Opaque]) -> Reach | None:
        """What attention over a tensor will be whose positions are all there, but rearranged.

        Class tokens joined to the map, or the shifts of relative positions: global where one row
        holds all positions, windowed where windows were cut into the batch.
        """
        if not any(word in op.name for word in ("cat", "pad", "slice", "view", "index", "pool")):
            return None
        cut = any(f.axis in "hw" for v in inputs if isinstance(v, Value) for f in v.dims[0])
        return Reach.WINDOWED if cut else Reach.GLOBAL

    def keep(self, op: Op, out: Any, named: set[int]) -> None:
        """Store results; check the shapes that follow from the factors against the recorded."""
        refs = [op.out] if _is(op.out) else list(op.out)
        blind = isinstance(out, Opaque)
        outs = out if isinstance(out, list) else [out] * (len(refs) if blind else 1)
        for ref, value in zip(refs, outs, strict=False):
            if not _is(ref) or value is None or (isinstance(value, Value) and not value.alive):
                continue
            if isinstance(value, Value) and shape(value) != self.form(ref):
                reason = f"it gives {self.form(ref)}, the spatial graph {shape(value)}"
                value = Opaque(Witness(Reach.UNSUPPORTED, op.name, op.layer, reason))
            if isinstance(value, Value) and ref.id in named:
                value = self.builder.same(value)  # paths through it are its own
            self.values[ref.id] = value

    def apply(self, op: Op) -> Any:
        """Run the table's entry for an operation."""
        args = tree_map_only(Ref, self.value, op.args)
        kwargs = tree_map_only(Ref, self.value, op.kwargs)
        name = op.name.removeprefix("aten.")
        base = name.split(".")[0]
        if base in WHOLE:
            return WHOLE[base](self, op)
        if base in ops.TABLE:
            return ops.TABLE[base](self.builder, *args, **kwargs)
        if base.endswith("_like") or base.startswith("new_") or base in ("zero", "fill"):
            return self.filled(op)
        if torch.Tag.pointwise in op.func.tags or base in POINTWISE:
            values = [v for v in tree_leaves((args, kwargs), is_leaf=_blind) if _blind(v)]
            first = op.out if _is(op.out) else op.out[0]  # activations may return a buffer as well
            return ops.pointwise(self.builder, base, values, self.form(first))
        raise Scrambled("this operation is not known")

    def filled(self, op: Op) -> None:
        """A tensor with the form of another, and none of its values."""
        if any(self.knows(r) for r in op.args[1:]):
            raise Scrambled("a tensor is filled with a value that depends on the input")

    def constant(self, ref: Ref) -> Tensor | None:
        """The values of a tensor that was made from buffers alone; None where weights take part."""
        if ref.id not in self._constants:
            self._constants[ref.id] = self._evaluate(ref)
        return self._constants[ref.id]

    def _evaluate(self, ref: Ref) -> Tensor | None:
        if ref.id in self.recording.fixed:
            fixed = self.recording.fixed[ref.id]
            return None if fixed.is_meta else fixed
        op = self.makers.get(ref.id)
        if op is None or not _is(op.out) or ref.id in self.values or ref.id in self._written:
            return None
        inputs = [r for r in tree_leaves((op.args, op.kwargs)) if _is(r)]
        if ref in inputs:  # the operation hands its argument on
            return None
        refs = {r.id: self.constant(r) for r in inputs}
        made = op.name.split(".")[1] in _FACTORIES
        if any(t is None for t in refs.values()) or not (refs or made):
            return None
        args, kwargs = tree_map_only(Ref, lambda r: refs[r.id], (op.args, op.kwargs))
        return op.func(*args, **(kwargs | {"device": torch.device("cpu")} if made else kwargs))


_FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"}
_UNFORESEEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _gravity(value: Opaque) -> tuple[bool, bool]:
    """Order of opaque tensors: lost for good, mixed already, rearranged and yet to be mixed."""
    mixed = value.witness.reach < Reach.UNSUPPORTED
    return not mixed and value.promise is None, mixed


def _is(leaf: Any) -> bool:
    return isinstance(leaf, Ref)


def _blind(leaf: Any) -> bool:
    return isinstance(leaf, Value | Opaque)


# -- operations that look at more than positions -----------------------------------------------------


def _convolution(run: Interpreter, op: Op) -> Value:
    b = run.builder
    source, kernel, _, stride, padding, dilation, transposed, _, groups = op.args
    x, weight = run.value(source), run.form(kernel)
    if x is None:
        raise Scrambled("the weights, but not the map, depend on the input")
    size = run.form(op.out)
    first = len(x.dims) - (len(weight) - 2)
    x, weights = _unfolded(b, x, first - 1, groups)
    k = weight[2:]
    taps = _fixed_taps(run.constant(kernel), groups) or [None] * len(k)
    windows: dict[int, Axis] = {}
    for i, dim in enumerate(range(first, len(x.dims))):
        if k[i] == stride[i] == 1 and padding[i] == 0:
            continue
        windows[dim] = Window(k[i], stride[i], padding[i], padding[i], dilation[i], taps=taps[i])
    if transposed:
        windows = ops.spread(b, x, k, stride, padding, dilation, size[2:])
    for dim in windows:
        x = b.unfurl(x, dim)
    rows, x, windows = _over_channels(x, windows)
    axes, dims = b.along(x, windows)
    channel, rank = first - 1, len(x.dims)
    rows = np.moveaxis(rows, channel, rank - 1)  # behind it only taps over channels
    rows = rows.reshape(*rows.shape[: rank - 1], groups, -1)
    labels = b.mixed(rows, lambda r: b.node("conv", r, axes, weights))
    labels = np.moveaxis(np.repeat(labels, size[channel] // groups, axis=-1), -1, channel)
    dims = (*dims[:channel], tidy([Factor("c", size[channel])]), *dims[channel + 1 :])
    out = Value(dims, labels)
    gate = run.value(kernel)
    return out if gate is None else _gated(b, out, gate)


def _unfolded(b: Builder, x: Value, dim: int, groups: int) -> tuple[Value, int]:
    """Positions that a space-to-depth put among the channels become channels or a window first.

    Returns the tensor and how many of the convolution's weights each of its channels has.
    """
    x = solid(x, dim)
    if all(f.axis == "c" for f in x.dims[dim]):
        return x, 1
    if groups > 1:
        return ops.spelled(b, x, dim), 1
    factors, form = x.dims[dim], shape(x)
    x = view(x, (*form[:dim], *(f.size for f in factors), *form[dim + 1 :]))
    x = b.contract(x, [dim + i for i, f in enumerate(factors) if f.axis in "hw"], "sum")
    n = channels(tidy(list(factors)))
    return view(x, (*form[:dim], n, *form[dim + 1 :])), form[dim] // n


def _over_channels(
    x: Value, windows: dict[int, Axis]
) -> tuple[np.ndarray, Value, dict[int, Axis]]:
    """Windows over channels instead of positions (pixels of a patch, ECA across channels).

    Returns the labels with a last axis of taps for each, the tensor as such a window leaves it, and
    the windows over positions.
    """
    rows, kept = x.labels, {}
    for dim, window in windows.items():
        if not x.dims[dim] or any(f.axis in "hw" for f in x.dims[dim]):
            kept[dim] = window
            continue
        at = window.matrix(shape(x)[dim])
        rows = solid(Value(x.dims, rows), dim).labels
        edge = np.full_like(rows.take([0], axis=dim), CONSTANT)  # -1 in `at`: the last
        rows = np.concatenate([rows, edge], axis=dim).take(at, axis=dim)
        rows = np.moveaxis(rows, dim + 1, -1)
        x = Value((*x.dims[:dim], tidy([Factor("c", len(at))]), *x.dims[dim + 1 :]), x.labels)
    return rows, x, kept


def _gated(b: Builder, out: Value, gate: Value) -> Value:
    """A convolution whose weights depend on the input (CondConv): a context."""
    if gate.spatial:
        raise Scrambled("the weights of a convolution depend on the position")
    gate = b.contract(gate, list(range(len(gate.dims))), "pool")
    return b.combine([out, gate], "product")


def _fixed_taps(weight: Tensor | None, groups: int) -> list | None:
    """One-dimensional taps (y, x) of a depthwise fixed kernel, such as BlurPool's binomial.

    None: every tap counts one, as in a learned kernel.
    """
    if weight is None:
        return None
    alike = weight.dim() == 4 and weight.shape[:2] == (groups, 1) and (weight == weight[:1]).all()
    if alike and (weight >= 0).all():
        kernel = weight[0, 0].double()
        y, x, whole = kernel.sum(1), kernel.sum(0), kernel.sum()
        if torch.allclose(torch.outer(y, x) / whole, kernel, rtol=1e-6):
            return [ops.fractions(y), ops.fractions(x / whole)]
    if (weight == 0).any():
        raise Scrambled("a fixed kernel with zeros")
    return None


def _addmm(run: Interpreter, op: Op) -> Value:
    bias, x, y = (run.value(r) for r in op.args[:3])
    if bias is not None:
        raise Scrambled("a bias depends on the input")
    return ops.matmul(run.builder, x, y, (run.form(op.args[1]), run.form(op.args[2])))


def _matmul(run: Interpreter, op: Op) -> Value | Opaque:
    x, y = (run.value(r) for r in op.args[:2])
    try:
        return ops.matmul(run.builder, x, y, (run.form(op.args[0]), run.form(op.args[1])))
    except Scrambled:
        if x is None or y is None:
            raise
        # queries of one map meet keys of another (global queries of GCViT)
        return Opaque(Witness(Reach.GLOBAL, op.name, op.layer))


def _cat(run: Interpreter, op: Op) -> Value:
    dim = op.args[1] if len(op.args) > 1 else 0
    sizes = [run.form(r)[dim] for r in op.args[0]]
    return ops.cat(run.builder, [run.value(r) for r in op.args[0]], dim, sizes)


def _stack(run: Interpreter, op: Op) -> Value:
    dim = op.args[1] if len(op.args) > 1 else 0
    dim %= len(run.form(op.out))
    parts = [run.value(r) for r in op.args[0]]
    parts = [p if p is None else ops.insert(p, dim) for p in parts]
    return ops.cat(run.builder, parts, dim, [1] * len(parts))


def _view(run: Interpreter, op: Op) -> Value:
    return view(run.value(op.args[0]), run.form(op.out))


def _expand(run: Interpreter, op: Op) -> Value:
    return ops.copies(run.value(op.args[0]), run.form(op.out))


def _resize(run: Interpreter, op: Op) -> Value:
    size = list(run.form(op.out)[-2:])
    more = [a for a in op.args[2:] if isinstance(a, bool | float) or a is None]
    return ops.resize(run.builder, op.func, run.value(op.args[0]), size, *more)


def _slice_scatter(run: Interpreter, op: Op) -> Value:
    x, source, dim, start, end, step = (*op.args, *(0, None, None, 1)[len(op.args) - 2 :])
    n = run.form(op.out)[dim]
    at = np.arange(n)[slice(start, end, step)]
    return ops.scatter(run.builder, run.value(x), run.value(source), dim, at, n)


def _select_scatter(run: Interpreter, op: Op) -> Value:
    x, source, dim, index = op.args
    n = run.form(op.out)[dim]
    value = run.value(source)
    source = ops.insert(value, dim) if value is not None else None
    return ops.scatter(run.builder, run.value(x), source, dim, np.array([index % n]), n)


def _copy(run: Interpreter, op: Op) -> Value | None:
    value = run.value(op.args[1])
    return None if value is None else ops.copies(run.builder.same(value), run.form(op.out))


def _index(run: Interpreter, op: Op) -> Value:
    x, places = run.value(op.args[0]), op.args[1]
    if x is None or any(p is not None and run.value(p) is not None for p in places):
        raise Scrambled("an index depends on the input")
    dims = [i for i, p in enumerate(places) if p is not None]
    if len(dims) != 1 or len(run.form(places[dims[0]])) != 1:
        raise Scrambled("positions are picked by a table")
    dim = dims[0]
    at = run.constant(places[dim])
    if at is not None:
        return ops.pick(run.builder, x, dim, at.numpy())
    alike = (x.labels == x.labels.take([0], axis=dim)).all()
    if alike and all(f.axis == "c" for f in x.dims[dim]):  # whichever it picks
        return ops.pick(run.builder, x, dim, np.zeros(run.form(op.out)[dim], int))
    raise Scrambled("positions are picked by a table that is not known")


def _index_select(run: Interpreter, op: Op) -> Value:
    x, dim, table = op.args
    at, value = run.constant(table), run.value(x)
    if at is None or value is None:
        raise Scrambled("positions are picked by a table that is not known")
    return ops.pick(run.builder, value, dim, at.numpy())


def _reflect(run: Interpreter, op: Op) -> Value:
    left, right, top, bottom = op.args[1]
    ends = [(top, bottom), (left, right)]
    x = run.value(op.args[0])
    inner = [Window(1, 1, *end) for end in ends]
    return ops.tabled(run.builder, x, lambda t, i: op.func(t, [0, 0, *ends[i]]), inner)


def _roll(run: Interpreter, op: Op) -> Value:
    x, dims = run.value(op.args[0]), op.args[2] if len(op.args) > 2 else []
    if not dims:
        raise Scrambled("positions are rolled into other rows")
    for shift, dim in zip(op.args[1], dims, strict=True):
        x = ops.pick(run.builder, x, dim, np.roll(np.arange(shape(x)[dim]), shift))
    return x


def _im2col(run: Interpreter, op: Op) -> Value:
    return ops.im2col(run.builder, run.value(op.args[0]), *op.args[1:])


def _fourier(run: Interpreter, op: Op) -> Opaque:
    return Opaque(Witness(Reach.GLOBAL, op.name, op.layer))


def _col2im(run: Interpreter, op: Op) -> Value:
    return ops.col2im(run.builder, run.value(op.args[0]), *op.args[1:])


def _restride(run: Interpreter, op: Op) -> Value:
    x, size, _, *offset = (run.value(op.args[0]), *op.args[1:])
    if tuple(size) != run.form(op.args[0]) or x.spatial or any(offset):
        raise Scrambled("a tensor is read in another order than it is written")
    return run.builder.same(x)  # a pooled vector in channels-last order


WHOLE: dict[str, Callable[[Interpreter, Op], Any]] = {
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
    "alias", "clone", "_to_copy", "detach", "hardswish", "hardsigmoid", "silu", "mish", "elu", "celu",
    "selu", "leaky_relu", "prelu", "_prelu_kernel", "rrelu", "softplus", "softshrink", "hardshrink",
    "hardtanh", "hardtanh_", "log_sigmoid_forward", "native_dropout", "lift_fresh",
    "contiguous", "masked_fill", "where", "bitwise_not", "rrelu_with_noise",
}  # fmt: skip


def last_map(graph: SpatialGraph) -> str:
    """The layer of the last map that the output depends on, ahead of any adaptive pooling.

    '' where the output is itself a map of no layer, or no layer has a map.
    """
    if not isinstance(graph.output, Value):
        return ""
    behind = graph.ancestors(set(graph.share(graph.output)))
    ahead: set[int] = set()  # nodes that the input reaches past adaptive pooling
    for i, node in enumerate(graph.nodes):
        if node.kind != "adaptive" and (i == 0 or not ahead.isdisjoint(node.sources)):
            ahead.add(i)
    last, newest = "", -1
    for name, value in graph.layers.items():
        if isinstance(value, Value) and is_map(value):
            share = set(graph.share(value))
            if share and share <= behind & ahead and max(share) >= newest:
                last, newest = name, max(share)
    return last


def spatial_graph(
    module: nn.Module, size: tuple[int, int], channels: int | None = None
) -> SpatialGraph:
    """Record a module on an input of `size` (H, W) and reduce it to its spatial graph."""
    return Interpreter(record(module, size, channels)).run()
