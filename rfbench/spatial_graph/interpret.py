"""Read a recording operation by operation into a spatial graph, by the table below."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.graph import Opaque, Reach, SpatialGraph, Witness, is_map
from rfbench.spatial_graph.layout import Scrambled, Value, shape
from rfbench.spatial_graph.ops.special import POINTWISE, WHOLE
from rfbench.spatial_graph.ops.table import TABLE, pointwise
from rfbench.spatial_graph.trace import Op, Recording, Ref, record


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
            out = self.result(op, inputs)
            if len(op.written) > 1 and not isinstance(out, Opaque):
                why = "it writes to a view"
                out = Opaque(Witness(Reach.UNSUPPORTED, op.name, op.layer, why))
            self.keep(op, out, named)
            if len(op.written) > 1:
                self.values |= dict.fromkeys(op.written, out)
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
            widest = max(seen, key=lambda w: w.reach)
            if widest.reach == Reach.GLOBAL:
                return Opaque(widest)
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
            if not _is(ref):
                continue
            if value is None or (isinstance(value, Value) and not value.alive):
                self.values.pop(ref.id, None)  # written to in place, by a constant
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
        base = op.name.removeprefix("aten.").split(".")[0]
        base = base.removesuffix("_") if op.written else base
        if base in WHOLE:
            return WHOLE[base](self, op)
        if base in TABLE:
            return TABLE[base](self.builder, *args, **kwargs)
        if base.endswith("_like") or base.startswith("new_") or base in ("zero", "fill"):
            return self.filled(op)
        if torch.Tag.pointwise in op.func.tags or base in POINTWISE:
            values = [v for v in tree_leaves((args, kwargs), is_leaf=_blind) if _blind(v)]
            first = op.out if _is(op.out) else op.out[0]  # activations may return a buffer as well
            return pointwise(self.builder, base, values, self.form(first))
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
        if made or "device" in kwargs:
            kwargs |= {"device": torch.device("cpu")}
        out = op.func(*args, **kwargs)
        return out if isinstance(out, Tensor) and not out.is_meta else None


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
    whole = set(graph.share(graph.output)) if is_map(graph.output) else set()
    last, newest = "", -1
    for name, value in graph.layers.items():
        if isinstance(value, Value) and is_map(value):
            share = set(graph.share(value))
            if whole and whole <= ahead and share != whole:  # the output itself is the last map
                continue
            if share and share <= behind & ahead and max(share) >= newest:
                last, newest = name, max(share)
    return last


def spatial_graph(
    module: nn.Module, size: tuple[int, int], channels: int | None = None
) -> SpatialGraph:
    """Record a module on an input of `size` (H, W) and reduce it to its spatial graph."""
    return Interpreter(record(module, size, channels)).run()
