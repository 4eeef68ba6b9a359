"""By how much the map of a mirrored image, mirrored back, is off: the flip test of pose networks.

Unit u of a map looks at c(u) = c(0) + u S. On the mirrored image unit n - 1 - u does, and mirrored
back that is at H - 1 - c(n - 1 - u): farther by minus twice the shift. A flip test averages both as
if they looked at one place. Behind strides of 2 it is nearly a unit, which pose networks move their
second map by (Xiao et al., ECCV 2018; Huang et al., CVPR 2020, say why).

To show it the network is run with random kernels that are their own mirror images: its output on
the mirrored image, mirrored back, is then that on the image moved by exactly so many px.
"""

import contextlib
from typing import Any

from torch import nn

from rfbench.errors import NoPath, RfbenchError
from rfbench.rf.core.at_size import Shifts, same_maps
from rfbench.rf.core.field import region
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.network import Network
from rfbench.rf.core.randomness import drawn
from rfbench.rf.core.subjects import Subject
from rfbench.rf.core.target import Target, not_local
from rfbench.rf.questions.mirror.run import SPREAD, Mirrored, farthest
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.axis import names
from rfbench.spatial_graph.graph import ALL_INPUTS
from rfbench.spatial_graph.node import Reach

Record = dict[str, Any]


def mirror(
    config: RfConfig, subject: Subject, module: nn.Module
) -> tuple[Record, dict[str, Record]]:
    """What a mirrored image moves, ready for JSON: along each axis, in px and in units.

    module: the network itself; a copy is run, with random mirror-symmetric kernels. With the record
    comes, by axis, a line of both outputs. Raises RfbenchError for a network that is not local, or
    whose units have no stride.
    """
    own = subject.target(config.to, None)
    if own.graph.inputs:  # all are mirrored
        own = subject.target(config.to, ALL_INPUTS)
    if own.witness.reach > Reach.CONTEXT:
        raise not_local(own.witness)
    strides = [float(f.stride) for f in own.geometry.fields]
    shifts = _shifts(subject, own, config.to)
    off = [round(-2 * s, 9) + 0.0 for s in shifts]
    every = zip(names(len(off)), shifts, off, strides, strict=True)
    axes: dict[str, Record] = {
        name: {
            "shift": s,
            "off": o,
            "units": o / stride,
            "turns": len(own.geometry.fields[k].phases) > 1,
            "swapped": _swapped(own, k, o),
        }
        for k, (name, s, o, stride) in enumerate(every)
    }
    record: Record = {
        "model": subject.backbone.name,
        "variant": subject.backbone.variant,
        "to": own.name or "output",
        "input_size": own.source_size,
        "map_size": own.units,
        "stride": strides,
        "axes": axes,
        **drawn(own.graph, own.value),
    }
    target = None if "random" in record else _roomy(subject.network, own, off)
    if target is None:
        return record | {"run_at": None}, {}
    run = Mirrored(module, target, off)
    for k, row in enumerate(axes.values()):
        row |= run.shown(k)
    lines = {name: run.lines(k) for k, name in enumerate(axes)}
    return record | {"run_at": target.source_size}, lines


def _swapped(own: Target, axis: int, off: float) -> bool:
    """Whether units take turns and, by theory, have another's turn in a mirrored image.

    Unit n - 1 - u, mirrored, then reads something else than unit u moved by `off`.
    """
    field, n, side = own.geometry.fields[axis], own.units[axis], own.source_size[axis]
    for unit in range(len(field.phases)):
        first, last = region(field, unit)
        begin, end = region(field, n - 1 - unit)
        if max(abs(side - 1 - end - first - off), abs(side - 1 - begin - last - off)) > 1e-6:
            return True
    return False


def _shifts(subject: Subject, own: Target, to: str | None) -> list[float]:
    """Along every axis, in px; of several inputs in those of the largest.

    Raises RfbenchError where several inputs are looked at in different places: mirrored, they are
    off by different amounts, and no one move fits.
    """
    if not own.graph.inputs:
        return _shift(subject, own, to)
    each: dict[str, list[float]] = {}
    for name, value in own.graph.inputs.items():
        if own.ancestors.isdisjoint(own.graph.share(value)):
            continue
        one = subject.target(to, name)
        with contextlib.suppress(NoPath):  # read as a context alone
            covers = zip(_shift(subject, one, to), own.source_size, one.source_size, strict=True)
            each[name] = [s * n / m for s, n, m in covers]
    if not each:
        raise NoPath(f"no path leads from any input to '{own.name or 'the output'}'")
    (first, known), *others = each.items()
    for name, shifts in others:
        for axis, a, b in zip(names(len(known)), known, shifts, strict=True):
            if abs(a - b) > 1e-6:
                unit = unit_of(len(known))
                raise RfbenchError(
                    "the inputs are looked at in different places, and no one move fits: along "
                    f"{axis} {first} by {a:+.2f} {unit}, {name} by {b:+.2f} {unit}"
                )
    return known


def _shift(subject: Subject, own: Target, to: str | None) -> list[float]:
    """Of a target with a stride along every axis. Raises RfbenchError for others."""
    own.counts()  # refuses what nothing leads to
    own.geometry.check_all()
    found = Shifts(subject.network, own, to).at(own.graph.size)
    return [s for s in found if s is not None]


def _roomy(network: Network, own: Target, off: list[float]) -> Target | None:
    """The target on an image so large that the border is far from enough units.

    None where it is another network there.
    """
    sides = zip(own.source_size, own.geometry.fields, own.geometry.step, off, strict=True)
    larger = [
        side + max(0, -(-int(_need(field, o) - side) // step)) * step
        for side, field, step, o in sides
    ]
    first = zip(larger, own.graph.size, own.source_size, strict=True)
    size: Any = tuple(n * mine // most for n, mine, most in first)
    try:
        target = network.target(size, own.layer, own.source)
        return target if same_maps(own, target) else None
    except RfbenchError:
        return None


def _need(field: Any, off: float) -> float:
    """Px for the units that are compared: their fields, moved by `off` at both ends.

    Fields lie off / 2 from the middle, and units that are left at one end are left at the other.
    """
    units = SPREAD + 2 * farthest(off, float(field.stride))
    uneven = max(2 * float(field.step), abs(off))
    spare = 2 * (abs(off) + 2 + float(field.step)) + uneven
    return field.size + units * float(field.stride) + spare
