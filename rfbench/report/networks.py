"""What is known of a variant without training it: cost and receptive field."""

import functools
import logging
from collections.abc import Callable, Sequence

from rfbench.errors import RfbenchError, one_line
from rfbench.models import backbones
from rfbench.report.model import Network
from rfbench.rf.core import metrics, network
from rfbench.spatial_graph.graph import Size

# of a model and names of its variants: a PNG of their receptive fields
Draw = Callable[[str, Sequence[str]], bytes]
logger = logging.getLogger(__name__)


def look(
    model: str, names: Sequence[str], size: Size | None, draw: Draw | None = None
) -> tuple[dict[str, Network], bytes | None]:
    """Cost and receptive field of variants of a model, and an image of the fields.

    size: of the input (H, W) that costs are of; None: the network's own.
    """
    found = {name: _network(model, name, size) for name in names}
    measured = [name for name, one in found.items() if one.figures]
    return found, draw(model, measured) if draw and measured else None


@functools.cache  # groups share models
def _network(model: str, name: str, size: Size | None) -> Network:
    """One variant; what cannot be found out is logged, and left at None."""
    found = Network()
    try:
        backbone = backbones.build(model, name, meta=True)
        held = network.Network(backbone.module, backbone.input_size)
        found.size = size or backbone.input_size
        found.macs = held.cost(found.size).macs
        target = held.uncut(held.target(backbone.input_size))
        measured = metrics.measure(target.counts(), target.geometry)
    except RfbenchError as error:
        logger.warning("%s / %s: not measured: %s", model, name, one_line(error, 1000))
        return found
    found.figures = measured
    return found
