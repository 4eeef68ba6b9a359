"""The gradient of a unit with respect to the input, over images and draws of weights.

Luo, Li, Urtasun and Zemel (2016): a gradient of 1 at one unit of a map, 0 elsewhere, sent back to
the input; its size says how much each pixel matters. Any layer whose output has units in rows and
columns: (N, C, H, W), (N, H, W, C) as Swin has, or (N, tokens, C) as ViT has.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.spatial_graph.graph import Size
from rfbench.spatial_graph.trace import trunk


@dataclass(frozen=True)
class Gradients:
    """What one unit sees.

    magnitude: (H, W) float64, the mean over images of |gradient|, summed over input channels.
    signed: the same without the absolute value. units: of the layer's map. samples: images, all
    draws of weights together.
    """

    magnitude: np.ndarray
    signed: np.ndarray
    layer: str
    unit: tuple[int, int]
    units: Size
    samples: int


@dataclass(frozen=True)
class Layout:
    """Where units stand in an output. kind: 'nchw', 'nhwc' or 'tokens', `prefix` of them global."""

    kind: str
    units: Size
    prefix: int = 0

    def signal(self, output: Tensor, unit: tuple[int, int]) -> Tensor:
        """The sum over images and channels of |output| at one unit.

        Behind a ReLU, and for one channel, that is a gradient of 1 there. The plain sum over the
        channels is constant behind a LayerNorm: its gradient is rounding errors.
        """
        y, x = unit
        if self.kind == "nchw":
            return output[:, :, y, x].abs().sum()
        if self.kind == "nhwc":
            return output[:, y, x].abs().sum()
        return output[:, self.prefix + y * self.units[1] + x].abs().sum()


def gradients(
    modules: Iterable[nn.Module],
    batches: Iterable[Tensor],
    layer: str | None = None,
    unit: tuple[int, int] | None = None,
) -> Gradients:
    """Average the gradient of `unit` of `layer` over all modules (draws of weights) and batches.

    batches: (N, C, H, W) each, normalised as the network wants them; iterated once for each module.
    layer: as in `named_modules`; the last map when None. unit: the central one when None.

    Raises UsageError for a layer or unit that is not there, RfbenchError where the gradient is not
    finite, or zero for every image.
    """
    held = list(batches)
    sums: list[Tensor] = []
    layout, count = None, 0
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        for images in held:
            if layout is None:
                layer, layout = locate(module, images[:1], layer)
                unit = _checked(unit, layout, layer)
            gradient = _one(module, images, layer, layout, unit)
            parts = [gradient.abs().sum((0, 1)), gradient.sum((0, 1))]
            sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
            count += len(images)
    if layout is None or layer is None or unit is None:
        raise UsageError("the effective field needs at least one network and one image")
    magnitude, signed = (part.numpy() / count for part in sums)
    if not np.isfinite(magnitude).all():
        raise RfbenchError(
            f"the gradient of unit {unit[0]},{unit[1]} of {layer} is not finite: its activations "
            "overflow. Use trained weights, or an earlier layer."
        )
    if not magnitude.any():
        raise RfbenchError(
            f"the gradient of unit {unit[0]},{unit[1]} of {layer} is zero for every image (dead "
            "ReLUs, or a layer that does not see the input). Use trained weights, other images, "
            "more draws, or the layer before the activation."
        )
    return Gradients(magnitude, signed, layer, unit, layout.units, count)


def _one(
    module: nn.Module, images: Tensor, layer: str | None, layout: Layout | None, unit: Any
) -> Tensor:
    """The gradient for a batch, (N, C, H, W) float64."""
    assert layer is not None and layout is not None
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad(), _outputs(module, layer) as outputs:
        _run(module, images)
        signal = layout.signal(outputs[-1][1], unit)
        (gradient,) = torch.autograd.grad(signal, images, allow_unused=True)
    return torch.zeros_like(images).double() if gradient is None else gradient.double()


def locate(module: nn.Module, images: Tensor, layer: str | None) -> tuple[str, Layout]:
    """The layer and where its units stand; when None the last whose output has several units.

    Of modules that return the same map the outermost. Raises UsageError where there is none.
    """
    if layer is not None and layer not in dict(module.named_modules()):
        names = [name for name, _ in module.named_modules() if name]
        raise UsageError(f"no layer '{layer}'.{suggest(layer, names)} --list-layers shows all.")
    with torch.no_grad(), _outputs(module, layer) as outputs:
        _run(module, images)
    size: Size = (images.shape[2], images.shape[3])
    laid = [(name, layout_of(output, size)) for name, output in outputs]
    fit = [(name, layout) for name, layout in laid if layout is not None]
    if layer is not None and not outputs:
        raise UsageError(f"layer '{layer}' is not reached in a forward pass")
    if not fit or (layer is not None and laid[-1][1] is None):
        what = f"layer '{layer}' returns" if layer is not None else "the network has no layer with"
        shape = f" {tuple(outputs[-1][1].shape)}, no" if layer is not None else " a"
        raise UsageError(f"{what}{shape} map of several units in rows and columns")
    name, layout = fit[-1] if layer is None else laid[-1]
    assert layout is not None
    return name, layout


def layout_of(output: Tensor, size: Size) -> Layout | None:
    """Where the units of an output stand for an input of `size`; None: there are none."""
    ratio = size[0] / size[1]

    def alike(h: int, w: int) -> bool:
        # a map has the input's proportions, but for what rounding at each of its levels takes
        return h * w > 1 and h <= size[0] and w <= size[1] and abs(h - w * ratio) <= 2

    if output.ndim == 4:
        _, a, b, c = output.shape
        # the channels are the axis that does not go with the image; if both fit, the first
        if alike(b, c):
            return Layout("nchw", (b, c))
        return Layout("nhwc", (a, b)) if alike(a, b) else None
    if output.ndim == 3:
        for prefix in range(9):  # class, distillation and register tokens
            units = output.shape[1] - prefix
            h = round(math.sqrt(max(units, 0) * ratio))
            if h > 1 and units % h == 0 and alike(h, units // h):
                return Layout("tokens", (h, units // h), prefix)
    return None


def _checked(unit: tuple[int, int] | None, layout: Layout, layer: str | None) -> tuple[int, int]:
    h, w = layout.units
    if unit is None:
        return (h - 1) // 2, (w - 1) // 2
    if not (0 <= unit[0] < h and 0 <= unit[1] < w):
        raise UsageError(f"there is no unit {unit[0]},{unit[1]} in {layer}: its map is {h}x{w}")
    return unit


def _run(module: nn.Module, images: Tensor) -> None:
    try:
        trunk(module)(images)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        what = " ".join(str(error).split())[:200]
        shape = "x".join(str(n) for n in images.shape[1:])
        raise UsageError(f"the network fails on an input of {shape}: {what}") from error


@contextmanager
def _outputs(module: nn.Module, layer: str | None) -> Iterator[list[tuple[str, Tensor]]]:
    """What the layer (None: every layer) returned, in order of return, by name."""
    seen: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tensors = output.values() if isinstance(output, dict) else output
            first = output if isinstance(output, Tensor) else next(iter(tensors or ()), None)
            if isinstance(first, Tensor):
                seen.append((name, first))

        return hook

    hooks = [
        child.register_forward_hook(keep(name))
        for name, child in module.named_modules()
        if name
        and (layer is None or name == layer)
        and not isinstance(child, torch.jit.ScriptModule)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
