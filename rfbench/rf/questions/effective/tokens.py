"""Where tokens stand for positions behind attention, which the spatial graph no longer tells.

A class token joined to the tokens of a map leaves them in their order; so do attention's residual
sum, norms and element-wise operations. A tensor that was computed in any other way is unknown.
"""

from typing import NamedTuple

import torch

from rfbench.spatial_graph.layout import Factor, Value
from rfbench.spatial_graph.operations import Op, Ref
from rfbench.spatial_graph.reader import Reader
from rfbench.spatial_graph.size import Size


class Tokens(NamedTuple):
    """Tokens in a dimension of a tensor: `first` of no position, then a grid row by row."""

    dim: int
    grid: Size
    first: int


NORMS = ("aten.native_layer_norm", "aten.layer_norm", "aten._fused_rms_norm", "aten.rms_norm")
SAME = ("aten.clone", "aten._to_copy", "aten.detach", "aten.alias", "aten.lift_fresh", "aten.copy")


def tokens(reader: Reader) -> dict[int, Tokens]:
    """The tensors of a trace, by number, that hold tokens behind a class token; others are left."""
    known: dict[int, Tokens] = {}
    for op in reader.trace.ops:
        out = next(iter(op.made), None)  # some return no tensor: DataParallel's profiler
        if out is not None and not isinstance(reader.values.get(out.id), Value):
            held = _joined(reader, op, known) or _kept(reader, op, out, known)
            if held:
                known[out.id] = held
    return known


def _joined(reader: Reader, op: Op, known: dict[int, Tokens]) -> Tokens | None:
    """Tokens that do not depend on the input, such as a class token, joined to those of a map."""
    if not op.name.startswith("aten.cat"):
        return None
    parts, dim = op.args[0], op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)
    shapes = [reader.trace.shapes[p.id] for p in parts]
    dim %= len(shapes[0])
    grids = [_grid(reader, p.id, dim, known) for p in parts]
    mapped = [i for i, grid in enumerate(grids) if grid]
    # what depends on the input besides may be tokens of another map
    others = [p for i, p in enumerate(parts) if i not in mapped and p.id in reader.values]
    if len(mapped) != 1 or others or mapped[0] != len(parts) - 1:
        return None
    grid = grids[-1]
    assert grid is not None
    return grid._replace(first=grid.first + sum(s[dim] for s in shapes[:-1]))


def _grid(reader: Reader, number: int, dim: int, known: dict[int, Tokens]) -> Tokens | None:
    """The tokens along a dimension of a tensor, from the spatial graph or from here."""
    if number in known:
        return known[number] if known[number].dim == dim else None
    value = reader.values.get(number)
    if not isinstance(value, Value):
        return None
    factors = value.dims[dim]
    if [(f.axis, f.step) for f in factors] != [("h", 1), ("w", 1)]:
        return None
    elsewhere: list[Factor] = [f for i, d in enumerate(value.dims) if i != dim for f in d]
    if any(f.axis in "hw" for f in elsewhere):
        return None
    return Tokens(dim, (factors[0].size, factors[1].size), 0)


def _kept(reader: Reader, op: Op, out: Ref, known: dict[int, Tokens]) -> Tokens | None:
    """Tokens that an operation leaves where they are."""
    shape = reader.trace.shapes[out.id]
    whole = [
        known[a.id]
        for a in op.args
        if isinstance(a, Ref) and a.id in known and reader.trace.shapes[a.id] == shape
    ]
    if not whole or any(one != whole[0] for one in whole):
        return None
    if op.name.startswith(NORMS):  # over the channels behind the tokens only
        return whole[0] if len(shape) - len(op.args[1]) > whole[0].dim else None
    pointwise = torch.Tag.pointwise in op.func.tags or op.name.startswith(SAME)
    return whole[0] if pointwise else None
