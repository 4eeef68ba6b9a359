"""A few rows of the zoo as lines of text."""

from collections.abc import Sequence

from rfbench.plotting.columns import columns
from rfbench.rf.core.metric import Use
from rfbench.rf.core.metrics import used
from rfbench.rf.questions.zoo.zoo import Row


def table(rows: Sequence[Row]) -> str:
    """A line a model, px; '-' where a network has no such figure."""
    ranked = used(Use.RANK)
    shift = ranked[0]
    lines = [("model", "status", *(m.name for m in ranked), f"fixed {shift.name}")]
    for row in rows:
        cells = (m.text(row.get(m.name)) for m in ranked)
        lines.append((row["model"], row["status"], *cells, shift.text(row["fixed_shift"])))
    return "\n".join(columns(lines))
