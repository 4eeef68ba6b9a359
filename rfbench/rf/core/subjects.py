"""What a question is asked of: every model asked for, in every variant asked for."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rfbench.errors import UsageError
from rfbench.models import backbones, variants, weight_files
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.graph import Size
from rfbench.spatial_graph.reader import spatial_graph

log = logging.getLogger(__name__)


class Wanted(Protocol):
    """What is asked for, as `RfConfig` says it."""

    @property
    def model(self) -> str | list[str]:
        """A name, or several."""

    @property
    def variants(self) -> Sequence[Any] | None:
        """Names, or variants as data; None: no wish."""

    @property
    def weights(self) -> str | None:
        """A checkpoint that must fit."""

    @property
    def size(self) -> int | Size | None:
        """N or (H, W), px; None: the network's own."""


@dataclass
class Subject:
    """A network in one variant."""

    title: str
    backbone: backbones.Backbone
    network: Network
    size: Size  # the user's own

    def target(self, layer: str | None, source: str | None, size: Size | None = None) -> Target:
        """A layer, seen from a source, at the user's size or at another."""
        return self.network.target(size or self.size, layer, source)


def models(config: Wanted) -> list[str]:
    """The models of a configuration."""
    return [config.model] if isinstance(config.model, str) else config.model


def subjects(config: Wanted) -> Iterator[Subject]:
    """Build every model in every variant, one at a time.

    Without explicit variants: the paper's that change the network, each distinct change once; the
    log names those left out. Raises UsageError for unknown names.
    """
    wanted = _wanted(config)
    for model in models(config):
        seen: list[list[str]] = []
        idle: list[str] = []
        for variant in wanted or [variants.get(name) for name in variants.PAPER]:
            try:
                backbone = backbones.build(model, variant, config.weights, meta=True)
            except UsageError:
                if wanted or not variant.kernels:
                    raise
                idle.append(variant.name)
                continue
            if not wanted and backbone.replaced in seen:
                idle.append(variant.name)
                continue
            seen.append(backbone.replaced)
            alone = len(models(config)) == 1
            title = variant.name if alone else f"{short(model)}\n{variant.name}"
            network = Network(backbone.module, backbone.input_size)
            yield Subject(title, backbone, network, _size(config, backbone))
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


def _size(config: Wanted, backbone: backbones.Backbone) -> Size:
    if config.size is None:
        return backbone.input_size
    return (config.size, config.size) if isinstance(config.size, int) else config.size


def list_layers(subject: Subject) -> list[tuple[str, Size, Any]]:
    """Layers that --from and --to take: name, map size and effective stride at the own size."""
    graph = spatial_graph(subject.backbone.module, subject.size)
    theory = Target(graph).theory
    rows = []
    for name, size in graph.maps().items():
        y, x = theory.of(graph, graph.layer(name))
        rows.append((name, size, (y.stride, x.stride) if y and x else None))
    return rows
