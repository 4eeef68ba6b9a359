"""The figure of an audit: what remains after fixing a layer, and the shift against the size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rfbench import files
from rfbench.plotting import look, page
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, text_width, wrap
from rfbench.plotting.palette import BLACK, BLUE, SKY, VERMILION
from rfbench.rf.core import metrics
from rfbench.rf.core.metric import Use, unit_of
from rfbench.rf.core.path_map import DEFAULT
from rfbench.rf.core.subjects import short
from rfbench.rf.questions.audit import directions_figure
from rfbench.rf.questions.audit.by_size import SYMMETRIC
from rfbench.rf.questions.audit.checkerboard import LEAST
from rfbench.rf.questions.audit.remains import effect, faultless, size_of
from rfbench.rf.questions.audit.table import nothing_to_fix
from rfbench.runs import records
from rfbench.spatial_graph.axis import names

WIDTH, ROW, SIDE = 7.0, 0.145, 1.5  # inches: the page, a bar, the height of the curve
RIGHT = 0.56  # for the column of misaligned operations
MOST = 24  # layers in the figure
AS_IS, LAYER, TOGETHER, VARIANT = BLACK, BLUE, SKY, VERMILION
KINDS = {
    AS_IS: "as it is",
    LAYER: "one layer fixed",
    TOGETHER: "several layers fixed",
    VARIANT: "variant",
}

Rows = list[tuple[str, str, dict[str, Any]]]  # label, colour, figures


def write(audits: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """A figure (PNG, PDF) a network and, last, result.json; returns the names of the files."""
    figures = [audit_figure(record) for record in audits]
    records.open_folder(folder)
    names: list[str] = []
    for record, figure in zip(audits, figures, strict=True):
        source = [record["from"]] if record["from"] != "input" else []
        stem = files.default_folder(record["model"], record["variant"], *source).name
        names += [path.name for path in page.save(figure, folder / stem)]
    records.write_record(folder, "rf-audit", {"audits": list(audits), "files": names})
    return [*names, records.RECORD]


def audit_figure(record: dict[str, Any]) -> Figure:
    """Shift and gridding as they are, fixed layer by layer and in every variant; by size below.

    Bars of nothing beside each other say nothing: without a fault, words have their place.
    """
    rows = _rows(record)
    good = len(rows) == 1 and faultless(record)
    at = "x".join(map(str, record["input_size"]))
    unit = unit_of(len(record["input_size"]))
    start = "" if record["from"] == "input" else f" from {record['from']}"
    head = f"{short(record['model'])} / {record['variant']}{start} at {at} {unit}"
    width = look.page_width(WIDTH)
    foot = wrap(_caption(record, good), width - 0.16, SMALL)
    found = wrap(_found(record), width - 0.16, TEXT) if good else []
    top = 0.1 + line(LARGE)
    tall = line(TEXT) * len(found) if good else 0.64 + ROW * len(rows)
    curve = SIDE + 0.6 if "sizes" in record else 0.0
    left_over = SIDE + 0.75 if "pruned" in record else 0.0
    below = top + tall + curve + left_over + 0.06 * good
    sheet = Page(width, below + len(foot) * line(SMALL) + 0.06)
    sheet.lines(0.08, 0.06, [head], LARGE, weight="bold")
    if good:
        sheet.lines(0.08, top, found, TEXT)
    else:
        _draw_bars(sheet, rows, record, top)
    if curve:
        _curve(sheet.axes(0.5, top + tall + 0.2, width - 0.62, SIDE), record)
    if left_over:
        at_top = top + tall + 0.35 + curve
        directions_figure.draw(sheet.axes(0.5, at_top, width - 0.62, SIDE), record["pruned"])
    sheet.lines(0.08, below, foot, SMALL)
    return sheet.figure


def _found(record: dict[str, Any]) -> str:
    """What was checked and found good, and its figures."""
    axes = len(record["input_size"])
    told = (
        f"{m.heading(axes)} {m.text(record[m.name])}" + (f" {unit_of(axes)}" * (m.unit == "px"))
        for m in metrics.used(Use.AUDIT)
    )
    words = nothing_to_fix(record)
    return f"{words[0].upper()}{words[1:]} ({'; '.join(told)})."


def _draw_bars(sheet: Page, rows: Rows, record: dict[str, Any], top: float) -> None:
    """A block of bars a figure, over all rows, with the legend above; misaligned as a number."""
    unit = unit_of(len(record["input_size"]))
    left = 0.12 + max(text_width(label, SMALL) for label, _, _ in rows)
    tall, width = ROW * len(rows) + 0.04, sheet.width
    bars = {f"|shift|, {unit}": [size_of(row["shift"]) for _, _, row in rows]}
    bars["gridding (CV)"] = [row["gridding"] for _, _, row in rows]
    if record["checkerboard"] > LEAST:
        bars["checkerboard, CV"] = [row["checkerboard"] for _, _, row in rows]
    rest = left + RIGHT + 0.2 * (len(bars) - 1)
    wide = look.side((width - rest) / len(bars), rest, len(bars))
    for number, (label, values) in enumerate(bars.items()):
        axes = sheet.axes(left + number * (wide + 0.2), top + 0.24, wide, tall)
        _bars(axes, rows, values, label)
        names = [] if number else [name for name, _, _ in rows]
        axes.set_yticks(range(len(names)), names, parse_math=False)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": SMALL}
    for i, word in enumerate(["misaligned", *(str(row["misaligned"]) for _, _, row in rows)], -1):
        axes.text(1 + RIGHT / 2 / wide, i, word, ha="center", va="center_baseline", **beside)
    # a bar of nothing has no colour to explain
    seen = [colour for _, colour, row in rows if _shows(row)]
    used = dict.fromkeys([AS_IS, *seen])
    handles = [Patch(color=colour, label=KINDS[colour]) for colour in used]
    sheet.legend(handles, top - 0.02, len(handles))


def _rows(record: dict[str, Any]) -> Rows:
    chosen = sorted(record["steps"], key=lambda row: -effect(row, record))[:MOST]
    rows: Rows = [("as it is", AS_IS, record)]
    rows += [(_label(r), LAYER, r) for r in record["steps"] if r in chosen]
    for level in record["together"]:
        name = f"{len(level['layers'])} layers to stride {level['stride']:g}"
        rows.append((name, TOGETHER, level))
    if record["steps"]:
        rows.append(("all layers", TOGETHER, record["all"]))
    fixes = [row for row in record.get("fixes", []) if "refused" not in row]
    return [*rows, *((f"variant {row['variant']}", VARIANT, row) for row in fixes)]


def _label(row: dict[str, Any]) -> str:
    """The layer; of a transposed convolution, with what stands in its place."""
    mend = row["what"].partition(": ")[2]
    return f"{row['layer']}: {mend}" if row["layer"] and mend else row["layer"] or row["what"]


def _shows(row: dict[str, Any]) -> bool:
    """Whether any of its bars has a length, as its figures are printed."""
    uneven = max(row["gridding"], row.get("checkerboard") or 0)
    return round(size_of(row["shift"]), 2) > 0 or round(uneven, 4) > 0


def _bars(axes: Axes, rows: Rows, values: Sequence[float], label: str) -> None:
    axes.barh(range(len(rows)), values, color=[colour for _, colour, _ in rows], height=0.7)
    shift = label.startswith("|shift|")
    most = max(*values, 1.0 if shift else 0.05)  # next to nothing is to look like it
    axes.set(xlim=(0, 1.18 * most), ylim=(len(rows) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(label, fontsize=TEXT, labelpad=1)
    for i, value in enumerate(values):
        text = f"{value:.2f}" if shift else f"{value:.4f}"
        axes.text(value + 0.015 * most, i, text, fontsize=SMALL - 0.5, va="center_baseline")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _curve(axes: Axes, record: dict[str, Any]) -> None:
    """The shift against the side of the input, that along which sizes differ."""
    found = record["sizes"]
    told = [row for row in found["rows"] if row["shift"] is not None]
    first, last = found["rows"][0]["size"], found["rows"][-1]["size"]
    along = next((k for k, ends in enumerate(zip(first, last, strict=True)) if len({*ends}) > 1), 0)
    alike = all(None not in s and max(s) - min(s) < SYMMETRIC for s in (r["shift"] for r in told))
    axes.axhline(0, color="#888888", linewidth=0.6)
    axis_names, unit = names(len(first)), unit_of(len(first))
    marks = ((LAYER, "o"), (VARIANT, "^"), (TOGETHER, "s"))
    for k, (name, (colour, mark)) in enumerate(zip(axis_names, marks, strict=False)):
        if (k == 0 or not alike) and any(row["shift"][k] is not None for row in told):
            sides = [row["size"][along if alike else k] for row in told]
            label = f"along {' and '.join(axis_names)}" if alike else f"along {name}"
            style: dict[str, Any] = {"marker": mark, "markersize": 2, "linestyle": ""}
            axes.plot(sides, [row["shift"][k] for row in told], color=colour, label=label, **style)
    axes.axvline(record["input_size"][along], color=AS_IS, linewidth=0.6, linestyle=":")
    if (near := found["symmetric"]) is not None:
        ring: dict[str, Any] = {"marker": "o", "markersize": 6, "fillstyle": "none"}
        text = f"{'x'.join(map(str, near))} {unit}: symmetric"
        axes.plot([near[along]], [0], color=VARIANT, linestyle="", label=text, **ring)
    axes.set_xlabel(
        f"side of the input, {unit} (dotted: the size given)", fontsize=TEXT, labelpad=1
    )
    axes.set_ylabel(f"shift, {unit}", fontsize=TEXT)
    axes.margins(x=0.02, y=0.12)
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "ncols": 4}
    axes.legend(fontsize=SMALL, frameon=False, **place)


def _caption(record: dict[str, Any], good: bool) -> str:
    start = "" if record["from"] == "input" else f" from {record['from']}"
    reached, seen = record["coverage"]["reached"], record["coverage"]["seen"]
    fixed = "Fixed: sampled evenly and centred, all else as it is. "
    uneven = "Checkerboard: variation of the paths to the output's positions. "
    return (
        f"Path counts{start} to the central unit of {record['to']}, on an input that cuts nothing "
        "off. Shift: centroid minus the unit's position in a grid centred on the input, the "
        "largest of its axes. Gridding: variation of the counts' sums over pixel phases. "
        f"{uneven * (record['checkerboard'] > LEAST)}"
        f"{fixed * (not good)}Misaligned: additions and "
        f"concatenations whose branches disagree in stride or centre. {DEFAULT}, norms=identity. "
        f"{reached:.1%} of the input reaches the layer; the central unit's box holds {seen:.1%}."
    )
