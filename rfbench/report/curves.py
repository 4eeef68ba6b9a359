"""The curves of a block's runs, as data for charts: means over seeds with their range."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from rfbench.errors import RfbenchError, one_line, printable
from rfbench.plotting import palette
from rfbench.report import metrics
from rfbench.report.model import Block, Group
from rfbench.report.runs import Run
from rfbench.runs import progress

logger = logging.getLogger(__name__)

MOST = 64 << 20  # bytes of metrics.jsonl, 300,000 lines and more
POINTS = 200  # of a curve on the page
Curve = tuple[list[float], list[float]]


def curves(group: Group, block: Block, keys: Sequence[str]) -> list[dict[str, Any]]:
    """A panel for the training loss and each repeatedly evaluated metric, [] if there is none.

    keys: of the block's rows. A panel has a title, and a series for every row: its key, label and
    colour, steps, and at each the mean, the least and the largest of its seeds.
    """
    rows = [(key, row) for key, row in zip(keys, block.rows, strict=True) if row.runs]
    told = [[_lines(run) for run in row.runs] for _, row in rows]
    panels = {"training loss": [_curves(runs, "train", "loss") for runs in told]}
    for name in group.metrics:
        panels[metrics.label(name)] = [_curves(runs, "val", name) for runs in told]
    colours = palette.colours(row.variant for _, row in rows)
    return [
        {
            "title": printable(title),
            "series": [
                {
                    "key": key,
                    "label": printable(row.label),
                    "colour": colours[row.variant],
                    **_band(lines),
                }
                for (key, row), lines in zip(rows, by_row, strict=True)
                if lines
            ],
        }
        for title, by_row in panels.items()
        if any(len(x) > 1 for lines in by_row for x, _ in lines)
    ]


def _lines(run: Run) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; none if it is missing or damaged, which is told."""
    try:
        return progress.read_metrics(run.folder, MOST)
    except FileNotFoundError:
        return []
    except (OSError, RfbenchError) as error:
        where = f"{run.folder / progress.METRICS}: " * isinstance(error, OSError)
        what = (error.strerror if isinstance(error, OSError) else None) or error
        logger.warning("its curves are left out: %s%s", where, one_line(what, 300))
        return []


def _curves(runs: Sequence[list[dict[str, Any]]], split: str, metric: str) -> list[Curve]:
    """(steps, values) of every run that has them."""
    key = metric.replace(".", "/") if "." in metric else metric
    curves = []
    for lines in runs:
        own = [(x["step"], x.get(key)) for x in lines if x["split"] == split]
        values = [(metrics.figure(step), metrics.figure(value)) for step, value in own]
        points = [(x, y) for x, y in values if x is not None and y is not None]
        if points:
            curves.append(([x for x, _ in points], [y for _, y in points]))
    return curves


def _band(lines: Sequence[Curve]) -> dict[str, list[float]]:
    """The mean over seeds and its range, at the steps that all seeds cover."""
    # nearly always the same in all runs of a setting; beyond its end a curve is not known
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    at = [step for step in lines[0][0] if first <= step <= last]
    at = at[:: -(-len(at) // POINTS) or 1]
    values = np.array([np.interp(at, x, y) for x, y in lines])
    bands = {"mean": values.mean(0), "low": values.min(0), "high": values.max(0)}
    return {"x": at, **{name: [float(f"{v:.6g}") for v in row] for name, row in bands.items()}}
