"""What a forward pass costs: multiply-accumulate operations and activations, from a recording."""

from dataclasses import dataclass
from math import prod

from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError
from rfbench.spatial_graph.trace import Op, Recording, Ref


@dataclass(frozen=True)
class Cost:
    """Of one image. activations: elements that convolutions, pools and products put out."""

    macs: int
    activations: int


def cost(recording: Recording) -> Cost:
    """The cost of an image, classifier included; nothing is computed, shapes tell.

    Raises RfbenchError where the classifier insists on another size than the map.
    """
    if recording.forward is None:
        height, width = recording.size
        raise RfbenchError(f"its classifier does not take an input of {height}x{width} px.")
    macs = activations = 0
    for op in recording.forward:
        name = op.name.removeprefix("aten.").split(".")[0]
        if name in _MACS or "pool" in name:
            out = next(leaf for leaf in tree_leaves(op.out) if isinstance(leaf, Ref))
            activations += prod(recording.shapes[out.id])
        if name in _MACS:
            macs += _MACS[name](recording, op)
    return Cost(macs, activations)


def _of_convolution(recording: Recording, op: Op) -> int:
    source, weight = (recording.shapes[r.id] for r in op.args[:2])
    positions = source if op.args[6] else recording.shapes[op.out.id]  # args[6]: transposed
    return prod(positions) * prod(weight[1:])


def _of_product(recording: Recording, op: Op) -> int:
    """Of matrices: every element of the first meets a row of the second."""
    left, right = (recording.shapes[r.id] for r in op.args[-2:])
    return prod(left) * right[-1]


_MACS = {
    "convolution": _of_convolution,
    "addmm": _of_product,
    "mm": _of_product,
    "bmm": _of_product,
}
