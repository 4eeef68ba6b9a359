"""The zoo as one HTML file, a CSV and a summary: to search, sort, filter, and see maps together."""

import base64
import csv
import io
import json
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
SHIFTED, GRIDDED = 1.0, 0.05  # px, and coefficient of variation: from here on it is called so

STYLE = """<style>
.tools { display: flex; flex-wrap: wrap; gap: 0.4rem 1rem; align-items: center; margin: 0.6rem 0; }
.tools select, .tools input, .tools button { font: inherit; padding: 0.2rem 0.5rem; }
#chosen { display: flex; flex-wrap: wrap; gap: 1rem; }
#chosen figure { margin: 0; width: 260px; }
#chosen img { width: 256px; max-width: 256px; image-rendering: pixelated; }
td img { width: 40px; height: 40px; display: block; image-rendering: pixelated; }
td.pick, th.pick { width: 3.4rem; position: static !important; }
td.pick label { display: flex; gap: 0.4rem; align-items: center; }
</style>"""
SCRIPT = """<script>
"use strict";
const rows = [...document.querySelectorAll("tbody tr")];
const chosen = document.getElementById("chosen");
const tools = document.querySelector(".tools");
const column = name => [...document.querySelectorAll("thead th")]
  .findIndex(th => th.textContent === name);
const at = {status: column("status"), shift: column("shift"), gridding: column("gridding")};
for (const row of rows) {
  const name = row.cells[0].textContent, map = maps[name];
  if (map) {
    const image = document.createElement("img"), pick = document.createElement("input");
    image.src = "data:image/png;base64," + map; image.alt = "";
    pick.type = "checkbox"; pick.setAttribute("aria-label", "compare " + name);
    pick.addEventListener("change", () => show(row, name, map, pick.checked));
    const label = document.createElement("label");
    label.append(pick, image, document.createTextNode(name));
    row.cells[0].replaceChildren(label);
    label.style.display = "flex"; label.style.gap = "0.5rem"; label.style.alignItems = "center";
  }
}
function show(row, name, map, on) {
  document.getElementById("fig-" + name)?.remove();
  if (!on) return;
  const figure = document.createElement("figure"), image = document.createElement("img");
  figure.id = "fig-" + name; image.src = "data:image/png;base64," + map; image.alt = name;
  const text = document.createElement("figcaption");
  text.textContent = `${name}: shift ${row.cells[at.shift].textContent}, ` +
    `gridding ${row.cells[at.gridding].textContent}`;
  figure.append(image, text); chosen.append(figure);
}
function number(row, name) { return Math.abs(parseFloat(row.cells[at[name]].textContent)); }
tools.addEventListener("input", () => {
  const status = tools.status.value, shift = parseFloat(tools.shift.value);
  const gridding = parseFloat(tools.gridding.value);
  let shown = 0;
  for (const row of rows) {
    const out = (status && row.cells[at.status].textContent !== status)
      || (shift >= 0 && !(number(row, "shift") > shift))
      || (gridding >= 0 && !(number(row, "gridding") > gridding));
    row.classList.toggle("out", out);
    row.style.display = out ? "none" : ""; shown += !out;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length}`;
});
</script>"""


def page(rows: Sequence[Row], maps: Mapping[str, bytes]) -> str:
    """The whole file, maps inside it."""
    head = {key: _head(key) for key in columns() if key not in HIDDEN}
    cells = [[_cell(key, row.get(key)) for key in head] for row in rows]
    options = "".join(f"<option>{reach}</option>" for reach in Reach)
    inner = {name: base64.b64encode(data).decode() for name, data in maps.items()}
    parts = [
        STYLE,
        webpage.paragraph(_versions(), "legend"),
        webpage.paragraph(
            f"Shift, gridding and misaligned branches of the last map's central unit, as the "
            f"network is and with {FIX}. Tick models to see their maps side by side.",
            "legend",
        ),
        '<form class="tools" onsubmit="return false">'
        f'<label>status <select name="status"><option value="">all</option>{options}</select>'
        '</label><label>|shift| above <input name="shift" type="number" min="0" step="any" '
        'size="5"> px</label><label>gridding above <input name="gridding" type="number" min="0" '
        'step="any" size="5"></label><output id="count"></output></form>',
        '<div id="chosen"></div>',
        webpage.table([*head.values()], cells),
        webpage.heading("Columns", 2),
        webpage.notes([f"{name}: {columns()[key]}" for key, name in head.items()]),
        f"<script>const maps = {json.dumps(inner)};</script>",
        SCRIPT,
    ]
    return webpage.page("rfbench zoo: receptive fields of torchvision and timm", parts)


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
        for file in pages.save(zoo.figure(measured, families, caption), path.with_suffix("")):
            if file.suffix == ".pdf":
                file.unlink()
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
