"""What the record of a training keeps of its network: cost, receptive field and its map."""

import logging
from collections.abc import Callable
from typing import Any

from rfbench.errors import RfbenchError, one_line
from rfbench.models import identity
from rfbench.models.backbones import Backbone
from rfbench.rf.core import metrics, recorded_map
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import PathMap
from rfbench.spatial_graph.size import Size

logger = logging.getLogger(__name__)


def look(backbone: Backbone, size: Size | None = None) -> dict[str, Any]:
    """The cost of an image of `size` (None: the network's own), and the metrics of the network.

    {"size": (H, W), "macs", "code" (see `identity.code_of`), "figures": by name (`metrics`), of
    the central unit of the last map, on an input that cuts nothing off, "map": see `recorded_map`;
    None: it has none}. Raises RfbenchError where the network cannot be measured.
    """
    network = Network(backbone.module, backbone.input_size)
    size = size or backbone.input_size
    macs = network.cost(size).macs
    try:
        target = network.uncut(network.target(backbone.input_size))
    except RfbenchError:
        if size == backbone.input_size:
            raise
        target = network.uncut(network.target(size))  # own networks may run at one size only
    code = identity.code_of(backbone.name)
    counts = target.counts()
    every = metrics.measure(counts, target.geometry)
    figures = {name: every[name] for name in (*(m.name for m in metrics.METRICS), "size", "stride")}
    held = _map(counts, every, backbone.name)
    return {"size": size, "macs": macs, "code": code, "figures": figures, "map": held}


def _map(counts: PathMap, figures: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The map as a record keeps it; one that does not fit there is logged, and None."""
    try:
        return recorded_map.encode(counts, figures)
    except ValueError as error:
        logger.warning("the map of %s is left out of the record: %s", name, error)
        return None


def for_record(build: Callable[[], Backbone], size: Size | None = None) -> dict[str, Any] | None:
    """As `look`, for the record of a training: what cannot be measured is logged, and None."""
    try:
        return look(build(), size)
    except Exception as error:  # the results of a long run must not be lost
        logger.warning(
            "the receptive field is left out of the record: it was not measured: %s",
            one_line(error, 300),
        )
        return None
