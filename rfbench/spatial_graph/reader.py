"""Read a trace, operation by operation, into a spatial graph."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from rfbench.spatial_graph.alike import differing
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.constants import Constants, is_like
from rfbench.spatial_graph.draw import Draw
from rfbench.spatial_graph.draws import draws
from rfbench.spatial_graph.graph import SpatialGraph, is_map
from rfbench.spatial_graph.layout import SPATIAL, Scrambled, Value
from rfbench.spatial_graph.lost import farthest, reach_if_mixed, recurrence
from rfbench.spatial_graph.node import Opaque, Reach, Witness
from rfbench.spatial_graph.operations import Op, Ref, Trace, mapped
from rfbench.spatial_graph.ops import lookup
from rfbench.spatial_graph.ops.join import Joined, channels_for_positions, settled
from rfbench.spatial_graph.ops.registry import Constant
from rfbench.spatial_graph.outputs import last_map, main_output, whole_output
from rfbench.spatial_graph.parts import by_parts, shape_of
from rfbench.spatial_graph.size import Shape, Size
from rfbench.spatial_graph.trace import trace_module


def spatial_graph(
    module: nn.Module,
    size: Size,
    channels: int | None = None,
    inputs: Sequence[Shape] | None = None,
) -> SpatialGraph:
    """Trace a module on an input of `size` (along each axis) and reduce it to its spatial graph.

    channels, inputs: as for `trace_module`. Raises what made the network fail.
    """
    graph = read(trace_module(module, size, channels, inputs))
    if graph.failure is not None:
        raise graph.failure
    return graph


def unsupported_ops(trace: Trace) -> Counter[str]:
    """How often a trace calls each operation that has no handler and depends on the input."""
    seen, unknown = {*trace.inputs.values()}, Counter[str]()
    for op in trace.ops:
        if any(r.id in seen for r in op.given):
            seen.update(r.id for r in op.made)
            if lookup(op.func, bool(op.written)) is None:
                unknown[op.name] += 1
    return unknown


def read(trace: Trace) -> SpatialGraph:
    """The spatial graph of a trace."""
    return Reader(trace).run()


class Reader:
    """The Values of traced tensors, by number."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.builder = Builder(trace.size)
        self.constants = Constants(trace)
        self.builder.graph.channels = tuple(trace.shapes[i][1] for i in trace.inputs.values())
        starts = {k: self.builder.start(trace.shapes[i]) for k, i in trace.inputs.items()}
        if len(starts) > 1:
            self.builder.graph.inputs = starts
        self.values: dict[int, Value | Opaque] = {trace.inputs[k]: v for k, v in starts.items()}
        self.told: dict[int, Value] = {}  # named ones, where they are followed in another form
        self.named = {*trace.layers.values(), *trace.outputs.values()}

    def run(self) -> SpatialGraph:
        """The whole graph."""
        trace, graph = self.trace, self.builder.graph
        for i, op in enumerate(trace.ops):
            if i == trace.sized:
                graph.sized = self.builder.step
            self.constants.until = i
            if inputs := [self.values[r.id] for r in op.given if r.id in self.values]:
                source = self._draw(op)
                self._read(op, inputs)
                if source is not None:
                    graph.draws[self.builder.step] = source
            graph.chosen |= {d: self.builder.step for d, n in trace.chosen.items() if n == i}
        graph.failure, graph.program = trace.failure, tuple(op.name for op in trace.ops)
        self._name()
        if others := trace.others():
            self._settle(differing(graph, (Reader(other).run() for other in others)))
            self._name()
        chosen = main_output(trace)
        graph.output = whole_output(graph, graph.outputs.get(chosen)) if chosen else None
        several = len(trace.outputs) > 1
        graph.must_choose = several and not chosen
        if several and chosen and is_map(graph.output):
            graph.target = chosen
        elif chosen:
            graph.target = last_map(graph)
        return graph

    def _name(self) -> None:
        """Give the graph its layers and outputs."""
        trace, graph, values = self.trace, self.builder.graph, self.values | self.told
        graph.layers = {k: values[i] for k, i in trace.layers.items() if i in values}
        followed = {k: self.values[i] for k, i in trace.layers.items() if i in self.told}
        graph.followed = {k: v for k, v in followed.items() if isinstance(v, Value)}
        graph.outputs = {k: values[i] for k, i in trace.outputs.items() if i in values}

    def _draw(self, op: Op) -> Draw | None:
        """What draws at random in an operation that depends on the input, or one of its tensors."""
        if draws(op):
            return Draw(op.name, op.layer)
        known = self.trace.random
        given = [r.id for r in op.given if r.id in known and r.id not in self.values]
        return known[given[0]] if given and not is_like(op) else None

    def _settle(self, names: set[str]) -> None:
        """Lose the tensors that are others in other draws of what is drawn, or in later passes."""
        source, does = next(iter(self.trace.chosen), None), "gives"
        if source is None and self.trace.kept is not None:
            source, does = self.trace.kept, "keeps from one pass to the next"
        for number in {(self.trace.layers | self.trace.outputs)[name] for name in names}:
            assert source is not None
            reason = f"what it {does} decides what is read"
            self.told.pop(number, None)
            self.values[number] = Opaque(
                Witness(Reach.UNSUPPORTED, source.op, source.layer, reason)
            )

    def _read(self, op: Op, inputs: list[Value | Opaque]) -> None:
        """One operation that depends on the input."""
        shape = self.trace.shapes[op.made[0].id] if op.made else ()
        self.builder.begin(op.func, op.layer, shape)
        out = self._result(op, inputs)
        self._keep(op, out)
        made = {ref.id for ref in op.made} if op.written else set()
        if others := [i for i in op.written if i not in made and len(op.written) > 1]:
            lost = self.builder.opaque(Reach.UNSUPPORTED, "it writes to a view")
            known = replace(out, parts=()) if isinstance(out, Opaque) else lost
            self.values |= dict.fromkeys(others, known)

    def _result(self, op: Op, inputs: list[Value | Opaque]) -> Any:
        """What an operation returns: Values, or an Opaque that says why not."""
        if _cancels(op):
            return None
        opaque = [v for v in inputs if isinstance(v, Opaque)]
        if opaque:
            if all(v.parts for v in opaque) and (known := self._apart(op)) is not None:
                return known
            worst = replace(farthest(opaque, self.builder.graph.names), parts=())
            return self._passed_on(op, worst, len(inputs))
        if op.layer in self.trace.recurrent:
            return recurrence(self.builder, inputs, *self.trace.recurrent[op.layer])
        try:
            return self._handle(op)
        except Scrambled as error:
            witnesses = [self.builder.graph.witness(v) for v in inputs]
            widest = max(witnesses, key=lambda w: w.reach)
            if widest.reach == Reach.GLOBAL:
                return Opaque(widest)
            draw, reason = self._draw(op), str(error)
            if draw is not None and "random" not in reason:
                source = "it" if draw.op == op.name else draw
                reason = f"{reason}; {source} draws at random"
            lost = self.builder.opaque(Reach.UNSUPPORTED, reason, reach_if_mixed(op, inputs))
            return (
                replace(lost, parts=error.parts, dim=error.dim)
                if isinstance(error, Joined)
                else lost
            )
        except _UNEXPECTED as error:  # a form of the operation that its handler does not know
            reason = f"{type(error).__name__}: {error}"
            return self.builder.opaque(Reach.UNSUPPORTED, reason)

    def _handle(self, op: Op) -> Any:
        handler = lookup(op.func, bool(op.written))
        if handler is None:
            raise Scrambled("this operation is not known")
        args, kwargs = self._arguments(op)
        return handler(self.builder, *args, **kwargs)

    def _apart(self, op: Op) -> Any:
        """What an operation does to each part of joined positions; None where it mixes them."""
        args, kwargs = self._arguments(op)
        try:
            return by_parts(self.builder, op.func, args, kwargs)
        except (Scrambled, *_UNEXPECTED):
            return None

    def _arguments(self, op: Op) -> tuple[tuple, dict[str, Any]]:
        """What a handler gets."""
        args = mapped(Ref, self._argument, op.args)
        return args, mapped(Ref, self._argument, op.kwargs) if op.kwargs else {}

    def _argument(self, ref: Ref) -> Value | Opaque | Constant:
        """What a handler gets for a tensor."""
        if ref.id in self.values:
            return self.values[ref.id]
        known = self.constants
        values, zeros = lambda: known.values(ref), lambda: known.nonzero(ref)
        return Constant(self.trace.shapes[ref.id], values, zeros)

    def _passed_on(self, op: Op, worst: Opaque, inputs: int) -> Opaque:
        """The result where an argument is opaque: that argument, or what attention makes of it.

        A sum over all keys is windowed where positions stay outside of the second matrix.
        """
        if inputs == 1 or "bmm" not in op.name:
            return worst
        known = [self.values.get(ref.id) for ref in op.given]
        lost = any(isinstance(v, Opaque) and v.if_mixed == Reach.GLOBAL for v in known)
        if lost and worst.witness.reach == Reach.WINDOWED:  # rows, and then columns
            return self.builder.opaque(Reach.GLOBAL)
        if not worst.if_mixed:
            return worst
        keys = self.values.get(op.args[1].id)
        if not isinstance(keys, Value):
            return self.builder.opaque(worst.if_mixed)
        outside = {f.axis for i in (0, 2) for f in keys.dims[i]} & {*SPATIAL}
        return self.builder.opaque(Reach.WINDOWED if outside else Reach.GLOBAL)

    def _keep(self, op: Op, out: Any) -> None:
        """Store results; check the shapes that follow from the factors against the traced ones."""
        made = [op.out] if isinstance(op.out, Ref) else list(op.out or ())  # checks return none
        single = isinstance(out, Opaque)
        outs = out if isinstance(out, list) else [out] * (len(made) if single else 1)
        for ref, value in zip(made, outs, strict=False):
            if not isinstance(ref, Ref):
                continue
            if value is None or (isinstance(value, Value) and not value.depends_on_input):
                self.values.pop(ref.id, None)  # written to in place, by a constant
                continue
            shape = self.trace.shapes[ref.id]
            if isinstance(value, Value) and value.shape != shape:
                reason = f"it gives {shape}, the spatial graph {value.shape}"
                value = self.builder.opaque(Reach.UNSUPPORTED, reason)
            if isinstance(value, Opaque) and value.parts and shape_of(value) != shape:
                value = replace(value, parts=())  # another result of the operation
            if isinstance(value, Value) and ref.id in self.named:
                if channels_for_positions(self.builder, value):
                    value = self._named(value, len(outs))
                    self.told[ref.id] = settled(self.builder, value)
                    self.builder.named.update(self.told[ref.id].share)
                else:
                    value = self._named(settled(self.builder, value), len(outs))
            self.values[ref.id] = value

    def _named(self, value: Value, results: int) -> Value:
        """What a layer or the network returns, of nodes of its own: so are paths through it."""
        if results > 1 or not self.builder.is_new(value):
            value = self.builder.same(value)
        self.builder.named.update(value.share)
        return value


_UNEXPECTED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _cancels(op: Op) -> bool:
    """y - y: zeros, whatever y is."""
    same = op.name.startswith("aten.sub.") and op.args[0] == op.args[1]
    return same and op.kwargs.get("alpha", 1) == 1
