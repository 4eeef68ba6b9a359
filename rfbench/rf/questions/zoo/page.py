"""The zoo as one HTML file, a CSV and a summary: to search, sort, filter, and see maps together."""

import base64
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfbench import files
from rfbench.plotting import webpage
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import used
from rfbench.rf.questions.zoo.zoo import FIX, Row, columns
from rfbench.runs import records
from rfbench.spatial_graph.graph import Reach

# columns of the page that are not called as in the record
HEAD = {"size": "r", "stride": "S", "padding": "P", "macs": "MACs"}
HIDDEN = ("witness", "seconds")
MEANING = {
    Reach.LOCAL: "the last map sees a bounded, position-independent neighbourhood",
    Reach.CONTEXT: "the same, and a pooled summary of the whole image (squeeze-excitation)",
    Reach.WINDOWED: "attention, but only within windows at this input size",
    Reach.GLOBAL: "every position meets every other: attention, token mixing, recurrence",
    Reach.UNSUPPORTED: "an operation that is not understood; nothing is claimed",
}
WORDS = ("model", "status")  # all other columns hold numbers
ASSETS = ("tools.html", "zoo.css", "zoo.js")
SHIFTED, GRIDDED = 1.0, 0.05  # px, and coefficient of variation: from here on it is called so


def page(rows: Sequence[Row], maps: Mapping[str, bytes]) -> str:
    """The whole file, maps inside it."""
    head = {key: _head(key) for key in columns() if key not in HIDDEN}
    cells = [[_cell(key, row.get(key)) for key in head] for row in rows]
    statuses = [str(reach) for reach in Reach]
    assets = {name: webpage.asset("rfbench.rf.questions.zoo", name) for name in ASSETS}
    parts = [
        webpage.paragraph(_versions(), "legend"),
        webpage.paragraph(
            f"Shift, gridding and misaligned branches of the last map's central unit, as the "
            f"network is and with {FIX}. Tick models to see their maps side by side.",
            "legend",
        ),
        webpage.fill(assets["tools.html"], statuses=statuses),
        webpage.table([*head.values()], cells, [key not in WORDS for key in head]),
        webpage.heading("Columns", 2),
        webpage.notes([f"{name}: {columns()[key]}" for key, name in head.items()]),
    ]
    return webpage.page(
        "rfbench zoo: receptive fields of torchvision and timm",
        parts,
        style=assets["zoo.css"],
        script=assets["zoo.js"],
        data={name: base64.b64encode(data).decode() for name, data in maps.items()},
    )


def _head(key: str) -> str:
    """The heading of a column."""
    return HEAD.get(key, key.replace("cured_", "fixed "))


def metric_of(key: str) -> Metric | None:
    """The metric of a column, as the network is or fixed."""
    return next((m for m in used(Use.AUDIT) if key in (m.name, f"cured_{m.name}")), None)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return "x".join(f"{v:g}" for v in dict.fromkeys(value)) if value else "–"
    if metric := metric_of(key):
        return "0" if metric.is_zero(value) else metric.text(value)
    if key in ("parameters", "macs"):
        return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.2f} M"
    return str(value)


def _versions() -> str:
    held = records.versions()
    return ", ".join(f"{name} {held[name]}" for name in ("torch", "torchvision", "timm"))


def table(rows: Sequence[Row]) -> str:
    """All rows as CSV; pairs along (y, x) as '427x427'."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        plain = {k: "x".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
        writer.writerow({key: plain.get(key) for key in columns()})
    return out.getvalue()


def save_summary(rows: Sequence[Row], path: Path) -> None:
    """The zoo as a page of Markdown, and its figure beside it, of the same name."""
    from rfbench.plotting import page as pages
    from rfbench.rf.questions.zoo import figure as zoo

    measured = [row for row in rows if row["shift"] is not None]
    families = [family(row["model"]) for row in measured]
    caption = (
        "One dot a network at its own input size, uncut; family: the library's module, and how "
        "many of it have path counts. Gridding: coefficient of variation over pixel phases. "
        f"{_versions()}."
    )
    if measured:
        pages.save(zoo.figure(measured, families, caption), path.with_suffix(""), ["png"])
    files.write_text(path, summary(rows, path.with_suffix(".png").name if measured else ""))


def summary(rows: Sequence[Row], picture: str = "") -> str:
    """The zoo in a page of Markdown: how many of each kind, and which families are how."""
    libraries = sorted({row["model"].partition(":")[0] for row in rows})
    lines = [
        "# The receptive fields of torchvision and timm",
        "",
        f"{len(rows)} architectures at their own input size. {_versions()}. Written by",
        "`rfbench rf zoo --markdown FILE`, which also writes a page to search and compare maps.",
        "",
        *([f"![Shift by family]({picture})", ""] if picture else []),
        f"| status | {' | '.join(libraries)} | what it means |",
        f"|---|{'---|' * len(libraries)}---|",
    ]
    for reach in Reach:
        counts = [
            sum(r["status"] == str(reach) and r["model"].startswith(f"{lib}:") for r in rows)
            for lib in libraries
        ]
        lines.append(f"| {reach} | {' | '.join(map(str, counts))} | {MEANING[reach]} |")
    measured = [row for row in rows if row["shift"] is not None]
    lines += ["", *_families(measured)]
    for reach in (Reach.WINDOWED, Reach.UNSUPPORTED):
        fit = [row for row in rows if row["status"] == str(reach)]
        lines += ["", f"## {str(reach).capitalize()}", "", "| model | witness |", "|---|---|"]
        lines += [f"| {row['model']} | {row['witness']} |" for row in fit] or ["| none | |"]
    return "\n".join(lines) + "\n"


def _families(measured: Sequence[Row]) -> list[str]:
    """Families of networks: shifted, gridded or clean, with their extremes."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in measured:
        families[family(row["model"])].append(row)
    kinds = Counter(_kind(row) for row in measured)
    lines = [
        f"Of {len(measured)} with path counts {kinds['shifted and gridded']} are shifted by more "
        f"than {SHIFTED:g} px and gridded (above {GRIDDED:g}), {kinds['shifted']} shifted only, "
        f"{kinds['gridded']} gridded only and {kinds['clean']} clean.",
        "",
        f"| family | models | largest shift, px | gridding, largest | misaligned | with {FIX}: "
        "largest shift, px | gridding |",
        "|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(families.items(), key=lambda item: (-_largest(item[1], "shift"), item[0]))
    for name, rows in ordered:
        apart = sum(row["misaligned"] > 0 for row in rows)
        fixed = [row for row in rows if row["cured_shift"] is not None]
        then = [
            f"{_largest(fixed, k):.2f}" if fixed else "–" for k in ("cured_shift", "cured_gridding")
        ]
        shift, grid = _largest(rows, "shift"), _largest(rows, "gridding")
        lines.append(
            f"| {name} | {len(rows)} | {shift:.2f} | {grid:.2f} | {apart} | {' | '.join(then)} |"
        )
    return lines


def _largest(rows: Sequence[Row], key: str) -> float:
    return max(abs(row[key]) for row in rows)


def _kind(row: Row) -> str:
    shifted, gridded = abs(row["shift"]) > SHIFTED, row["gridding"] > GRIDDED
    words = ["shifted"] * shifted + ["gridded"] * gridded
    return " and ".join(words) or "clean"


def family(model: str) -> str:
    """The library's own grouping: the module that a network is written in, such as 'resnet'."""
    library, _, name = model.partition(":")
    if library == "timm":
        import timm

        return timm.model_entrypoint(name).__module__.rpartition(".")[2]
    from torchvision import models

    return models.get_model_builder(name).__module__.rpartition(".")[2]
