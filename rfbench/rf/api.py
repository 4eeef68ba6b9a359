"""Receptive fields from Python, for notebooks: eight functions on any module or name.

    from rfbench import rf

    rf.visualize("resnet50")
    graph = rf.record("resnet50")
    print(rf.theory(graph)["y"])
    counts, figures = rf.path_counts(graph)

A network is a torchvision or timm name, 'FILE.py:function', or an nn.Module; nothing is written.
What is returned prints as a table and draws itself (`results`). docs/python.md has examples.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import variants as variants_of
from rfbench.rf import given, reports
from rfbench.rf.core.metrics import measure_known
from rfbench.rf.core.network import Network
from rfbench.rf.core.randomness import drawn
from rfbench.rf.core.subjects import Subject
from rfbench.rf.core.target import Target, not_local, pair
from rfbench.rf.given import Model
from rfbench.rf.in_python import in_python
from rfbench.rf.questions.audit.audit import audit as audit_subject
from rfbench.rf.questions.effective import extent
from rfbench.rf.questions.effective.expected import Expected, expected
from rfbench.rf.questions.effective.gradients import convention_of, gradients
from rfbench.rf.questions.maps.drawn import draw
from rfbench.rf.questions.mirror.mirror import mirror as mirror_of
from rfbench.rf.questions.theory import report as theory_report
from rfbench.rf.questions.tiles.tiles import tiles as tiles_of
from rfbench.rf.results import Measured, Report
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.call import Call
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.size import Size
from rfbench.spatial_graph.skeleton import refuse_unreadable

__all__ = [
    "audit",
    "effective",
    "mirror",
    "path_counts",
    "record",
    "theory",
    "tiles",
    "visualize",
]


@in_python
def record(
    model: Model,
    size: int | Size | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    input_axes: str | None = None,
) -> SpatialGraph:
    """The spatial graph of a network for an input of `size` px (a network's own when None).

    size: N, or as many numbers as there are axes: (L,), (H, W), (D, H, W). N alone means as many
    axes as the network's first convolution has. in_channels: of the input; None: as the network
    says, else as it takes (3, 1 or those of its first convolution). inputs: examples, (1, C, H, W)
    each, or with other axes, in place of both; only their shapes are used. Among them what is no
    map: a time (1,), a class (1,), a vector (1, C), tokens (1, L, C) beside an image, whose values
    may be any; and plain numbers, which are taken as they are. Of vectors alone, fields begin at
    the map that the network makes of them. model_args: of the function that a name stands for.
    input_axes: of the maps, such as 'NLC'; None: as the network's first convolution says. Maps and
    sizes have the positions alone.

    A network that fails on the way is recorded up to there: `failure` says why, and its earlier
    layers can be asked for by name. Raises UsageError for unknown names, variants and inputs that
    do not fit, RfbenchError where nothing can be traced. A module is left as it is.
    """
    subject = given.with_inputs(model, size, variant, in_channels, inputs, model_args, input_axes)
    return subject.network.whole(subject.size)


def _recorded(graph: SpatialGraph | Model) -> SpatialGraph:
    return graph if isinstance(graph, SpatialGraph) else record(graph)


@in_python
def theory(
    graph: SpatialGraph | Model, layer: str | None = None, source: str | None = None
) -> Report:
    """Size, effective stride, padding and centre of a layer's fields (Araujo et al., 2019).

    graph: what `record` gives, or a network, which is recorded for its own size. layer: the last
    map when None. source: a layer, or 'input.1' of several inputs; the only input when None. 'y'
    and 'x' hold {size, stride, padding, center}, with the centre of unit 0, in px, or None where
    units have no field in common; a sequence has 'x' alone, a volume 'z' (depth) as well.
    'misaligned' has the layers where branches disagree; 'global_along', where there are some, the
    axes of which every unit sees all, by learned mixing along one axis ('x'); 'random', where
    something is drawn while the network runs (dropout left on), what draws it. Raises RfbenchError
    where a unit looks farther than windows and pooling do: attention and other mixing; and where no
    path leads from the source.
    """
    graph = _recorded(graph)
    target = Target(graph, layer, source)
    if target.witness.reach > Reach.CONTEXT:
        raise not_local(target.witness, "receptive-field arithmetic needs")
    target.check_path()
    apart = sorted({d.layer for d in target.disagreements})
    axes = {a: theory_report.figures(f) for a, f in zip(graph.names, target.fields, strict=True)}
    mixed = graph.mixed_axes(target.value)
    known = {**axes, "misaligned": apart, **({"global_along": mixed} if mixed else {})}
    known |= drawn(graph, target.value)
    return reports.of_theory(known)


@in_python
def path_counts(
    graph: SpatialGraph | Model,
    layer: str | None = None,
    unit: Size | None = None,
    source: str | None = None,
) -> Measured:
    """The path-count map (H, W) of a unit, and its figures: shift, gridding, size, ... in px.

    The map has as many axes as the input: (L,) of a sequence, (D, H, W) of a volume. graph, layer,
    source: as for `theory`; unit: (y, x), or of other axes, the central one when None. Counts are
    scaled by a power of two where they would overflow. Where 'cut' is true, the shift has what the
    border adds as well; `audit` tells both apart. Along an axis where units have no stride in
    common (a resized map, learned mixing), figures that need one are None and 'why_none' says why.
    Raises UsageError for an unknown layer or unit, RfbenchError for attention.
    """
    graph = _recorded(graph)
    target = Target(graph, layer, source)
    counts = target.counts(unit)
    figures = measure_known(counts, target.geometry) | drawn(graph, target.value)
    return reports.of_map(counts, target.name or "the output", figures)


@in_python
def visualize(
    model: Model,
    variants: Sequence[str] | None = None,
    size: int | Size | None = None,
    layer: str | None = None,
    in_channels: int | None = None,
    inputs: Sequence[Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    input_axes: str | None = None,
) -> Report:
    """What `rfbench visualize-rf` draws: the maps of a network in some variants, side by side.

    variants: names; None: the network as it is, and the paper's variants that change it. The other
    arguments are those of `audit`. In a notebook the figure and its table are shown; `plot()`
    gives the figure. Raises RfbenchError for a network that is not convolutional.
    """
    chosen: list[Subject] = []
    for name in variants_of.PAPER if variants is None else variants:
        try:
            found = given.with_inputs(
                model, size, name, in_channels, inputs, model_args, input_axes
            )
        except UsageError:
            if variants is not None or name == "baseline":
                raise
            continue  # there is nothing that it would change
        if variants is not None or found.backbone.replaced not in [
            s.backbone.replaced for s in chosen
        ]:
            chosen.append(found)
    config = RfConfig.model_validate({"model": chosen[0].backbone.name, "to": layer})
    drawn = list(draw(config, chosen))
    return reports.of_maps(config, drawn)


@in_python
def effective(
    model: Model,
    images: Tensor | Iterable[Tensor] | None = None,
    layer: str | None = None,
    unit: Size | None = None,
    *,
    of: str | int | None = None,
    axes: str | None = None,
    convention: str = "rfbench",
    inputs: Sequence[Any] | None = None,
    source: str | None = None,
    input_axes: str | None = None,
) -> Measured:
    """The mean |gradient| of a unit over images (Luo et al., 2016), and its figures in px.

    model: with the weights that it has. images: (N, C, H, W), normalised, or batches of them; of
    networks of sequences (N, C, L), of volumes (N, C, D, H, W); or with the channels where its
    first convolution has them, or `input_axes` says, such as 'NLC'. inputs: of networks of several
    inputs, in place of images, N of each; the gradient is that of `source`, 'input.1'.
    layer: the last map when None. of: what of the unit is differentiated: 'abs', the sum over
    channels of |output| (default); 'sum'; 'relu'; the number of a channel. axes: of the layer's
    output, such as 'NHWC' or 'NLC:1+14x14', where the trace does not tell. convention: 'rfbench',
    'replknet' or 'openerf' for those scripts' figures. 'theoretical' is None for attention.
    """
    definition, logarithm = convention_of(convention, of)
    batches, conditions = given.shown(images, inputs)
    module = given.module_of(model)
    refuse_unreadable(module)
    module = Call(1, conditions).of(module)
    source, number = given.source_of(module, batches, source)
    module, batches = given.with_channels_first(module, batches, input_axes)
    if convention != "rfbench" and batches:
        pair(batches[0][number].shape[2:], f"convention={convention!r}")
    modes = [(m, m.training) for m in module.modules() if hasattr(m, "training")]
    wanted = [p.requires_grad for p in module.parameters()]
    held = given.buffers_of(module)
    try:
        with contextlib.suppress(NotImplementedError):  # exported programs have one mode
            module.eval()
        seen = gradients([module], batches, layer, unit, definition, axes, number)
    finally:
        for part, training in modes:  # a part may be frozen in another than the whole
            if part.training != training:
                part.training = training
        for parameter, want in zip(module.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)
        given.restore(held)
    theory = Expected()
    with contextlib.suppress(RfbenchError):  # not to be traced: only with axes
        shapes = [tuple(x.shape[1:]) for x in batches[0]]
        size = shapes[0][1:]
        several = shapes if source is not None else None
        graph = Network(module, size, shapes[0][0], several).whole(size)
        theory = expected(graph, seen.layer, seen.unit, counts=False, source=source)
    figures = extent.measure(seen, extent.position(seen, theory.field), logarithm)
    figures |= {"reach": theory.reach, "definition": str(definition), **theory.random}
    if source is not None:
        figures["from"] = source
    name = model if isinstance(model, str) else type(module).__name__
    return reports.of_field(name, seen, figures)


@in_python
def audit(
    model: Model,
    size: int | Size | None = None,
    variant: str = "baseline",
    sizes: Sequence[int | Size] = (),
    in_channels: int | None = None,
    inputs: Sequence[Any] | None = None,
    layer: str | None = None,
    source: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    input_axes: str | None = None,
) -> Report:
    """What `rfbench rf audit` tells: faults, the layers that cause them, fixes and their costs.

    sizes: N, for N px along each axis, or (H, W), at which the shift is told as well. in_channels,
    inputs: as for `record`; layer, source: as for `theory`. Raises RfbenchError for a network that
    is not convolutional.
    """
    subject = given.with_inputs(model, size, variant, in_channels, inputs, model_args, input_axes)
    held = {"model": subject.backbone.name, "to": layer, "from": source}
    config = RfConfig.model_validate(held)
    found = audit_subject(config, subject, [given.checked(s) for s in sizes])
    return reports.of_audit(found)


@in_python
def tiles(
    model: Model,
    size: int | Size | None = None,
    tile: int | Size | None = None,
    layer: str | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    input_axes: str | None = None,
) -> Report:
    """How a network runs on tiles of an image as on the whole: `rfbench rf tiles`.

    tile: the size of a crop in px, its halo included; None: the smallest. layer: the last map when
    None. 'halo' has the px that a tile's units read before and after it, 'align' where crops may
    start, 'smallest' the smallest crop, 'crops' how much of larger ones is used, 'shown' what a run
    of both says: a copy with random weights, in float64. Raises RfbenchError where tiles cannot
    equal the whole image, UsageError for a crop that will not do.
    """
    subject = given.with_inputs(model, size, variant, in_channels, inputs, model_args, input_axes)
    config = RfConfig.model_validate({"model": subject.backbone.name, "to": layer})
    weighted = given.weighted(model, variant, subject, model_args)
    found, without = tiles_of(config, subject, weighted, tile)
    return reports.of_tiles(found, without)


@in_python
def mirror(
    model: Model,
    size: int | Size | None = None,
    layer: str | None = None,
    variant: str = "baseline",
    in_channels: int | None = None,
    inputs: Sequence[Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    input_axes: str | None = None,
) -> Report:
    """By how much flip tests are off: the map of a mirrored image, mirrored back.

    'axes' has by axis 'off' in px and 'units', by arithmetic; 'apart', 'move' and 'apart_moved' of
    a run with random symmetric kernels, and 'moved_image', near 0 where the mirrored map is that of
    the image moved by 'off' px. layer: the last map when None. Raises RfbenchError for a network
    that is not local.
    """
    subject = given.with_inputs(model, size, variant, in_channels, inputs, model_args, input_axes)
    config = RfConfig.model_validate({"model": subject.backbone.name, "to": layer})
    weighted = given.weighted(model, variant, subject, model_args)
    found, lines = mirror_of(config, subject, weighted)
    return reports.of_mirror(found, lines)
