"""The gradient of a unit with respect to the input, over images and draws of weights.

Luo, Li, Urtasun and Zemel (2016): a gradient of 1 at one unit of a map, 0 elsewhere, sent back to
the input; its size says how much each pixel matters. Any layer whose output has units in rows and
columns: (N, C, H, W), (N, H, W, C) as Swin has, or (N, tokens, C) as ViT has, as the trace says.
"""

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.target import check_position
from rfbench.rf.questions.effective.layout import Layout
from rfbench.rf.questions.effective.outputs import output_of
from rfbench.rf.questions.effective.place import Place, locate
from rfbench.runs.processes import out_of_memory
from rfbench.spatial_graph.size import Size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gradients:
    """What one unit sees.

    magnitude: (H, W), or of the input's other axes, float64, the mean over images of |gradient|,
    summed over input channels (of its positive part, where the definition says so). signed: the
    gradient itself. layer: '' for the network's output. units: of the layer's map. samples: images,
    all draws of weights together.
    """

    magnitude: np.ndarray
    signed: np.ndarray
    layer: str
    unit: Size
    units: Size
    samples: int


@dataclass(frozen=True)
class Definition:
    """What is differentiated, and what of the gradient is summed.

    of: 'abs', the sum over channels of |output|; 'sum', of the output; 'relu', of its positive
    part; or the number of one channel. positive: only gradients above 0 count (RepLKNet's script).
    mixed: the input's channels are summed before that (openerf's). middle: the central unit is
    n // 2 (RepLKNet), not (n - 1) // 2. tokens_apart: only that of (N, C, H, W) (openerf).
    """

    of: str | int = "abs"
    positive: bool = False
    middle: bool = False
    mixed: bool = False
    tokens_apart: bool = False

    def center(self, units: Size, is_nchw: bool = True) -> Size:
        """The central unit of a map. is_nchw: its tensor is (N, C, H, W)."""
        middle = self.middle and (is_nchw or not self.tokens_apart)
        return tuple(n // 2 if middle else (n - 1) // 2 for n in units)

    def kept(self, gradient: Tensor) -> Tensor:
        """What of the gradients (N, C, H, W) of several images counts: (H, W), their sum."""
        if self.mixed:
            gradient = gradient.sum(1, keepdim=True)
        return (gradient.relu() if self.positive else gradient.abs()).sum((0, 1))

    def signal(self, layout: Layout, output: Tensor, unit: Size) -> Tensor:
        """The number whose gradient is taken: summed over images and channels.

        Behind a ReLU, 'abs', 'sum' and 'relu' are the same. The plain sum is constant behind a
        LayerNorm: its gradient is rounding errors.
        """
        channels = layout.unit(output, unit)
        if isinstance(self.of, int):
            if len(layout.channels) > 1:
                raise UsageError("this layer's channels stand in several dimensions: take --of sum")
            if self.of >= channels.shape[1]:
                raise UsageError(
                    f"there is no channel {self.of}: the layer has 0 to {channels.shape[1] - 1}"
                )
            return channels[:, self.of].sum()
        return {"abs": channels.abs(), "sum": channels, "relu": channels.relu()}[self.of].sum()

    def __str__(self) -> str:
        """In words, for captions and tables."""
        whole = {"abs": "|output|", "sum": "the output", "relu": "the positive outputs"}
        of = f"of channel {self.of}" if isinstance(self.of, int) else ""
        of = of or f"of the sum over channels of {whole[str(self.of)]}"
        what = "positive part of the gradient" if self.positive else "|gradient|"
        if self.mixed:
            what = f"{what}, its channels summed first,"
        return f"{what} {of}"


OURS = Definition()
REPLKNET = Definition("relu", positive=True, middle=True)
OPENERF = Definition("sum", positive=True, middle=True, mixed=True, tokens_apart=True)
CONVENTIONS = {"rfbench": OURS, "replknet": REPLKNET, "openerf": OPENERF}
OF = ("abs", "sum", "relu")


def convention_of(name: str, of: str | int | None = None) -> tuple[Definition, str]:
    """A convention's definition, and its name, which decides on areas; `of` replaces its own.

    Raises UsageError for names that are not known.
    """
    if name not in CONVENTIONS:
        raise UsageError(f"unknown convention '{name}'. There are: {', '.join(CONVENTIONS)}")
    definition = CONVENTIONS[name]
    if of is not None:
        number = int(of) if str(of).isdecimal() else None
        if number is None and of not in OF:
            raise UsageError(f"--of {of}: expected {', '.join(OF)} or the number of a channel")
        definition = replace(definition, of=of if number is None else number)
    return definition, name


Batch = tuple[Tensor, ...]  # (N, C, H, W) of each input


@contextlib.contextmanager
def _as_on_a_cpu() -> Iterator[None]:
    """On a GPU: in whole float32, where cuDNN would take TF32; too little memory told in a line."""
    cudnn: Any = torch.backends.cudnn
    kinds, old = (cudnn.conv, cudnn.rnn), None
    before = [kind.fp32_precision for kind in kinds]
    with contextlib.suppress(RuntimeError):  # the user has set the new flags alone
        old = cudnn.allow_tf32
        cudnn.allow_tf32 = False  # networks can read it only where it agrees with the new ones
    for kind in kinds:
        kind.fp32_precision = "ieee"
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise RfbenchError(
            "the GPU is out of memory: take a smaller size, fewer images at once or the CPU"
        ) from error
    finally:
        if old is not None:
            cudnn.allow_tf32 = old
        for kind, held in zip(kinds, before, strict=True):
            kind.fp32_precision = held


@_as_on_a_cpu()
def gradients(
    modules: Iterable[nn.Module],
    batches: Iterable[Tensor | Batch],
    layer: str | None = None,
    unit: Size | None = None,
    definition: Definition = OURS,
    axes: str | None = None,
    source: int = 0,
) -> Gradients:
    """Average the gradient of `unit` of `layer` over all modules (draws of weights) and batches.

    batches: (N, C, H, W) each, or of sequences (N, C, L) or volumes, normalised as the network
    wants them, or of several inputs a tuple of these; iterated once for each module, and moved to
    where its weights are. layer: as in `named_modules`; the last map when None. unit: the central
    one when None. axes: of the layer's output, such as NHWC, where the trace does not tell. source:
    which of several inputs.

    Raises UsageError for a layer or unit that is not there or has no known map, RfbenchError where
    the gradient is not finite, or zero for every image.
    """
    held = [images if isinstance(images, tuple) else (images,) for images in batches]
    for each in (images for batch in held for images in batch):
        if not 3 <= each.dim() <= 5:
            raise UsageError(f"images are (N, C, H, W), or of 1 or 3 axes, not {each.shape}")
    sums: list[Tensor] = []
    place, count = None, 0
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        device = _device(module)
        for batch in held:
            images = tuple(each.to(device) for each in batch)
            if place is None:
                place = locate(module, _part(images, slice(1)), layer, axes)
                if place.note:
                    log.warning(place.note)
                # openerf takes all that timm's transformers give for tokens
                tokens = place.features and hasattr(module, "patch_embed")
                center = definition.center(place.layout.units, place.layout.is_nchw and not tokens)
                unit = _checked(unit, place, center)
            assert unit is not None
            for gradient in _each(module, images, place, unit, definition, source):
                parts = [definition.kept(gradient), gradient.sum((0, 1))]
                sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
            count += len(images[source])
    if place is None or unit is None:
        raise UsageError("the effective field needs at least one network and one image")
    magnitude, signed = (part.cpu().numpy() / count for part in sums)
    _check(magnitude, f"the gradient of unit {','.join(map(str, unit))} of {place.label}")
    return Gradients(magnitude, signed, place.name, unit, place.layout.units, count)


def _check(magnitude: np.ndarray, what: str) -> None:
    """Raise where there is nothing to see."""
    if not np.isfinite(magnitude).all():
        raise RfbenchError(
            f"{what} is not finite: its activations overflow. Use trained weights, or an earlier "
            "layer."
        )
    if not magnitude.any():
        raise RfbenchError(
            f"{what} is zero for every image (dead ReLUs, values that are rounded, or a layer that "
            "does not see the input). "
            "Use trained weights, other images, more draws, or the layer before the activation."
        )


def _device(module: nn.Module) -> torch.device | None:
    """Where a network's weights are; None: it has none, and takes images wherever they are."""
    held = itertools.chain(module.parameters(), module.buffers())
    device = next((tensor.device for tensor in held), None)
    if device and device.type == "meta":
        raise UsageError("an effective field needs weights, and the network is on the meta device")
    return device


def _part(images: Batch, where: slice) -> Batch:
    """Some images of each input."""
    return tuple(each[where] for each in images)


def _each(
    module: nn.Module, images: Batch, place: Place, unit: Size, definition: Definition, source: int
) -> Iterator[Tensor]:
    """The gradients of a batch, (N, C, H, W) float64.

    One image at a time where the output does not have the images in its first dimension for sure.
    """
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    images = tuple(
        each.detach().to(dtype if dtype and each.is_floating_point() else each.dtype, copy=True)
        for each in images
    )
    x = images[source].requires_grad_()
    with torch.enable_grad():
        try:
            output = output_of(module, images, place.name, place.features)
        except UsageError:  # it may take one image at a time
            if len(x) == 1:
                raise
            output = None
        if output is None or (len(x) > 1 and not place.layout.takes(output)):
            for i in range(len(x)):
                one = _part(images, slice(i, i + 1))
                yield from _each(module, one, place, unit, definition, source)
            return
        shape, traced = tuple(output.shape), place.layout.shape
        if shape != traced and not place.layout.takes(output):
            raise RfbenchError(
                f"{place.label} returns {shape}, {traced} in the trace: its shape depends on the "
                "values of the image"
            )
        signal = definition.signal(place.layout, output, unit)
        if not signal.isfinite():  # the sign of NaN, and with it the gradient, would be 0
            yield torch.full_like(x, torch.nan, dtype=torch.float64)
            return
        reads = signal.requires_grad  # not where the layer does not depend on this input
        (gradient,) = torch.autograd.grad(signal, x, allow_unused=True) if reads else (None,)
    yield torch.zeros_like(x).double() if gradient is None else gradient.double()


def _checked(unit: Size | None, place: Place, center: Size) -> Size:
    if unit is None:
        return center
    check_position("unit", unit, place.layout.units, f"{place.label}: its map")
    return tuple(unit)
