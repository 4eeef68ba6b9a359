"""The receptive fields of a group's rows: of their records, or of networks built anew."""

import logging
from typing import Any

from rfbench.errors import RfbenchError, one_line, printable
from rfbench.report import networks
from rfbench.report.model import Block, Field, Group, Row
from rfbench.report.sheets import settings_line
from rfbench.rf.core import recorded_map
from rfbench.rf.core.metrics import caption

logger = logging.getLogger(__name__)

# what a record does not tell, or tells elsewhere on the page
UNTOLD: dict[str, Any] = {
    "shift": None,
    "gridding": None,
    "gridding_by_period": None,
    "misaligned": 0,
}
UNTOLD |= {"bypass": 0, "cut": False, "size": [0, 0]}


def gather(group: Group, own: bool) -> None:
    """Add the fields of a group's rows, each once; what is damaged is logged and left out.

    own: import networks that are not of a library, for records that hold no map.
    """
    seen: dict[tuple[str, str], Field] = {}
    for block in group.blocks:
        for row in (r for r in block.rows if r.network.figures):
            content = _map(group, row, own)
            held = None if content is None else _decoded(content, row)
            if held is None:
                group.unmapped.append(_title(block, row, True))
            elif (key := (row.variant, content["png"])) not in seen:
                taken = any(variant == row.variant for variant, _ in seen)
                seen[key] = Field(_title(block, row, taken), _words(row), held)
    group.fields = list(seen.values())


def _decoded(content: Any, row: Row) -> recorded_map.RecordedMap | None:
    try:
        return recorded_map.decode(content)
    except ValueError as error:
        where = row.runs[0].folder if row.runs else row.label
        logger.warning("%s: its map is left out: %s", where, one_line(error, 300))
        return None


def _words(row: Row) -> str:
    """The figures of a row's network, as they stand below its map."""
    figures = row.network.figures
    words = caption({**UNTOLD, **figures}, brief="size" not in figures).strip(", ")
    if row.is_pruned and len(row.runs) > 1:  # what is left differs from seed to seed
        told = next(run.record.seed for run in row.runs if run.record.network)
        words = f"seed {told}: {words}"
    return words


def _title(block: Block, row: Row, whole: bool) -> str:
    """The row's name; whole: with its setting, as another setting's network may look elsewhere."""
    setting = settings_line(block)
    return printable(f"{row.variant} ({setting})" if whole and setting else row.variant)


def _map(group: Group, row: Row, own: bool) -> Any:
    """The map that a row's record holds, or of its network."""
    if row.network.map is not None:
        return row.network.map
    # what pruning left is not known, and rows of several models name none
    if row.is_pruned or not row.runs or row.runs[0].rows:
        return None
    if not networks.may_look(group.name, own):
        return None
    try:
        return networks.map_of(group.name, row.variant, row.network.figures)
    except RfbenchError as error:
        logger.warning("%s: not drawn: %s", group.name, one_line(error, 1000))
        return None
