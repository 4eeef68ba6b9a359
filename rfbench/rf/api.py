"""Receptive fields from Python, for notebooks: seven functions on any module or name.

    from rfbench import rf

    graph = rf.record("resnet50")
    print(rf.theory(graph)["y"])
    counts = rf.path_counts(graph)

A network is a torchvision or timm name, 'FILE.py:function', or an nn.Module; nothing is drawn and
nothing is written. docs/python.md has examples.
"""

import contextlib
import copy
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
from rfbench.rf.core.subjects import Subject, input_size
from rfbench.rf.core.target import Target, not_local, pair
from rfbench.rf.questions.audit.audit import audit as audit_subject
from rfbench.rf.questions.effective import extent
from rfbench.rf.questions.effective.expected import Expected, expected
from rfbench.rf.questions.effective.gradients import Gradients, convention_of, gradients
from rfbench.rf.questions.mirror.mirror import mirror as mirror_of
from rfbench.rf.questions.theory import report as theory_report
from rfbench.rf.questions.tiles.tiles import tiles as tiles_of
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import Reach, Size, SpatialGraph
from rfbench.spatial_graph.inputs import size_as_fits
from rfbench.spatial_graph.skeleton import without_weights
from rfbench.spatial_graph.trace import Shape

Model = str | nn.Module | torch.export.ExportedProgram

__all__ = ["audit", "effective", "mirror", "path_counts", "record", "theory", "tiles"]


def record(
    model: Model,
    size: int | Size | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Tensor] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> SpatialGraph:
    """The spatial graph of a network for an input of `size` px (a network's own when None).

    size: N, or as many numbers as there are axes: (L,), (H, W), (D, H, W). N alone means as many
    axes as the network's first convolution has. in_channels: of the input; None: as the network
    says, else as it takes (3, 1 or those of its first convolution). inputs: examples, (1, C, H, W)
    each, or with other axes, in place of both; only their shapes are used. model_args: of the
    function that a name stands for.

    A network that fails on the way is recorded up to there: `failure` says why, and its earlier
    layers can be asked for by name. Raises UsageError for unknown names, variants and inputs that
    do not fit, RfbenchError where nothing can be traced. A module is left as it is.
    """
    subject = _with_inputs(model, size, variant, in_channels, inputs, model_args)
    return subject.network.whole(subject.size)


def _shape(example: Tensor) -> Shape:
    """(C, H, W) of an example input, or (C, L), (C, D, H, W)."""
    if not 3 <= example.dim() <= 5:
        raise UsageError(
            f"an input is (1, C, L), (1, C, H, W) or (1, C, D, H, W); this one is "
            f"{tuple(example.shape)}"
        )
    return tuple(example.shape[1:])


def theory(
    graph: SpatialGraph, layer: str | None = None, source: str | None = None
) -> dict[str, Any]:
    """Size, effective stride, padding and centre of a layer's fields (Araujo et al., 2019).

    layer: the last map when None. source: a layer, or 'input.1' of several inputs; the only input
    when None. 'y' and 'x' hold {size, stride, padding, center}, with the centre of unit 0, in px,
    or None where units have no field in common; a sequence has 'x' alone, a volume 'z' (depth) as
    well. 'misaligned' has the layers where branches disagree; 'global_along', where there are some,
    the axes of which every unit sees all, by learned mixing along one axis ('x'). Raises
    RfbenchError where a unit looks farther than windows and pooling do: attention and other mixing.
    """
    target = Target(graph, layer, source)
    if target.witness.reach > Reach.CONTEXT:
        raise not_local(target.witness, "receptive-field arithmetic needs")
    apart = sorted({d.layer for d in target.disagreements})
    axes = {a: theory_report.figures(f) for a, f in zip(graph.names, target.fields, strict=True)}
    mixed = graph.mixed_axes(target.value)
    return {**axes, "misaligned": apart, **({"global_along": mixed} if mixed else {})}


def path_counts(
    graph: SpatialGraph,
    layer: str | None = None,
    unit: Size | None = None,
    source: str | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The path-count map (H, W) of a unit, and its figures: shift, gridding, size, ... in px.

    The map has as many axes as the input: (L,) of a sequence, (D, H, W) of a volume. layer: the
    last map when None; unit: (y, x), or of other axes, the central one when None; source: as for
    `theory`. Counts are scaled by a power of two where they would overflow. Where 'cut' is true,
    the shift has what the border adds as well; `audit` tells both apart. Along an axis where units
    have no stride in common (a resized map, learned mixing), figures that need one are None and
    'why_none' says why. Raises UsageError for an unknown layer or unit, RfbenchError for attention.
    """
    target = Target(graph, layer, source)
    counts = target.counts(unit)
    return counts.counts, measure_known(counts, target.geometry)


def effective(
    model: Model,
    images: Tensor | Iterable[Tensor],
    layer: str | None = None,
    unit: Size | None = None,
    *,
    of: str | int | None = None,
    axes: str | None = None,
    convention: str = "rfbench",
) -> tuple[Gradients, dict[str, Any]]:
    """The mean |gradient| of a unit over images (Luo et al., 2016), and its figures in px.

    model: with the weights that it has. images: (N, C, H, W), normalised, or batches of them; of
    networks of sequences (N, C, L), of volumes (N, C, D, H, W).
    layer: the last map when None. of: what of the unit is differentiated: 'abs', the sum over
    channels of |output| (default); 'sum'; 'relu'; the number of a channel. axes: of the layer's
    output, such as 'NHWC' or 'NLC:1+14x14', where the trace does not tell. convention: 'rfbench',
    'replknet' or 'openerf' for those scripts' figures. 'theoretical' is None for attention.
    """
    definition, logarithm = convention_of(convention, of)
    if convention != "rfbench" and isinstance(images, Tensor):
        pair(images.shape[2:], f"convention={convention!r}")
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
    sizes: Sequence[int | Size] = (),
    in_channels: int | None = None,
    inputs: Sequence[Tensor] | None = None,
    layer: str | None = None,
    source: str | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `rfbench rf audit` tells: faults, the layers that cause them, fixes and their costs.

    sizes: N, for N x N px, or (H, W), at which the shift is told as well. in_channels, inputs: as
    for `record`; layer, source: as for `theory`. Raises RfbenchError for a network that is not
    convolutional.
    """
    subject = _with_inputs(model, size, variant, in_channels, inputs, model_args)
    held = {"model": subject.backbone.name, "to": layer, "from": source}
    config = RfConfig.model_validate(held)
    return audit_subject(config, subject, [_square(s) for s in sizes])


def tiles(
    model: Model,
    size: int | Size | None = None,
    tile: int | Size | None = None,
    layer: str | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Tensor] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """How a network runs on tiles of an image as on the whole: `rfbench rf tiles`.

    tile: the size of a crop in px, its halo included; None: the smallest. layer: the last map when
    None. 'halo' has the px that a tile's units read before and after it, 'align' where crops may
    start, 'smallest' the smallest crop, 'crops' how much of larger ones is used, 'shown' what a run
    of both says: a copy with random weights, in float64. Raises RfbenchError where tiles cannot
    equal the whole image, UsageError for a crop that will not do.
    """
    subject = _with_inputs(model, size, variant, in_channels, inputs, model_args)
    config = RfConfig.model_validate({"model": subject.backbone.name, "to": layer})
    record, _ = tiles_of(config, subject, _weighted(model, variant, subject.size, model_args), tile)
    return record


def mirror(
    model: Model,
    size: int | Size | None = None,
    layer: str | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Tensor] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """By how much flip tests are off: the map of a mirrored image, mirrored back.

    'axes' has by axis 'off' in px and 'units', by arithmetic; 'apart', 'move' and 'apart_moved' of
    a run with random symmetric kernels, and 'moved_image', near 0 where the mirrored map is that of
    the image moved by 'off' px. layer: the last map when None. Raises RfbenchError for a network
    that is not local.
    """
    subject = _with_inputs(model, size, variant, in_channels, inputs, model_args)
    config = RfConfig.model_validate({"model": subject.backbone.name, "to": layer})
    record, _ = mirror_of(config, subject, _weighted(model, variant, subject.size, model_args))
    return record


def _weighted(
    model: Model, variant: str, size: Size, model_args: Mapping[str, Any] | None
) -> nn.Module:
    """A network with its weights, in a variant; one that is given is left as it is."""
    if isinstance(model, str):
        return backbones.build(arguments.named(model, model_args), variant).module
    module, changed = _module(model), variants.get(variant)
    if changed.changes:
        module = copy.deepcopy(module)
        variants.apply(module, changed, type(model).__name__, size)
    return module


def _with_inputs(
    model: Model,
    size: int | Size | None,
    variant: str,
    in_channels: int | None,
    inputs: Sequence[Tensor] | None,
    model_args: Mapping[str, Any] | None,
) -> Subject:
    """A network in a variant, with the inputs that are said."""
    shapes = None if inputs is None else [_shape(x) for x in inputs]
    if shapes and (size is not None or in_channels is not None):
        raise UsageError("inputs= says size and channels: leave out size= and in_channels=")
    subject = _subject(model, shapes[0][1:] if shapes else size, variant, in_channels, model_args)
    native = subject.size if shapes else subject.network.native
    subject.network = Network(subject.network.module, native, in_channels, shapes)
    return subject


def _module(model: Model) -> nn.Module:
    """A network with the weights that it has."""
    if isinstance(model, str):
        return backbones.build(model).module
    return model.module() if isinstance(model, torch.export.ExportedProgram) else model


def _subject(
    model: Model,
    size: int | Size | None,
    variant: str,
    channels: int | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Subject:
    """A network in a variant; of a module, all is copied but the weights."""
    wanted = _checked(size)
    if isinstance(model, str):
        held = backbones.build(arguments.named(model, model_args), variant, meta=True)
        wanted = input_size(held, wanted, channels)
    elif model_args:
        raise UsageError("model_args are of a network by name; a module is what it is")
    else:
        changed, model = variants.get(variant), _module(model)
        copied, label = without_weights(model), type(model).__name__
        if not isinstance(wanted, tuple):
            wanted = size_as_fits(copied, wanted, channels)
        own = wanted
        # one that was changed already may be looked at as it is
        replaced = variants.apply(copied, changed, label, own) if changed.changes else []
        held = backbones.Backbone(label, copied, own, changed.name, replaced)
    native = held.input_size if len(held.input_size) == len(wanted) else wanted
    return Subject(held.variant, held, Network(held.module, native), wanted)


def _square(size: int | Size) -> Size:
    """N as N x N px, or the size as it is."""
    checked = _checked(size)
    return checked if isinstance(checked, tuple) else (checked or 0,) * 2


def _checked(size: int | Size | None) -> int | Size | None:
    """A size as plain integers. Raises UsageError for anything else."""
    if size is None:
        return None
    several = isinstance(size, tuple | list)
    try:
        sides = tuple(map(index, size if isinstance(size, tuple | list) else [size]))
    except TypeError:  # no whole numbers
        sides = ()
    if not 1 <= len(sides) <= 3 or min(sides) < 1:
        raise UsageError(
            "a size is N, (L,), (H, W) or (D, H, W), at least one pixel a side; this one is "
            f"{size!r}"
        )
    return sides if several else sides[0]
