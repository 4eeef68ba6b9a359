"""What is said of a network that draws at random while it runs: dropout left on, noise, crops.

What is drawn are values, which leave positions alone: the theoretical field is that of all draws
together, with nothing dropped. A map whose positions depend on the draw is opaque in its graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rfbench.spatial_graph.draws import DRAWS
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Opaque

Record = dict[str, Any]


def drawn(graph: SpatialGraph, value: Value | Opaque | None) -> Record:
    """{'random': ...} of a tensor on the way to which something is drawn; else {}, ready for JSON.

    'values': what draws values; 'numbers': what draws numbers that the network's code reads, and
    'draws': in how many draws of these its field was the same.
    """
    values, numbers = graph.drawn(value)
    if not values and not numbers:
        return {}
    told: Record = {"values": [*map(str, values)]}
    if numbers:
        told |= {"numbers": [*map(str, numbers)], "draws": DRAWS}
    return {"random": told}


def lines(record: Mapping[str, Any], then: str = "Figures are of all draws together") -> list[str]:
    """What a reader of a record must know; nothing where nothing is drawn."""
    told = record.get("random")
    if not told:
        return []
    out = []
    if told["values"]:
        out.append(f"Draws values at random while it runs, by {_some(told['values'])}. {then}.")
    if told.get("numbers"):
        out.append(
            f"Its code reads numbers drawn by {_some(told['numbers'])}: the field was the same in "
            f"{told['draws']} draws."
        )
    return out


def sources(record: Mapping[str, Any]) -> str:
    """What draws, in words: 'aten.bernoulli.p in layer drop and 3 more'; '' for nothing."""
    told = record.get("random", {})
    every = [*told.get("values", ()), *told.get("numbers", ())]
    return _some(every) if every else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more
