"""The plots of a block: differences with intervals and seeds, and the curves of the runs."""

import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from rfbench.errors import RfbenchError, one_line
from rfbench.plotting import palette
from rfbench.plotting.page import literal
from rfbench.report import metrics, paper
from rfbench.report.model import Block, Group, Row
from rfbench.report.runs import Run
from rfbench.runs import progress

logger = logging.getLogger(__name__)

DPI = 160
ACROSS = 3  # panels side by side
MOST = 64 << 20  # bytes of metrics.jsonl, 300,000 lines and more
Curve = tuple[list[float], list[float]]


def differences(group: Group, block: Block, baseline: str) -> bytes | None:
    """Bars of the differences to the baseline, their intervals, and one dot a seed; a PNG."""
    rows = [row for row in block.rows if row.source == "ours" and not row.alone]
    names = [n for n in group.metrics if any(r.cells[n].test for r in rows)]
    rows = [row for row in rows if any(cell.test for cell in row.cells.values())]
    if not rows:
        return None
    base = next(r for r in block.rows if r.variant == baseline and r.source == "ours")
    published = {r.variant: r for r in block.rows if r.source == paper.NAME}
    figure, panels = _panels(len(names), 0.5 + 0.28 * len(rows) + 0.45)
    for i, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for y, row in enumerate(rows):
            _bar(axes, y, row, base, name, published.get(row.variant))
        axes.axvline(0, color="black", linewidth=0.8)
        shown = [r.variant for r in rows] if i % ACROSS == 0 else []
        axes.set_yticks(range(len(rows)), shown, parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_title(f"{metrics.label(name)}, minus {baseline}", fontsize=9, parse_math=False)
        axes.margins(x=0.08)
    return _png(figure)


def _bar(axes: Axes, y: int, row: Row, base: Row, name: str, published: Row | None) -> None:
    cell, theirs = row.cells[name], base.cells[name].values
    if cell.test is None:
        return
    axes.barh(y, cell.test.difference, height=0.62, color=palette.BLUE, alpha=0.45)
    if cell.test.low is not None and cell.test.high is not None:
        axes.plot([cell.test.low, cell.test.high], [y, y], color="black", linewidth=1.2)
    dots = [value - theirs[seed] for seed, value in cell.values.items() if seed in theirs]
    spread = y + np.linspace(-0.15, 0.15, len(dots)) if len(dots) > 1 else [y]
    axes.plot(dots, spread[: len(dots)], "o", color=palette.BLUE, markersize=3.2)
    if published and name in published.cells and (test := published.cells[name].test):
        axes.plot(test.difference, y, "D", markersize=5, fillstyle="none", color=palette.VERMILION)


def curves(group: Group, block: Block) -> bytes | None:
    """Training loss and repeatedly evaluated metrics: means over seeds with their range; a PNG."""
    rows = [row for row in block.rows if row.runs]
    told = [[_lines(run) for run in row.runs] for row in rows]
    series = {"training loss": [_curves(runs, "train", "loss") for runs in told]}
    for name in group.metrics:
        series[metrics.label(name)] = [_curves(runs, "val", name) for runs in told]
    series = {name: lines for name, lines in series.items() if any(map(_is_long, lines))}
    if not series:
        return None
    figure, panels = _panels(len(series), 2.3)
    colours = palette.colours(row.variant for row in rows)
    for axes, (name, by_row) in zip(panels, series.items(), strict=True):
        for row, lines in zip(rows, by_row, strict=True):
            if lines:
                _curve(axes, lines, colours[row.variant], row.label)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = min(4, len(labels))
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "frameon": False}
    literal(figure.legend(handles, labels, **place))
    return _png(figure)


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
        points = [(x, y) for x, y in values if x is not None and y]
        if points:
            curves.append(([x for x, _ in points], [y for _, y in points]))
    return curves


def _is_long(lines: Sequence[Curve]) -> bool:
    return any(len(x) > 1 for x, _ in lines)


def _curve(axes: Axes, lines: Sequence[Curve], colour: str, label: str) -> None:
    at = lines[0][0]  # nearly always the same in all runs of a setting
    values = np.array([np.interp(at, x, y) for x, y in lines])
    mark = "o" if len(at) < 20 else ""
    axes.plot(at, values.mean(0), marker=mark, ms=2.5, lw=1.3, color=colour, label=label)
    axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    across = min(ACROSS, count)
    down = -(-count // across)
    figure = Figure((3.3 * across + 0.9, height * down + 0.3), dpi=DPI)
    figure.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.09))
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels[:count]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels[:count]


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
