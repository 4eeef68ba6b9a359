"""The order of rows: the paper's, or by any column."""

import functools
from collections.abc import Callable
from typing import Any

from rfbench.errors import UsageError, suggest
from rfbench.models import variant as variants
from rfbench.plotting.columns import natural
from rfbench.report import metrics
from rfbench.report.model import Report, Row
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import used

# by the first word of a column's heading
COLUMNS: dict[str, Callable[[Row], Any]] = {
    "variant": lambda row: paper_order(row.variant),
    "seeds": lambda row: -len(row.runs),
    "parameters": lambda row: row.parameters,
    "non-zero": lambda row: row.nonzero,
    "macs": lambda row: row.network.macs,
    "step": lambda row: row.step_time,
}


def columns() -> dict[str, Callable[[Row], Any]]:
    """All columns except the metrics of runs; includes those of receptive fields."""
    return COLUMNS | {metric.name: functools.partial(_badness, metric) for metric in used(Use.RANK)}


def _badness(metric: Metric, row: Row) -> float | None:
    value = row.network.figures.get(metric.name)
    return None if value is None else metric.badness(value)


def paper_order(variant: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Sort key of variants: the paper's, then the controls, then the user's by name."""
    known = list(variants.listed())
    return known.index(variant) if variant in known else len(known), natural(variant)


def column_of(heading: str) -> str:
    """'MACs at 224 px' is macs; what is no such column is a metric's name, 'Δ' the first one's."""
    word = heading.lower().split(" ")[0]
    return word if word in columns() else heading


def check(report: Report, column: str) -> None:
    """Raise UsageError for a metric that no group shows, naming the nearest column."""
    known = dict.fromkeys(metric for group in report.groups for metric in group.metrics)
    if column != "Δ" and not any(metrics.fits(column, metric) for metric in known):
        names = [*columns(), *map(metrics.label, known)]
        near = suggest(column, names) or f" There are: {', '.join(names)}."
        raise UsageError(f"--sort: there is no column '{column}'.{near}")


def rows(report: Report, column: str) -> None:
    """Sort all rows: better or smaller values first, unknown ones last."""
    for group in report.groups:
        fitting = [m for m in group.metrics if column == "Δ" or metrics.fits(column, m)]
        by = columns().get(column) or (_by(fitting[0]) if fitting else COLUMNS["variant"])
        for block in group.blocks:
            block.rows.sort(key=lambda row, by=by: _last(by(row)))  # type: ignore[misc]


def _by(metric: str) -> Callable[[Row], Any]:
    sign = -(metrics.direction(metric) or 1)
    return lambda row: sign * row.cells[metric].mean if metric in row.cells else None


def _last(value: Any) -> tuple[bool, Any]:
    unknown = value is None or value != value
    return unknown, 0 if unknown else value
