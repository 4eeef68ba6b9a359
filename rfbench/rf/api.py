"""Receptive fields from Python, for notebooks: five functions on any module or name.

    from rfbench import rf

    graph = rf.record("resnet50")
    print(rf.theory(graph)["y"])
    counts = rf.path_counts(graph)

A network is a torchvision or timm name, 'FILE.py:function', or an nn.Module; nothing is drawn and
nothing is written. docs/python.md has examples.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import arguments, backbones, variants
from rfbench.rf.core.metrics import measure_known
from rfbench.rf.core.network import Network
from rfbench.rf.core.subjects import Subject
from rfbench.rf.core.target import Target, not_local
from rfbench.rf.questions.audit.audit import audit as audit_subject
from rfbench.rf.questions.effective import extent
from rfbench.rf.questions.effective.expected import Expected, expected
from rfbench.rf.questions.effective.gradients import Gradients, convention_of, gradients
from rfbench.rf.questions.theory import report as theory_report
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import Reach, Size, SpatialGraph
from rfbench.spatial_graph.skeleton import without_weights
from rfbench.spatial_graph.trace import Shape

Model = str | nn.Module | torch.export.ExportedProgram
SIZE = (224, 224)  # px of a module's input where none is given

__all__ = ["audit", "effective", "path_counts", "record", "theory"]


def record(
    model: Model,
    size: int | Size | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Tensor] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> SpatialGraph:
    """The spatial graph of a network for an input of `size` px (a network's own when None).

    in_channels: of the input; None: as the network says, else as it takes (3, 1 or those of its
    first convolution). inputs: examples, (1, C, H, W) each, in place of both; only their shapes are
    used. model_args: of the function that a name stands for.

    A network that fails on the way is recorded up to there: `failure` says why, and its earlier
    layers can be asked for by name. Raises UsageError for unknown names, variants and inputs that
    do not fit, RfbenchError where nothing can be traced. A module is left as it is.
    """
    shapes = None if inputs is None else [_shape(x) for x in inputs]
    if shapes and (size is not None or in_channels is not None):
        raise UsageError("inputs= says size and channels: leave out size= and in_channels=")
    subject = _subject(model, shapes[0][1:] if shapes else size, variant, model_args)
    network = Network(subject.network.module, subject.network.native, in_channels, shapes)
    return network.whole(subject.size)


def _shape(example: Tensor) -> Shape:
    """(C, H, W) of an example input."""
    if example.dim() != 4:
        raise UsageError(
            f"an input is (1, C, H, W); this one is {tuple(example.shape)}. Networks of 1-D and "
            "3-D inputs are not measured yet"
        )
    return example.shape[1], example.shape[2], example.shape[3]


def theory(
    graph: SpatialGraph, layer: str | None = None, source: str | None = None
) -> dict[str, Any]:
    """Size, effective stride, padding and centre of a layer's fields (Araujo et al., 2019).

    layer: the last map when None. source: a layer, or 'input.1' of several inputs; the only input
    when None. 'y' and 'x' hold {size, stride, padding, center}, with
    the centre of unit 0, in px, or None where units have no field in common; 'misaligned' the
    layers where branches disagree. Raises RfbenchError where a unit looks farther than windows and
    pooling do: attention and other mixing.
    """
    target = Target(graph, layer, source)
    if target.witness.reach > Reach.CONTEXT:
        raise not_local(target.witness, "receptive-field arithmetic needs")
    apart = sorted({d.layer for d in target.disagreements})
    axes = {a: theory_report.figures(f) for a, f in zip("yx", target.fields, strict=True)}
    return {**axes, "misaligned": apart}


def path_counts(
    graph: SpatialGraph,
    layer: str | None = None,
    unit: tuple[int, int] | None = None,
    source: str | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The path-count map (H, W) of a unit, and its figures: shift, gridding, size, ... in px.

    layer: the last map when None; unit: (y, x), the central one when None; source: as for `theory`.
    Counts are scaled by a power of two where they would overflow. Where 'cut' is true, the shift
    has what the border adds as well; `audit` tells both apart. Where units have no stride in common
    (a resized map),
    figures that need one are None and 'why_none' says so. Raises UsageError for an unknown layer
    or unit, RfbenchError for attention.
    """
    target = Target(graph, layer, source)
    counts = target.counts(unit)
    return counts.counts, measure_known(counts, target.geometry)


def effective(
    model: Model,
    images: Tensor | Iterable[Tensor],
    layer: str | None = None,
    unit: tuple[int, int] | None = None,
    *,
    of: str | int | None = None,
    axes: str | None = None,
    convention: str = "rfbench",
) -> tuple[Gradients, dict[str, Any]]:
    """The mean |gradient| of a unit over images (Luo et al., 2016), and its figures in px.

    model: with the weights that it has. images: (N, C, H, W), normalised, or batches of them.
    layer: the last map when None. of: what of the unit is differentiated: 'abs', the sum over
    channels of |output| (default); 'sum'; 'relu'; the number of a channel. axes: of the layer's
    output, such as 'NHWC' or 'NLC:1+14x14', where the trace does not tell. convention: 'rfbench',
    'replknet' or 'openerf' for those scripts' figures. 'theoretical' is None for attention.
    """
    definition, logarithm = convention_of(convention, of)
    module = _module(model)
    batches = [images] if isinstance(images, Tensor) else list(images)
    training, wanted = module.training, [p.requires_grad for p in module.parameters()]
    try:
        seen = gradients([module.eval()], batches, layer, unit, definition, axes)
    finally:
        module.train(training)
        for parameter, want in zip(module.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)
    theory = Expected()
    with contextlib.suppress(RfbenchError):  # not to be traced: only with axes
        shape = (batches[0].shape[1], *seen.magnitude.shape)
        graph = record(module, inputs=[batches[0].new_empty((1, *shape), device="meta")])
        theory = expected(graph, seen.layer, seen.unit, counts=False)
    figures = extent.measure(seen, extent.position(seen, theory.field), logarithm)
    return seen, figures | {"reach": theory.reach}


def audit(
    model: Model,
    size: int | Size | None = None,
    variant: str = "baseline",
    sizes: Sequence[int] = (),
    model_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `rfbench rf audit` tells: faults, the layers that cause them, fixes and their costs.

    Raises RfbenchError for a network that is not convolutional.
    """
    subject = _subject(model, size, variant, model_args)
    return audit_subject(RfConfig(model=subject.backbone.name), subject, sizes)


def _module(model: Model) -> nn.Module:
    """A network with the weights that it has."""
    if isinstance(model, str):
        return backbones.build(model).module
    return model.module() if isinstance(model, torch.export.ExportedProgram) else model


def _subject(
    model: Model,
    size: int | Size | None,
    variant: str,
    model_args: Mapping[str, Any] | None = None,
) -> Subject:
    """A network in a variant; of a module, all is copied but the weights."""
    if isinstance(model, str):
        held = backbones.build(arguments.named(model, model_args), variant, meta=True)
    elif model_args:
        raise UsageError("model_args are of a network by name; a module is what it is")
    else:
        changed, model = variants.get(variant), _module(model)
        copied, own = without_weights(model), _pair(SIZE if size is None else size)
        label = type(model).__name__
        # one that was changed already may be looked at as it is
        replaced = variants.apply(copied, changed, label, own) if changed.changes else []
        held = backbones.Backbone(label, copied, own, changed.name, replaced)
    wanted = _pair(held.input_size if size is None else size)
    return Subject(held.variant, held, Network(held.module, held.input_size), wanted)


def _pair(size: int | Size) -> Size:
    try:
        y, x = map(index, size if isinstance(size, tuple | list) else (size, size))
    except (TypeError, ValueError):  # no whole numbers, not two of them
        y = x = 0
    if min(y, x) < 1:
        raise UsageError(f"a size is N or (H, W), at least one pixel a side; this one is {size!r}")
    return y, x
