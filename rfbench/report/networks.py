"""What is known of a variant's network: cost and receptive field, from records where they tell.

Nothing that a record names is imported or run: what a run has not written into its record is
measured for networks of the libraries, and for others only if the user asks for it.
"""

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rfbench.errors import RfbenchError, one_line
from rfbench.models import identity
from rfbench.report.model import Network
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import used
from rfbench.spatial_graph.graph import Size

# (model, names of its variants) -> PNG of their receptive fields
Draw = Callable[[str, Sequence[str]], bytes]
logger = logging.getLogger(__name__)


def from_record(content: Mapping[str, Any] | None) -> Network | None:
    """What a record says of its network; None: nothing. Values of another kind are left out."""
    if not content:
        return None
    macs, size, figures = (content.get(key) for key in ("macs", "size", "figures"))
    known = Network()
    if isinstance(macs, int) and not isinstance(macs, bool) and macs >= 0:
        known.macs = macs
    if isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size):
        known.size = (size[0], size[1])
    if isinstance(figures, dict):
        for metric in used(Use.RANK):
            value = figures.get(metric.name)
            if _fits(metric, value):
                known.figures[metric.name] = value
    return known


def _fits(metric: Metric, value: Any) -> bool:
    numbers = value if metric.pair and isinstance(value, list) and len(value) == 2 else [value]
    return len(numbers) == 1 + metric.pair and all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers
    )


def may_look(model: str, own: bool) -> bool:
    """Whether a network may be built; own: also one that is not of a library."""
    return own or identity.is_known(model)


def look(
    model: str, names: Sequence[str], size: Size | None, own: bool = False
) -> dict[str, Network]:
    """Cost and receptive field of variants whose records do not tell them.

    size: (H, W) of the input for the costs; None: the network's own. own: import and run the code
    of a network that is not of a library; otherwise nothing is known of it.
    """
    if not may_look(model, own):
        logger.warning(
            "%s: its records are of an older version and do not tell its receptive field; --look "
            "imports the network and measures it.",
            model,
        )
        return {}
    if not identity.is_known(model):
        logger.warning("importing %s, as the records name it", model)
    return {name: _network(model, name, size) for name in names}


@functools.cache  # groups share models
def _network(model: str, name: str, size: Size | None) -> Network:
    """One variant; what cannot be measured is logged, and stays None."""
    from rfbench.models import backbones  # imports torch, which records that tell do not need
    from rfbench.rf.core import recorded

    try:
        found = recorded.look(backbones.build(model, name, meta=True), size)
    except RfbenchError as error:
        logger.warning("%s / %s: not measured: %s", model, name, one_line(error, 1000))
        return Network()
    return Network(found["figures"], found["macs"], found["size"])
