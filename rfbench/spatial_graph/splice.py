"""The trace of a network of which some layers have changed, without running the network again.

A changed layer that returns a map of the same size leaves all other operations as they were. So
only the layer is run, as it was and as it is, on a map of the size that it was given: the first
has to give the very operations of the trace, the second takes their place.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from torch import nn

from rfbench.errors import RfbenchError
from rfbench.spatial_graph.kept import LIBRARIES
from rfbench.spatial_graph.operations import Op, Ref, Trace, mapped
from rfbench.spatial_graph.trace import trace_module

Layers = Mapping[str, tuple[nn.Module, nn.Module]]  # by path: as it was, as it is


class _Unlike(Exception):
    """The network has to be run."""


@dataclass
class _Run:
    """The operations first ... last - 1 of a trace, which one call of a layer made."""

    layer: str
    first: int
    last: int


class _Whole:
    """The trace of the network: what depends on its input, and where each tensor is read last."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.ops = trace.ops if trace.forward is None else trace.forward
        self.made = {*trace.inputs.values(), *(ref.id for op in self.ops for ref in op.made)}
        self.last_read = {ref.id: i for i, op in enumerate(self.ops) for ref in op.given}
        returned = (*trace.layers.values(), *trace.outputs.values())
        self.last_read |= dict.fromkeys(returned, len(self.ops))


def spliced(trace: Trace, module: nn.Module, layers: Layers) -> Trace | None:
    """What tracing the network with the changed layers would give; None where it has to be run.

    module: as it was traced. Only networks of libraries are taken: the code of others might look
    at what has changed, a layer's stride.
    """
    drawn = trace.random or trace.chosen or trace.kept  # which other traces have as well
    if trace.failure is not None or drawn or not _is_of_libraries(module):
        return None
    try:
        return _spliced(trace, layers)
    except (_Unlike, RfbenchError):
        return None


def _is_of_libraries(module: nn.Module) -> bool:
    return all(
        type(m).__module__.partition(".")[0] in LIBRARIES
        and "forward" not in vars(m)
        and not (m._forward_hooks or m._forward_pre_hooks)
        for m in module.modules()
    )


def _spliced(trace: Trace, layers: Layers) -> Trace:
    whole = _Whole(trace)
    every = whole.ops
    numbers = count(max(trace.shapes) + 1)
    new = replace(trace, shapes={**trace.shapes}, fixed={**trace.fixed}, sized=None)
    inner: dict[str, dict[str, int]] = {}  # by label of a layer: what layers inside it returned
    ops: list[Op] = []
    starts: dict[int, int] = {}  # where each operation of the trace is now
    calls: Counter[str] = Counter()
    at = 0
    for run in _runs(whole, layers):
        starts |= zip(range(at, run.first + 1), count(len(ops)), strict=False)
        ops += every[at : run.first]
        starts |= dict.fromkeys(range(run.first, run.last), len(ops))
        calls[run.layer] += 1
        suffix = f"#{calls[run.layer]}" if calls[run.layer] > 1 else ""
        out = Ref(trace.layers[run.layer + suffix])
        piece, ref = _piece(whole, run, out, layers[run.layer])
        to = _renumbered(piece, ref, out, numbers)
        more, before = _of_layer(piece)
        if piece.sized is not None and new.sized is None:
            new.sized = len(ops) + piece.sized - before
        new.shapes |= {to[i].id: shape for i, shape in piece.shapes.items()}
        new.fixed |= {to[i].id: values for i, values in piece.fixed.items()}
        inner[run.layer + suffix] = {
            f"{run.layer}.{name}{suffix}": to[i].id for name, i in piece.layers.items()
        }
        ops += [_moved(op, to, run.layer) for op in more]
        at = run.last
    starts |= zip(range(at, len(every) + 1), count(len(ops)), strict=False)
    ops += every[at:]
    if trace.sized is not None:
        new.sized = min(starts[trace.sized], len(ops) if new.sized is None else new.sized)
    new.layers = {}
    for name, number in trace.layers.items():
        new.layers |= inner.get(name, {}) | {name: number}
    new.ops = ops[: starts[len(trace.ops)]]
    new.forward = None if trace.forward is None else ops
    return new


def _runs(whole: _Whole, layers: Layers) -> list[_Run]:
    """The operations of every call of the layers, in their order."""
    runs: list[_Run] = []
    for i, op in enumerate(whole.ops):
        if op.layer not in layers:
            continue
        if runs and runs[-1].layer == op.layer and runs[-1].last == i:
            runs[-1].last += 1
        else:
            runs.append(_Run(op.layer, i, i + 1))
    made = Counter(run.layer for run in runs)
    called = Counter(name.partition("#")[0] for name in whole.trace.layers)
    if any(made[name] != called[name] for name in layers):
        raise _Unlike  # two calls in a row, or operations of the layer's own parts between them
    return runs


def _piece(
    whole: _Whole, run: _Run, out: Ref, layer: tuple[nn.Module, nn.Module]
) -> tuple[Trace, Ref]:
    """The trace of a changed layer alone, and the tensor of the network that it is given."""
    trace, ops = whole.trace, whole.ops[run.first : run.last]
    own = {ref.id for op in ops for ref in op.made}
    given = {ref for op in ops for ref in op.given if ref.id in whole.made and ref.id not in own}
    if len(given) != 1 or out.id not in own:
        raise _Unlike
    ref = given.pop()
    read = any(whole.last_read.get(i, -1) >= run.last for i in own - {out.id})
    if read or any(op.written for op in ops):
        raise _Unlike
    shape = trace.shapes[ref.id]
    if len(shape) < 3 or shape[0] != 1:
        raise _Unlike
    was, now = (trace_module(part, shape[2:], shape[1]) for part in layer)
    _check_alike(was, ops, ref)
    if [now.shapes[i] for i in now.outputs.values()] != [trace.shapes[out.id]]:
        raise _Unlike
    if (
        now.failure is not None
        or len(now.inputs) != 1
        or set(now.inputs.values()) == set(now.outputs.values())
    ):
        raise _Unlike
    return now, ref


def _check_alike(alone: Trace, ops: Sequence[Op], ref: Ref) -> None:
    """Raise where the layer alone does anything else than it did in the network."""
    to = {alone.inputs["input.0"]: ref}
    back = {ref: alone.inputs["input.0"]}

    def paired(one: Any, other: Any) -> bool:
        if isinstance(one, Ref) and isinstance(other, Ref):
            return (
                to.setdefault(one.id, other) == other and back.setdefault(other, one.id) == one.id
            )
        if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
            return all(map(paired, one, other))
        return type(one) is type(other) and bool(one == other)

    mine, _ = _of_layer(alone)
    if alone.failure is not None or len(mine) != len(ops):
        raise _Unlike
    for a, b in zip(mine, ops, strict=True):
        same = a.func is b.func and paired(a.args, b.args) and paired(a.out, b.out)
        if not same or a.kwargs != b.kwargs or a.layer:
            raise _Unlike


def _of_layer(alone: Trace) -> tuple[list[Op], int]:
    """The operations of a layer's own trace behind those that make its input, which are so many."""
    every = alone.ops if alone.forward is None else alone.forward
    made = [i for i, op in enumerate(every) if alone.inputs["input.0"] in [r.id for r in op.made]]
    first = made[0] + 1 if made else 0
    return every[first:], first


def _renumbered(piece: Trace, given: Ref, out: Ref, numbers: Any) -> dict[int, Ref]:
    """The tensors of a layer's own trace as those of the network's."""
    to = {piece.inputs["input.0"]: given} | dict.fromkeys(piece.outputs.values(), out)
    return to | {i: Ref(next(numbers)) for i in piece.shapes if i not in to}


def _moved(op: Op, to: Mapping[int, Ref], layer: str) -> Op:
    """An operation of a layer's own trace as one of the network's."""

    def there(ref: Ref) -> Ref:
        return to[ref.id]

    args, kwargs, out = mapped(Ref, there, (op.args, op.kwargs, op.out))
    name = f"{layer}.{op.layer}" if op.layer else layer
    return Op(op.func, args, kwargs, out, name, tuple(to[i].id for i in op.written))
