"""Which units of a crop are those of the whole image, by their steps; and why none are.

The network's steps on the crop are laid beside its steps on the whole image. A unit is the same in
both where all its taps are: the same weights, at the same positions of the image, of units that are
the same. Zeros that pad a crop stand for pixels that the whole image has, so they end it.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.axis import Axis, Index, Window
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Node, Reach
from rfbench.spatial_graph.operations import Op, Ref, Trace
from rfbench.spatial_graph.reader import Reader


class NoTiles(RfbenchError):
    """Tiles of this network are not the whole image, whatever their margin is."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"tiles cannot equal the whole image: {reason}. An earlier layer may: --to; "
            "--list-layers shows them."
        )


@dataclass(frozen=True, eq=False)
class Same:
    """The units of a crop's map along one axis: unit u is unit u + offset of the whole image's.

    units: (n,) bool, whether it is the same; no unit where the offset is None.
    """

    offset: int | None
    units: np.ndarray

    def span(self) -> tuple[int, int] | None:
        """The first and last of the longest run of units that are the same."""
        edges = np.flatnonzero(np.diff([0, *self.units.astype(int), 0]))
        runs = [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        return max(runs, key=lambda run: run[1] - run[0], default=None)


def same_units(whole: Target, crop: Target, start: tuple[int, ...]) -> tuple[Same, ...]:
    """The units of a crop that begins at `start` px, along each axis.

    Raises NoTiles where the network does other things on the crop.
    """
    if _kinds(whole) != _kinds(crop):
        unit = unit_of(len(whole.graph.size))
        sizes = (f"{'x'.join(map(str, t.graph.size))} {unit}" for t in (whole, crop))
        raise NoTiles(f"the network does other things on {' than on '.join(sizes)}")
    ends = sorted(whole.graph.share(whole.value))
    out = []
    for axis, first in enumerate(start):
        known: dict[int, Same] = {}
        for i in sorted(whole.ancestors):
            known[i] = _step(whole, crop, i, axis, first, known)
        offsets = {known[i].offset for i in ends}
        units = np.logical_and.reduce([known[i].units for i in ends])
        one = offsets.pop() if len(offsets) == 1 else None
        out.append(Same(one, units & (one is not None)))
    return tuple(out)


def _kinds(target: Target) -> list[tuple]:
    return [(i, _kind(target.graph.nodes[i])) for i in sorted(target.ancestors)]


def _kind(node: Node) -> tuple:
    """What a step is, its maps aside: a padding by nothing is a name alone."""
    kind = "same" if node.kind == "structure" else node.kind
    return kind, node.sources, node.counts, node.op, node.layer


def _step(
    whole: Target, crop: Target, i: int, axis: int, start: int, known: dict[int, Same]
) -> Same:
    """What is the same behind one step."""
    node, other = crop.graph.nodes[i], whole.graph.nodes[i]
    n = node.size[axis]
    if not node.sources:  # of several inputs, a smaller one begins in proportion
        begin = Fraction(start * other.size[axis], whole.source_size[axis])
        known_there = begin.denominator == 1
        return Same(int(begin) if known_there else None, np.full(n, known_there))
    before = [known[s] for s in node.sources]
    offset = before[0].offset
    if offset is None or any(b.offset != offset for b in before):
        return Same(None, np.zeros(n, bool))
    inside = np.logical_and.reduce([b.units for b in before])
    mine, its = node.axes[axis], other.axes[axis]
    ratio = _ratio(whole, i, axis)
    to = _offset(mine, its, offset, ratio)
    if to is None:
        return Same(None, np.zeros(n, bool))
    sides = len(inside), whole.graph.nodes[node.sources[0]].size[axis]
    return Same(to, _alike(mine, its, sides, (offset, to), inside))


def _ratio(whole: Target, i: int, axis: int) -> Fraction | None:
    """By how much a step divides distances, by theory; None where units have no stride."""
    fields = [whole.theory.fields[k] for k in (whole.graph.nodes[i].sources[0], i)]
    before, after = (f[axis] if f is not None else None for f in fields)
    if before is None or after is None or before.stride is None or after.stride is None:
        return None
    return Fraction(before.stride) / after.stride


def _offset(mine: Axis, its: Axis, offset: int, ratio: Fraction | None) -> int | None:
    """By how much units of a crop are moved in the whole image behind a map."""
    if isinstance(mine, Index) and isinstance(its, Index) and mine.inner and its.inner:
        mine, its = mine.inner, its.inner
    if isinstance(mine, Window) and isinstance(its, Window):
        to = Fraction(offset - mine.before + its.before, mine.stride)
    elif ratio is not None:
        to = offset * ratio
    else:
        return None
    return int(to) if to.denominator == 1 else None


def _alike(
    mine: Axis, its: Axis, sides: tuple[int, int], offsets: tuple[int, int], inside: np.ndarray
) -> np.ndarray:
    """Whether each unit of a crop's map has the taps that it has in the whole image's."""
    here, there = mine.matrix(sides[0]), its.matrix(sides[1])
    out = np.zeros(len(here), bool)
    if type(mine) is not type(its) or here.shape[1] != there.shape[1]:
        return out
    if _fixed(mine) != _fixed(its):
        return out
    units = np.arange(len(here))
    units = units[(units + offsets[1] >= 0) & (units + offsets[1] < len(there))]
    a, b = here[units], there[units + offsets[1]]
    same = np.where(a < 0, b < 0, (b == a + offsets[0]) & inside[a])
    good = same.all(1)
    weights = mine.weight_table(sides[0]), its.weight_table(sides[1])
    if weights[0] is not None and weights[1] is not None:
        good &= np.isclose(weights[0][units], weights[1][units + offsets[1]]).all(1)
    out[units] = good
    return out


def _fixed(axis: Axis) -> tuple | None:
    """What is the same for all units of a window, besides where its taps are."""
    return (axis.stride, axis.taps, axis.divide) if isinstance(axis, Window) else None


def culprit(whole: Target, crop: Target, start: tuple[int, ...]) -> str:
    """The first step behind which no unit of a crop is the same, in words."""
    for axis, first in enumerate(start):
        known: dict[int, Same] = {}
        for i in sorted(whole.ancestors):
            known[i] = _step(whole, crop, i, axis, first, known)
            if not known[i].units.any():
                return _named(whole.graph.nodes[i])
    return "its steps leave no unit of a crop the same (positions wrap around, or go elsewhere)"


def _named(node: Node) -> str:
    why = "it takes all positions together" if node.reach >= Reach.CONTEXT else (
        "its positions depend on the size of the image, or it needs more of it"
    )  # fmt: skip
    return f"{node}: {why}"


def check_local(target: Target) -> None:
    """Raise NoTiles for attention, global contexts, and maps whose units have no stride."""
    witness = target.witness
    if witness.reach != Reach.LOCAL:
        raise NoTiles(f"it is {witness.reach}: {witness}")
    for i in sorted(target.ancestors):
        fields = target.theory.fields[i]
        if fields is not None and None in fields:
            node = target.graph.nodes[i]
            raise NoTiles(f"units have no stride in common behind {node}")


def check_values(trace: Trace, name: str) -> None:
    """Raise NoTiles where the values of a layer depend on the whole image by a norm, or its size.

    name: of the layer; '' for the output. What the positions of a norm are is taken from the graph.
    """
    reader = Reader(trace)
    reader.run()
    tensors = trace.layers | trace.outputs
    wanted = {tensors[name]} if name in tensors else set(trace.outputs.values())
    faults = []
    for op in reversed(trace.ops):
        if wanted.isdisjoint(_ids(op.out)):
            continue
        wanted |= _ids((op.args, op.kwargs))
        value = reader.values.get(next(iter(_ids(op.args[:1])), -1))
        reason = _why(op, value) if isinstance(value, Value) else ""
        if reason:
            faults.append(f"{op.name} in layer {op.layer}: {reason}" if op.layer else reason)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise NoTiles(faults[-1] + more)


def _ids(value: Any) -> set[int]:
    return {leaf.id for leaf in tree_leaves(value) if isinstance(leaf, Ref)}


def _why(op: Op, x: Value) -> str:
    """Why an operation's values depend on the whole image; '' where they do not."""
    name = op.name.split(".")[1]
    positions = [any(f.axis != "c" and f.axis != "b" for f in dim) for dim in x.dims]
    if "group_norm" in name and any(positions):
        return "its statistics are of the whole image (GroupNorm, InstanceNorm)"
    if "batch_norm" in name and "no_training" not in name and _uses_batch(op):
        return "its statistics are of the whole image (InstanceNorm, BatchNorm in training)"
    if "layer_norm" in name or "rms_norm" in name:
        over = op.args[1] if len(op.args) > 1 else op.kwargs["normalized_shape"]
        if any(positions[len(positions) - len(over) :]):
            return "its statistics are of the whole image (LayerNorm over positions)"
    if "upsample" in name and any(a is True for a in op.args):
        return "align_corners stretches by the size of the image"
    return ""


def _uses_batch(op: Op) -> bool:
    """Whether a batch norm takes its statistics from the input."""
    flags = [a for a in (*op.args, *op.kwargs.values()) if isinstance(a, bool)]
    return not flags or flags[0]
