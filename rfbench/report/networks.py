"""What is known of a variant without training it: cost and receptive field."""

import functools
import logging
from collections.abc import Callable, Sequence

from rfbench.errors import RfbenchError, one_line
from rfbench.models import backbones
from rfbench.report.model import Network
from rfbench.rf.core import metrics, network
from rfbench.rf.core.target import pair
from rfbench.spatial_graph.graph import Size

# (model, names of its variants) -> PNG of their receptive fields
Draw = Callable[[str, Sequence[str]], bytes]
logger = logging.getLogger(__name__)


def look(
    model: str, names: Sequence[str], size: Size | None, draw: Draw | None = None
) -> tuple[dict[str, Network], bytes | None]:
    """Cost and receptive field of variants of a model, and an image of the fields.

    size: (H, W) of the input for the costs; None: the network's own.
    """
    networks = {name: _network(model, name, size) for name in names}
    measured = [name for name, one in networks.items() if one.figures]
    return networks, draw(model, measured) if draw and measured else None


@functools.cache  # groups share models
def _network(model: str, name: str, size: Size | None) -> Network:
    """One variant; what cannot be measured is logged, and stays None."""
    measured = Network()
    try:
        backbone = backbones.build(model, name, meta=True)
        built = network.Network(backbone.module, backbone.input_size)
        at = measured.size = pair(size or backbone.input_size, "a table of networks")
        measured.macs = built.cost(at).macs
        target = built.uncut(built.target(backbone.input_size))
        figures = metrics.measure(target.counts(), target.geometry)
    except RfbenchError as error:
        logger.warning("%s / %s: not measured: %s", model, name, one_line(error, 1000))
        return measured
    measured.figures = figures
    return measured
