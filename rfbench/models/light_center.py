"""Initial weights that are light in the middle of a kernel and heavy at its rim.

Luo et al. (2016, section 4) propose them against effective receptive fields that are too small:
initialize in any way, then scale the weights by a distribution that is lower in the middle. They
give no formula. Ours, for a weight at distance d from its kernel's middle:

    s^2 = 1/4 + 3/4 d^2 / mean(d^2)

so that the middle of an odd kernel gets half its scale, the mean of s^2 is 1 and with it the
variance of what the layer returns stays as it was.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import UsageError

CENTER = 0.25  # of a weight's variance, in the middle
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def light_center(model: nn.Module, label: str) -> list[str]:
    """Scale the weights of every convolution in place; returns the module paths of the changed.

    A kernel of 1, or of 2, all of whose weights are equally far from its middle, stays as it is.
    Raises UsageError, with nothing changed, if no other is there, or weights are computed from
    others (`weight_norm`).
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, layer in model.named_modules():
        if not isinstance(layer, CONVOLUTIONS) or id(layer.weight) in seen:
            continue
        scale = scales(layer.kernel_size, layer.dilation)
        if scale.allclose(torch.ones_like(scale)):
            continue
        if "weight" not in layer._parameters:
            raise UsageError(
                f"init.light_center: the weights of {name} in {label} are computed from others."
            )
        seen.add(id(layer.weight))
        found[name] = scale
    if not found:
        raise UsageError(
            f"init.light_center: {label} has no convolution with a kernel larger than 2, so that "
            "nothing would change."
        )
    for name, scale in found.items():
        weight: Any = model.get_submodule(name).weight
        weight.data.mul_(scale.to(weight))
    return [*found]


def scales(kernel: Sequence[int], dilation: Sequence[int] = (1, 1, 1)) -> Tensor:
    """The factor of each weight of a kernel, in its shape; the mean of their squares is 1."""
    axes = [
        gap * (torch.arange(k, dtype=torch.double) - (k - 1) / 2)
        for k, gap in zip(kernel, dilation, strict=False)
    ]
    squares = sum(grid.square() for grid in torch.meshgrid(*axes, indexing="ij"))
    assert isinstance(squares, Tensor)
    if math.prod(kernel) == 1:
        return torch.ones_like(squares)
    return (CENTER + (1 - CENTER) * squares / squares.mean()).sqrt()
