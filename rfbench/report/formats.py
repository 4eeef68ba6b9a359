"""A comparison as plain text, Markdown, CSV or JSON."""

import csv
import dataclasses
import functools
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rfbench import json_text
from rfbench.errors import printable
from rfbench.report import metrics
from rfbench.report.model import Block, Group, Network, Report, Row
from rfbench.report.sheets import Sheet, kernel_sizes, legend, settings_line, sheets
from rfbench.rf.core.metric import Use
from rfbench.rf.core.metrics import used


def table(report: Report) -> str:
    """Plain text for a terminal."""
    lines: list[str] = []
    for group in report.groups:
        for block in group.blocks:
            lines += [group.title, *wrap(settings_line(block), "  "), ""]
            for sheet in sheets(group, block):
                lines += [*_aligned(sheet), ""]
            lines += [line for note in block.notes for line in wrap(note, "- ")]
            lines += [""] * bool(block.notes)
    return "\n".join([*lines, *(line for text in legend(report) for line in wrap(text, "  "))])


def wrap(text: str, first: str) -> list[str]:
    """Lines of at most 100 characters; `first` precedes the first, the others are indented."""
    return textwrap.wrap(
        text,
        100,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _aligned(sheet: Sheet) -> list[str]:
    columns = list(zip(sheet.head, *sheet.texts, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = sheet.numeric
    lines = []
    for cells in (sheet.head, *sheet.texts):
        padded = [
            c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def markdown(report: Report) -> str:
    """Tables of GitHub's Markdown."""
    parts: list[str] = []
    for group in report.groups:
        for block in group.blocks:
            parts.append(f"### {_plain(group.title)}")
            if block.keys:
                parts.append("`{}`".format(settings_line(block).replace("`", "'")))
            for sheet in sheets(group, block):
                rule = ["---"] * len(sheet.head)
                rows = [sheet.head, rule, *sheet.texts]
                cells = [[_plain(c) for c in row] for row in rows]
                parts.append("\n".join(f"| {' | '.join(row)} |" for row in cells))
            if block.notes:
                parts.append("\n".join(f"- {_plain(note)}" for note in block.notes))
    plain = dataclasses.replace(report, baseline=_plain(report.baseline))
    parts.append("\n".join(f"- {text}" for text in legend(plain)))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Text from outside for Markdown: no HTML, links or images, no cell's end."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return text.replace("](", "]\\(")


def entries(report: Report, entry: Callable[[Group, Block, Row, str], Any]) -> list[Any]:
    """`entry` of every metric of every row."""
    return [
        entry(group, block, row, name)
        for group in report.groups
        for block in group.blocks
        for row in block.rows
        for name in group.metrics
    ]


def table_csv(report: Report) -> str:
    """CSV with a line for every metric of every row."""
    sizes = kernel_sizes(row for group in report.groups for b in group.blocks for row in b.rows)
    rows = entries(report, functools.partial(_entry, sizes))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    """A cell that a spreadsheet shows and does not compute: text is no formula."""
    if not isinstance(value, str | Path):
        return value
    text = printable(str(value))
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _entry(sizes: Sequence[int], group: Group, block: Block, row: Row, name: str) -> dict[str, Any]:
    cell, known = row.cells.get(name), row.network
    low, high = cell.interval if cell and cell.interval else (None, None)
    test = dataclasses.asdict(cell.test) if cell and cell.test else {}
    shown = ("difference", "low", "high", "p", "corrected", "smallest", "word")
    return {
        "kind": group.kind,
        "detector": group.detector,
        "model": group.model,
        "dataset": group.dataset,
        "setting": settings_line(block),
        "variant": row.variant,
        **{f"{k}x{k}": k in row.kernels for k in sizes},
        "source": row.source,
        "folder": row.runs[0].folder if row.alone else None,
        "metric": metrics.label(name),
        "seeds": len(cell.values) if cell else 0,
        "missing": cell.missing if cell else 0,
        "mean": _finite(cell.mean) if cell else None,
        "mean_low": low,
        "mean_high": high,
        "test": test.get("kind"),
        **{key: test.get(key) for key in shown},
        "parameters": row.parameters,
        "nonzero": row.nonzero,
        "macs": known.macs,
        "step_time": row.step_time,
        **_shape(known),
    }


def _shape(known: Network) -> dict[str, Any]:
    """The metrics of the receptive field; a pair makes one column per axis."""
    out: dict[str, Any] = {}
    for metric in used(Use.RANK):
        value = known.figures.get(metric.name)
        if metric.pair:
            out |= {f"{metric.name}_{axis}": value and value[i] for i, axis in enumerate("yx")}
        else:
            out[metric.name] = value
    return out


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def as_json(report: Report) -> str:
    """JSON with everything, including each seed's metrics and each run's folder."""
    groups = [
        {
            "kind": group.kind,
            "detector": group.detector or None,
            "model": group.model,
            "dataset": group.dataset,
            "metrics": group.metrics,
            "settings": [
                {"keys": b.keys, "notes": b.notes, "rows": [_row(row) for row in b.rows]}
                for b in group.blocks
            ],
        }
        for group in report.groups
    ]
    content = {"baseline": report.baseline, "groups": groups, "problems": report.problems}
    return json_text.dumps(content, 2)


def _row(row: Row) -> dict[str, Any]:
    cells = {}
    for name, cell in row.cells.items():
        values = dataclasses.asdict(cell)
        cells[name] = {**values, "mean": _finite(cell.mean)}
    return {
        "variant": row.variant,
        "kernels": row.kernels,
        "source": row.source,
        "averaged": not row.alone,
        "runs": [{"folder": str(run.folder), "seed": run.record.seed} for run in row.runs],
        "metrics": cells,
        "parameters": row.parameters,
        "nonzero": row.nonzero,
        "step_time": row.step_time,
        **{metric.name: row.network.figures.get(metric.name) for metric in used(Use.RANK)},
        "macs": row.network.macs,
        "size": row.network.size,
    }


FORMATS = {"table": table, "markdown": markdown, "csv": table_csv, "json": as_json}
