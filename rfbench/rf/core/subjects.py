"""What a question is asked of: every model asked for, in every variant asked for."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from rfbench.errors import NothingToChange, RfbenchError, UsageError
from rfbench.models import arguments, backbones, pruned, variants, weight_files
from rfbench.models.weight_files import LIBRARIES
from rfbench.rf.core import theory as arithmetic
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.spatial_graph import call, order
from rfbench.spatial_graph.call import Call, Form
from rfbench.spatial_graph.generator import first_map
from rfbench.spatial_graph.graph import is_map
from rfbench.spatial_graph.inputs import size_as_fits
from rfbench.spatial_graph.node import Opaque
from rfbench.spatial_graph.size import Size, by

log = logging.getLogger(__name__)
Out = TypeVar("Out")


class Wanted(Protocol):
    """What is asked for, as `RfConfig` says it."""

    @property
    def model(self) -> str | list[str]:
        """A name, or several."""

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of every model's function."""

    @property
    def variants(self) -> Sequence[Any] | None:
        """Names, or variants as data; None: no wish."""

    @property
    def weights(self) -> str | None:
        """A checkpoint that must fit."""

    @property
    def ema(self) -> bool:
        """Whether its averaged weights are taken, where it holds both."""

    @property
    def size(self) -> int | Size | None:
        """N, or as many numbers as there are axes; None: the network's own."""

    @property
    def in_channels(self) -> int | None:
        """Channels of the input; None: as the network takes."""

    @property
    def inputs(self) -> Sequence[Form] | None:
        """(C, H, W) of each of several inputs, or with other axes; None: one, of `size`."""

    @property
    def input_axes(self) -> str | None:
        """The axes of `inputs`, such as 'NLC'; None: as the network takes them."""


@dataclass
class Subject:
    """A network in one variant."""

    title: str
    backbone: backbones.Backbone
    network: Network
    size: Size  # the user's own
    state: Mapping[str, Tensor] = field(default_factory=dict)  # of the weights, where they are told

    @property
    def is_pruned(self) -> bool:
        """Whether its weights have zeros, of which the network takes account."""
        return self.network.module is not self.backbone.module

    def with_weights(self, state: Mapping[str, Tensor]) -> "Subject":
        """The same with weights; a tap of a kernel whose weights are all zero is no longer read."""
        module = pruned.shown(self.backbone.module, state)
        network = replace(self.network, module=module, graphs={}, traces={})
        return replace(self, network=network, state=state)

    def target(self, layer: str | None, source: str | None, size: Size | None = None) -> Target:
        """A layer, seen from a source, at the user's size or at another."""
        return self.network.target(size or self.size, layer, source)


def models(config: Wanted) -> list[str]:
    """The models of a configuration."""
    names = [config.model] if isinstance(config.model, str) else config.model
    return [arguments.named(name, config.model_args) for name in names]


def subjects(config: Wanted) -> Iterator[Subject]:
    """Build every model in every variant, one at a time.

    Without explicit variants: the paper's that change the network, each distinct change once; with
    them, of several models those that they change. The log names what is left out. Raises
    UsageError for unknown names, and for a variant that changes none of the models.
    """
    if config.inputs and (config.size is not None or config.in_channels is not None):
        raise UsageError("--input says size and channels: leave out --size and --in-channels")
    if config.input_axes and not config.inputs:
        raise UsageError("--input-axes names the axes of --input: give that as well")
    wanted = _wanted(config)
    several = len(models(config)) > 1
    useless = {variant.name: 0 for variant in wanted}
    examples = [call.example(form) for form in config.inputs or ()]
    if examples:
        tell_conditions(examples)
    for model in models(config):
        seen: list[list[str]] = []
        idle: list[str] = []
        for variant in wanted or [variants.get(name) for name in variants.PAPER]:
            try:
                backbone = backbones.build(
                    model,
                    variant,
                    config.weights,
                    meta=True,
                    ema=config.ema,
                    inputs=examples or None,
                )
            except UsageError as error:
                skipped = wanted and several and isinstance(error, NothingToChange)
                if not variant.changes or (wanted and not skipped):
                    raise
                if skipped:
                    useless[variant.name] += 1
                    if useless[variant.name] == len(models(config)):
                        raise
                idle.append(variant.name)
                continue
            if not wanted and backbone.replaced in seen:
                idle.append(variant.name)
                continue
            seen.append(backbone.replaced)
            title = f"{short(model)}\n{variant.name}" if several else variant.name
            if examples:
                network = of_inputs(backbone.module, examples, config.input_axes)
                backbone = replace(backbone, module=network.module)
                size = network.native
            else:
                size = input_size(backbone, config.size, config.in_channels)
                native = size if len(size) != 2 else backbone.input_size
                network = Network(backbone.module, native, config.in_channels)
            subject = Subject(title, backbone, network, size)
            if config.weights:
                names = backbone.name, backbone.variant
                own = backbone.module.state_dict().keys()
                held = weight_files.state_dict(config.weights, *names, own, ema=config.ema)
                subject = subject.with_weights(held)
            yield subject
        if idle:
            log.info(f"{model}: left out {', '.join(idle)} (nothing to change, or nothing new)")


def _wanted(config: Wanted) -> list[variants.Variant]:
    """The variants asked for, or the one that the weights are of; empty: no wish."""
    if config.variants is not None:
        given = [v if isinstance(v, str) else v.model_dump() for v in config.variants]
        return [variants.get(v) for v in given]
    held = weight_files.variant_of(config.weights) if config.weights else None
    return [variants.get(held)] if held else []


def short(model: str) -> str:
    """A name for titles: the function of one's own file, the network of a library."""
    return model.rpartition(":")[2]


def tell_conditions(examples: Sequence[Any]) -> None:
    """Log which inputs are no maps; one that might be meant as a map as a warning."""
    for i, value in call.split(examples)[1].items():
        level = logging.WARNING if isinstance(value, Tensor) and value.dim() > 2 else logging.INFO
        log.log(level, f"input.{i} ({call.text(value)}) is no map but a condition: any values")


def of_inputs(module: nn.Module, inputs: Sequence[Any], axes: str | None) -> Network:
    """A network with inputs as these examples, which are its own: it may take no others.

    axes: of the maps as letters, such as 'NLC'; None: as its first convolution says. Its module
    takes the maps alone, with the channels first, whatever that of the user does; the log says so.
    """
    maps, conditions = call.split(inputs)
    own_shapes, start, trace = [tuple(x.shape[1:]) for x in maps], None, None
    if not maps:
        try:
            made = first_map(module, inputs)
        except RfbenchError as error:
            raise call.no_map(inputs, str(error)) from error
        if made is None:
            raise call.no_map(
                inputs,
                "No layer reads a map that is made of vectors, no convolution one of tokens",
            )
        start, shape = made
        own_shapes = [shape]
        log.info(
            f"fields begin at the map of {shape[0]} x {by(shape[1:])} that it makes of vectors"
        )
    own = Call(1, conditions, start).of(module)
    if axes is not None:
        dim = order.said(axes, own_shapes)
    else:
        dim, trace = order.found(own, own_shapes)
    shapes = [order.moved(shape, dim) for shape in own_shapes]
    if dim != 1 and axes is None:
        form = order.text(dim, shapes[0])
        log.info(f"the input is {form}: {shapes[0][0]} channels, {by(shapes[0][1:])} positions")
    size = shapes[0][1:]
    called = Call(dim, conditions, start)
    network = Network(called.of(module), size, None, shapes, call=called)
    if trace is not None:
        network.traces[size] = trace
    return network


def input_size(backbone: backbones.Backbone, size: int | Size | None, channels: int | None) -> Size:
    """The size of an input along every axis, where one number or none is given."""
    if isinstance(size, tuple):
        return size
    if backbone.name.partition(":")[0] in LIBRARIES:
        return (size, size) if size else backbone.input_size
    return size_as_fits(backbone.module, size, channels)


def list_layers(subject: Subject) -> list[tuple[str, Size, Any, str]]:
    """Layers that --from and --to take, at the own size.

    Of each its name, the size of its map, the effective stride where units have one, and how far a
    unit looks where that is farther than windows and global context: 'global'.
    """
    graph = subject.network.whole(subject.size)
    theory = arithmetic.theory(graph, (graph.inputs and next(iter(graph.inputs.values()))) or None)
    mixing = graph.mixing()
    rows = []
    for name, size in graph.maps().items():
        value = graph.layer(name)
        fields = theory.of(graph, value)
        known = all(f is not None and f.stride for f in fields)
        mixed = not mixing.isdisjoint(graph.share(value))
        extent = graph.witness(value).extent if mixed else ""
        rows.append((name, size, tuple(f.stride for f in fields if f) if known else None, extent))
    return rows


def ends(subject: Subject, layer: str | None, source: str | None) -> list[tuple[Any, Any]]:
    """(layer, source) of every figure asked for: where none is named, each output and each input.

    Outputs without positions are left out, and the log says so.
    """
    if layer is not None and source is not None:
        return [(layer, source)]
    graph = subject.network.whole(subject.size)
    layers: list[str | None] = [layer]
    if layer is None and len(graph.outputs) > 1 and graph.failure is None:
        held = graph.outputs
        layers = [n for n in held if is_map(held[n]) or isinstance(held[n], Opaque)] or [None]
        if missing := [name for name in held if name not in layers]:
            log.info(f"without positions: {', '.join(missing)}")
    return [(to, start) for to in layers for start in sources(subject, source)]


def sources(subject: Subject, source: str | None) -> list[Any]:
    """The source that is named, else each of several inputs; [None] for the only one."""
    inputs = subject.network.whole(subject.size).inputs
    return [source] if source is not None or not inputs else [*inputs]


def measured(ends: Sequence[tuple[Any, Any]], measure: Callable[[Any, Any], Out]) -> Iterator[Out]:
    """What `measure` tells of each (layer, source).

    Ends that nobody has named do not stand in each other's way: those that cannot be measured are
    left out, and the log says why. Raises what the first one raises where that is true of all.
    """
    failed: list[tuple[str, RfbenchError]] = []
    for to, source in ends:
        try:
            result = measure(to, source)
        except RfbenchError as error:
            failed.append((" from ".join(filter(None, (to or "the output", source))), error))
        else:
            yield result
    if len(failed) == len(ends):
        raise failed[0][1]
    for where, why in failed:
        log.info(f"left out {where}: {why}")
