"""Tensors whose positions are no longer known: how far they look, and what becomes of them."""

from dataclasses import replace

from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Value
from rfbench.spatial_graph.node import Opaque, Reach, Witness
from rfbench.spatial_graph.operations import Op


def farthest(opaque: list[Opaque], names: str) -> Opaque:
    """The one that looks farthest; rows here and columns there are, next, everything."""
    worst = max(opaque, key=_severity)
    along = "".join(n for n in names if any(n in each.witness.along for each in opaque))
    if worst.witness.reach != Reach.WINDOWED or along == worst.witness.along:
        return worst
    held = worst.witness
    if len(along) < len(names):
        return replace(worst, witness=replace(held, along=along))
    return replace(worst, witness=Witness(Reach.GLOBAL, held.op, held.layer))


def _severity(value: Opaque) -> tuple[bool, bool]:
    """Order of opaque tensors: lost for good, mixed already, rearranged and yet to be mixed."""
    mixed = value.witness.reach < Reach.UNSUPPORTED
    return not mixed and value.if_mixed is None, mixed


def recurrence(b: Builder, inputs: list[Value | Opaque], first: bool, both_ways: bool) -> Opaque:
    """What an LSTM, GRU or RNN makes of its input: it runs along the axes of one dimension.

    first: whether the batch is first. both_ways: whether it runs back as well.
    """
    x = next((v for v in inputs if isinstance(v, Value)), None)
    if x is None or not x.spatial:
        return Opaque(Witness(Reach.GLOBAL, "recurrence", b.layer))
    graph = b.graph
    sequence = 1 if first and len(x.dims) == 3 else 0
    b.takes_channels(x, len(x.dims) - 1, [sequence])
    along = "".join(
        name
        for name, letter in zip(graph.names, graph.letters, strict=True)
        if any(f.axis == letter for f in x.dims[sequence])
    )
    longer = {letter for letter in graph.letters if x.factors(letter)}
    whole = not longer - {f.axis for f in x.dims[sequence]}
    seen = "all positions" if both_ways else "its own position and all before it"
    reason = f"a unit sees {seen}" + (f" along {' and '.join(along)}" if along else "")
    reach = Reach.GLOBAL if whole or not along else Reach.WINDOWED
    return Opaque(Witness(reach, "recurrence", b.layer, reason, "" if whole else along))


def reach_if_mixed(op: Op, inputs: list[Value | Opaque]) -> Reach | None:
    """What attention over a tensor will be whose positions are all there, but rearranged.

    Class tokens joined to the map, the shifts of relative positions, or a matrix of which ones and
    zeros make a larger one (Kronecker product): global where one row holds
    all positions, windowed where windows were cut into the batch.
    """
    if not any(word in op.name for word in ("cat", "pad", "slice", "view", "index", "pool", "mul")):
        return None
    cut = any(f.axis in SPATIAL for v in inputs if isinstance(v, Value) for f in v.dims[0])
    return Reach.WINDOWED if cut else Reach.GLOBAL
