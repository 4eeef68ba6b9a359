"""What theory says of the unit whose effective field is measured."""

import contextlib
from dataclasses import dataclass

from rfbench.errors import RfbenchError
from rfbench.rf.core.field import Field
from rfbench.rf.core.path_map import PathMap
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.graph import Reach, Size, SpatialGraph


@dataclass(frozen=True)
class Expected:
    """Theoretical field of unit 0 along every axis and path counts; None where there are none.

    reach: how far the unit looks, in words: local, global (attention), ...; '' where not known.
    """

    field: tuple[Field, ...] | None = None
    counts: PathMap | None = None
    reach: str = ""


def expected(
    graph: SpatialGraph, layer: str, unit: Size, counts: bool, source: str | None = None
) -> Expected:
    """Of a unit of a layer, or 'output'; neither field nor paths of attention, which sees all.

    counts: whether path counts are wanted. source: of several inputs the one that is looked at.
    """
    value = graph.output if layer in ("", "output") else graph.named().get(layer)
    witness = graph.witness(value)
    if value is None or witness.reach == Reach.UNSUPPORTED:
        return Expected()
    if witness.reach > Reach.CONTEXT:
        return Expected(reach=witness.extent)
    name = None if value is graph.output else layer
    target, field, paths = Target(graph, name, source), None, None
    with contextlib.suppress(RfbenchError):  # a resized map has no field in common
        field = target.geometry.uniform
    if counts:
        with contextlib.suppress(RfbenchError):
            paths = target.counts(unit)
    mixed = graph.mixed_axes(value)
    reach = f"{witness.reach}, global along {mixed}" if mixed else str(witness.reach)
    return Expected(field, paths, reach)
