"""What a forward pass costs: multiply-accumulate operations and activations, from a recording."""

from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfbench.rf.graph import Size
from rfbench.rf.recorder import Op, Recording, Ref, record


@dataclass(frozen=True)
class Cost:
    """Of one picture. activations: elements that convolutions, pools and products put out."""

    macs: int
    activations: int


class _Whole(nn.Module):
    """A network with its classifier, which a recording of timm's leaves out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


def cost(module: nn.Module, size: Size, channels: int) -> Cost:
    """The cost of a picture of `channels` x H x W; nothing is computed, shapes tell."""
    recording = record(_Whole(module), size, channels)
    macs = activations = 0
    for op in recording.ops:
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
