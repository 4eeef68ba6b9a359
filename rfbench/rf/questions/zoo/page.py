"""The zoo as one HTML file: to search, sort, filter, and see maps together."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rfbench.plotting import webpage
from rfbench.plotting.webpage import Best, Column
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import used
from rfbench.rf.questions.zoo.summary import MEANING, SHIFTED, counts, kinds
from rfbench.rf.questions.zoo.zoo import FIX, FIXED, Row, columns
from rfbench.runs import records
from rfbench.spatial_graph.node import Reach

# first on the page, then what is measured with and without the fix, then the rest
FIRST, REST = ("model", "top1", "status"), ("size", "stride", "macs", "parameters", "changed")
LAST = ("input", "map", "padding", "witness")
HEAD = {"macs": "MACs"}  # columns that are not called as in the record
WORDS = ("model", "status", "witness")  # all other columns hold numbers
ORDER: dict[str, Best] = {"top1": "high", "changed": "high", "size": "high", "map": "high"}
ASSETS = ("tools.html", "zoo.css", "zoo.js")
SPAN = 512  # px of the input that a map of the table shows
DEVICE = "on the CPU, networks without weights"
ABOUT = (
    "Metrics of the central unit of the last map, on an input that cuts nothing off, as the "
    f"network is and with {FIX}. Tick networks to see their maps on one scale: + is where the unit "
    "stands on a centred grid, the ring the centroid of its field; brightness is the square "
    "root of the path counts, each map of its own largest."
)
LAW = (
    "Top-1 as published with torchvision's IMAGENET1K_V1 weights, a mark a network with path "
    "counts. Araujo, Norris and Sim (Computing receptive fields of convolutional neural networks, "
    "Distill, 2019) found accuracy to grow with the logarithm of the field's size; the line is "
    "that law, fitted to the marks that the filters leave. Networks differ in much else, so no "
    "chart says what causes what."
)


def page(rows: Sequence[Row], maps: Mapping[str, Mapping[str, bytes]]) -> str:
    """The whole file, maps inside it: of each model, by variant as `zoo.row` gives them."""
    shown = _columns()
    cells = [[_cell(key, row.get(key)) for key in shown] for row in rows]
    assets = {name: webpage.asset("rfbench.rf.questions.zoo", name) for name in ASSETS}
    keys = [str(i) for i in range(len(rows))]
    texts = [f"{row['model']} {row['status']}" for row in rows]
    libraries = sorted({row["model"].partition(":")[0] for row in rows})
    tools = {"statuses": [str(reach) for reach in Reach], "libraries": libraries}
    law = any(row["top1"] is not None and row["shift"] is not None for row in rows)
    parts = [
        *[webpage.fill(CHARTS, law=LAW)] * law,
        webpage.heading("Networks", 2),
        webpage.paragraph(ABOUT, "legend"),
        webpage.table("Networks", [*shown.values()], cells, keys, texts),
        webpage.heading("Columns", 2),
        webpage.glossary([replace(c, name=_whole_name(c)) for c in shown.values()]),
        webpage.fill(COMPARED),  # the last: it stays at the bottom of the window
    ]
    return webpage.page(
        "rfbench zoo: receptive fields of torchvision and timm",
        parts,
        lead=[webpage.written(records.versions(), records.git_state(), DEVICE), *_lead(rows)],
        tools=webpage.fill(assets["tools.html"], **tools),
        noun="networks",
        style=assets["zoo.css"],
        script=assets["zoo.js"],
        data={"span": SPAN, "fix": FIX, "networks": [_network(r, maps) for r in rows]},
    )


CHARTS = """<section id="law" aria-label="Accuracy and receptive field"><h2>Accuracy against
receptive field</h2><p class="legend">{{ law }}</p><div class="charts"></div>
<p class="legend" id="fit"></p></section>"""
COMPARED = '<aside id="compared" aria-label="Compared maps" hidden></aside>'


def _lead(rows: Sequence[Row]) -> list[str]:
    """What the zoo says in short."""
    libraries = sorted({row["model"].partition(":")[0] for row in rows})
    names = [
        Column("status", "name", "how much of an input a unit of the last map sees"),
        *(Column(library, "high", "networks of this library") for library in libraries),
    ]
    table: list[list[webpage.Cell]] = [
        [str(reach), *map(str, counts(rows, reach, libraries)), MEANING[reach]] for reach in Reach
    ]
    measured = [row for row in rows if row["shift"] is not None]
    return [
        webpage.heading("Summary", 2),
        webpage.paragraph(f"{len(rows)} networks. {kinds(measured)} {_then(measured)}"),
        webpage.table("Networks by status", [*names, Column("what it means")], table),
    ]


def _then(measured: Sequence[Row]) -> str:
    """What the fix leaves of those that it changes."""
    fixed = [row for row in measured if row["fixed_shift"] is not None]
    before, after = (
        sum(abs(row[key]) > SHIFTED for row in fixed) for key in ("shift", "fixed_shift")
    )
    return f"{FIX} changes {len(fixed)} of them: shifted are {before} before and {after} after."


def _columns() -> dict[str, Column]:
    """The columns of the page by key, in order."""
    judged = [key for m in used(Use.AUDIT) for key in (m.name, f"{FIXED}{m.name}")]
    keys = [k for k in (*FIRST, *judged, *REST, *LAST) if k in columns()]
    return {key: _column(key) for key in dict.fromkeys(keys)}


def _column(key: str) -> Column:
    metric = metric_of(key)
    if metric is not None and metric in used(Use.RANK):
        name = FIX if key.startswith(FIXED) else "as it is"
        return Column(name, metric.order, columns()[key], metric.with_unit(metric.name))
    best: Best = "name" if key in WORDS else metric.order if metric else ORDER.get(key, "low")
    return Column(HEAD.get(key, key), best, columns()[key])


def _whole_name(column: Column) -> str:
    """Of a column under a heading that it shares: 'shift (px), as it is'."""
    return f"{column.group}, {column.name}" if column.group else column.name


def _figure(key: str, value: Any) -> str:
    """A metric's value as text, equal axes as one."""
    metric = metric_of(key)
    assert metric is not None
    return "0" if metric.is_zero(value) else metric.text(value, merge=True)


def _network(row: Row, maps: Mapping[str, Mapping[str, bytes]]) -> dict[str, Any]:
    """What the page's script knows of a network."""
    drawn = []
    for prefix, png in maps.get(row["model"], {}).items():
        if row.get(f"{prefix}map_box") is None:
            continue
        told = f"shift {_figure('shift', row[f'{prefix}offset'])} px, "
        told += f"gridding {_figure('gridding', row[f'{prefix}gridding'])}"
        drawn.append(
            {
                "title": FIX if prefix else "as it is",
                "png": base64.b64encode(png).decode(),
                "box": row[f"{prefix}map_box"],
                "offset": row[f"{prefix}offset"],
                "text": told,
            }
        )
    known = {key: row[key] for key in ("model", "status", "shift", "gridding", "macs", "top1")}
    largest = max((size for size in row["size"] or () if size is not None), default=0)
    return {**known, "changed": row["changed"], "size": largest, "maps": drawn}


def metric_of(key: str) -> Metric | None:
    """The metric of a column, as the network is or fixed."""
    return next((m for m in used(Use.AUDIT) if key in (m.name, f"{FIXED}{m.name}")), None)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        # An axis that is resized irregularly has no padding.
        texts = ["–" if v is None else f"{v:g}" for v in dict.fromkeys(value)]
        return "x".join(texts) or "–"
    if key == "top1":
        return f"{value:.2f}"
    if metric := metric_of(key):
        return "0" if metric.is_zero(value) else metric.text(value)
    if key in ("parameters", "macs"):
        return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.2f} M"
    return str(value)
