"""What a forward pass costs: multiply-accumulate operations and activations, from a trace."""

from dataclasses import dataclass
from math import prod

from rfbench.errors import RfbenchError
from rfbench.spatial_graph.operations import Op, Trace, plain_name
from rfbench.spatial_graph.size import by


@dataclass(frozen=True)
class Cost:
    """Of one image. activations: elements that convolutions, pools and products put out."""

    macs: int
    activations: int


def cost(trace: Trace) -> Cost:
    """The cost of an image, classifier included; nothing is computed, shapes tell.

    Raises RfbenchError where the classifier insists on another size than the map.
    """
    if trace.forward is None:
        raise RfbenchError(f"its classifier does not take an input of {by(trace.size)} px.")
    macs = activations = 0
    for op in trace.forward:
        name = plain_name(op.name) if op.name.startswith("aten.") else ""
        if name in _MACS or "pool" in name:
            activations += prod(trace.shapes[op.made[0].id])
        if name in _MACS:
            macs += _MACS[name](trace, op)
    return Cost(macs, activations)


def _of_convolution(trace: Trace, op: Op) -> int:
    source, weight = (trace.shapes[r.id] for r in op.args[:2])
    positions = source if op.args[6] else trace.shapes[op.out.id]  # args[6]: transposed
    return prod(positions) * prod(weight[1:])


def _of_product(trace: Trace, op: Op) -> int:
    """Of matrices: every element of the first meets a row of the second."""
    left, right = (trace.shapes[r.id] for r in op.args[-2:])
    return prod(left) * right[-1]


_MACS = {
    "convolution": _of_convolution,
    "addmm": _of_product,
    "mm": _of_product,
    "bmm": _of_product,
}
