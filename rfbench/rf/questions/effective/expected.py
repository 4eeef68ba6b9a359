"""What theory says of the unit whose effective field is measured."""

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any

from rfbench.errors import RfbenchError
from rfbench.rf.core.field import Field
from rfbench.rf.core.path_map import PathMap
from rfbench.rf.core.randomness import drawn
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.size import Size


@dataclass(frozen=True)
class Expected:
    """Theoretical field of unit 0 along every axis and path counts; None where there are none.

    reach: how far the unit looks, in words: local, global (attention), ...; '' where not known.
    random: what is drawn on the way to it, as `drawn` has it.
    """

    field: tuple[Field, ...] | None = None
    counts: PathMap | None = None
    reach: str = ""
    random: dict[str, Any] = dataclasses.field(default_factory=dict)


def expected(
    graph: SpatialGraph, layer: str, unit: Size, counts: bool, source: str | None = None
) -> Expected:
    """Of a unit of a layer, or 'output'; neither field nor paths of attention, which sees all.

    counts: whether path counts are wanted. source: of several inputs the one that is looked at.
    """
    named = graph.outputs | graph.layers  # also 'output.out', where there is no other output
    value = graph.output if layer in ("", "output") else named.get(layer)
    witness = graph.witness(value)
    if value is None or witness.reach == Reach.UNSUPPORTED:
        return Expected()
    if witness.reach > Reach.CONTEXT:
        return Expected(reach=witness.extent, random=drawn(graph, value))
    name = None if value is graph.output else layer
    target, known, paths = Target(graph, name, source), None, None
    with contextlib.suppress(RfbenchError):  # a resized map has no field in common
        known = target.geometry.uniform
    if counts:
        with contextlib.suppress(RfbenchError):
            paths = target.counts(unit)
    mixed = graph.mixed_axes(value)
    reach = f"{witness.reach}, global along {mixed}" if mixed else str(witness.reach)
    return Expected(known, paths, reach, drawn(graph, value))
