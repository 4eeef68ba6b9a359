"""The shift against the input size, and the nearest size without any: `rf audit --sizes`."""

from collections.abc import Sequence
from typing import Any

from rfbench.errors import RfbenchError
from rfbench.rf.core.at_size import Shifts
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.network import Network
from rfbench.rf.core.progress import progress
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.size import Size

Record = dict[str, Any]
SYMMETRIC = 0.005  # px; what a smaller shift is worth nobody can tell


def by_size(network: Network, own: Target, layer: str | None, sizes: Sequence[Size]) -> Record:
    """The shift at every size, and the size without any that is nearest to the own one.

    layer: the one asked for; None: the last map, so that the network has to run to its end. A row
    has the shift along each axis, or why there is none: what the network says of the size, or
    that nothing can be told at it. The nearest size has been traced itself.
    """
    shifts = Shifts(network, own, layer)
    rows = [_row(shifts, size) for size in progress(sizes, "size")]
    clean = [row["size"] for row in rows if _is_symmetric(row)]
    clean.sort(key=lambda size: _distance(size, own.graph.size))
    nearest = (s for s in clean if _is_symmetric(_row(shifts, s, traced=True)))
    return {"rows": rows, "symmetric": next(nearest, None)}


def _row(shifts: Shifts, size: Size, traced: bool = False) -> Record:
    try:
        shift = [s if s is None else round(s, 9) + 0.0 for s in shifts.at(size, traced)]
    except RfbenchError as error:
        return {"size": size, "shift": None, "refused": str(error)}
    return {"size": size, "shift": shift}


def _is_symmetric(row: Record) -> bool:
    known = [abs(s) for s in row["shift"] or () if s is not None]
    return bool(known) and max(known) < SYMMETRIC


def _distance(size: Size, own: Size) -> tuple[int, ...]:
    """How far a size is from the own one: first along the axis that differs most."""
    apart = [abs(n - m) for n, m in zip(size, own, strict=True)]
    return max(apart), sum(apart), *size


def lines(found: Record) -> list[str]:
    """What is found, in words."""
    sizes = [_by(row["size"]) for row in found["rows"]]
    unit = unit_of(len(found["rows"][0]["size"]))
    ends = f"{sizes[0]} to {sizes[-1]} {unit}"
    out = [f"  no size from {ends} is free of shift"]
    if found["symmetric"] is not None:
        near = _by(found["symmetric"])
        out = [f"  free of shift as it is: {near} {unit}, the closest size from {ends}"]
    reasons: dict[str, list[str]] = {}
    for row in found["rows"]:
        if row["shift"] is None:
            # what torch says differs in numbers from size to size
            said = row["refused"].replace(_by(row["size"]), "this size")
            words = "".join("#" if c.isdigit() else c for c in said)
            reasons.setdefault(words, []).append(_by(row["size"]))
    for refused in reasons.values():
        first = next(row for row in found["rows"] if _by(row["size"]) == refused[0])
        some = refused[0] if len(refused) == 1 else f"{len(refused)} sizes, {refused[0]} the first"
        out.append(f"  not judged: {some}: {first['refused']}")
    return out


def _by(size: Size) -> str:
    return "x".join(map(str, size))
