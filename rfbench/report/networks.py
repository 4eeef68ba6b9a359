"""What is known of a variant's network: cost and receptive field, from records where they tell.

Nothing that a record names is imported or run: what a run has not written into its record is
measured for networks of the libraries, and for others only if the user asks for it.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rfbench.errors import RfbenchError, one_line
from rfbench.models import identity
from rfbench.report.model import Network
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import used
from rfbench.runs import measured
from rfbench.spatial_graph.size import Size

MORE = ("size", "misaligned")  # what a caption says besides the metrics that variants are ranked by
logger = logging.getLogger(__name__)


def from_record(content: measured.Network | None) -> Network | None:
    """What a record says of its network; None: nothing."""
    if content is None:
        return None
    told = content.figures.model_dump(exclude_unset=True) if content.figures else {}
    known = Network(macs=content.macs, map=content.map)
    if content.size and len(content.size) == 2:
        known.size = (content.size[0], content.size[1])
    for metric in used(Use.RANK):
        if _fits(metric, told.get(metric.name)):
            known.figures[metric.name] = told[metric.name]
    if known.figures:
        known.figures |= {k: told[k] for k in MORE if told.get(k) is not None}
    return known


def _fits(metric: Metric, value: Any) -> bool:
    """Whether it is a value of an image's map: of every axis, or one."""
    numbers = value if metric.pair and isinstance(value, list) and len(value) == 2 else [value]
    return len(numbers) == 1 + metric.pair and all(isinstance(n, int | float) for n in numbers)


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
    return Network(found["figures"], found["macs"], found["size"], found["map"])


def map_of(model: str, name: str, figures: Mapping[str, Any]) -> Any:
    """The map of a variant whose record has `figures` and no map; None: not drawn, which is logged.

    The network is built as of today: one with other figures is not the record's.
    """
    built = _network(model, name, None)
    for metric in used(Use.RANK) if built.figures else ():
        told, now = figures.get(metric.name), built.figures.get(metric.name)
        if told is not None and (now is None or not np.allclose(told, now, atol=1e-4)):
            texts = metric.text(now), metric.text(told)
            what = f"the {metric.name} of the network is {texts[0]}, of its record {texts[1]}"
            logger.warning("%s / %s: not drawn: %s", model, name, what)
            return None
    return built.map
