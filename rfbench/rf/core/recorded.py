"""What the record of a training keeps of its network: cost, and metrics of the receptive field."""

import logging
from collections.abc import Callable
from typing import Any

from rfbench.errors import RfbenchError, one_line
from rfbench.models import identity
from rfbench.models.backbones import Backbone
from rfbench.rf.core import metrics
from rfbench.rf.core.network import Network
from rfbench.spatial_graph.graph import Size

logger = logging.getLogger(__name__)


def look(backbone: Backbone, size: Size | None = None) -> dict[str, Any]:
    """The cost of an image of `size` (None: the network's own), and the metrics of the network.

    {"size": (H, W), "macs", "code" (see `identity.code_of`), "figures": by name (`metrics`), of
    the central unit of the last map, on an input that cuts nothing off}. Raises RfbenchError where
    the network cannot be measured.
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
    every = metrics.measure(target.counts(), target.geometry)
    figures = {name: every[name] for name in (*(m.name for m in metrics.METRICS), "size", "stride")}
    return {"size": size, "macs": macs, "code": code, "figures": figures}


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
