"""A comparison as one HTML file: a summary, tables and charts that follow its filters."""

from pathlib import Path
from typing import Any

from rfbench.errors import printable
from rfbench.plotting import webpage
from rfbench.plotting.webpage import Column
from rfbench.report import curves, differences, panels, summary
from rfbench.report.model import Block, Group, Report, Row
from rfbench.report.sheets import ROW, Sheet, legend, number, settings_line, sheets
from rfbench.runs import records

KINDS = {"cls": "classification", "seg": "segmentation", "det": "detection"}
VERDICTS = (*summary.VERDICTS, "not tested")
NETWORKS = "Cost of the networks, and the shape of their receptive fields."
RUN_COLUMNS = [
    Column("run", "name", "its folder: configuration, record, curves, checkpoints"),
    ROW,
    Column("seed", "low", "of initialization and of the order of the data"),
    Column("finished", "name", "UTC; of records since the version that writes it"),
    Column("time", "low", "of the whole run, minutes"),
    Column("device", "name", "and how many processes"),
    Column("precision", "name", "of the forward pass"),
    Column("torch", "name", "its version"),
    Column("rfbench", "name", "its version"),
    Column("commit", "name", "of the code; + changes: not all of it was committed"),
]


def page(report: Report, folder: Path = Path()) -> str:
    """The whole file; see `webpage`. folder: where it will be, for links to the runs."""
    contents = {f"g{i}": group.title for i, group in enumerate(report.groups)}
    anchors = [
        [f"g{i}b{j}" if block.keys else f"g{i}" for j, block in enumerate(group.blocks)]
        for i, group in enumerate(report.groups)
    ]
    data: dict[str, Any] = {"rows": {}, "curves": {}}
    parts: list[str] = []
    drawn: dict[Any, str] = {}  # networks that several groups share are shown once
    for (anchor, title), group, own in zip(contents.items(), report.groups, anchors, strict=True):
        inside: list[str] = [webpage.heading(title, 2, anchor)]
        for block, place in zip(group.blocks, own, strict=True):
            inside.append(
                webpage.section(_block(group, block, place, report.baseline, folder, data))
            )
        inside += _fields(group, anchor, drawn)
        parts.append(webpage.section(inside))
    parts += [webpage.heading("How to read this", 2), webpage.notes(legend(report))]
    if report.problems:
        parts += [webpage.heading("Skipped", 2), webpage.notes(report.problems)]
    kinds = {group.kind: KINDS.get(group.kind, group.kind) for group in report.groups}
    assets = {name: webpage.asset("rfbench.report", name) for name in ASSETS}
    return webpage.page(
        "rfbench compare",
        parts,
        lead=[
            webpage.written(records.versions(), records.git_state()),
            webpage.heading("Summary", 2),
            summary.table(report, anchors),
        ],
        tools=webpage.fill(assets["tools.html"], verdicts=VERDICTS, kinds=kinds),
        style=assets["report.css"],
        script=assets["report.js"],
        data=data,
    )


ASSETS = ("tools.html", "report.css", "report.js")


def _block(
    group: Group, block: Block, place: str, baseline: str, folder: Path, data: dict[str, Any]
) -> list[str]:
    """The parts of a setting; adds to `data` what the page's script reads."""
    keys = [f"{place}r{i}" for i in range(len(block.rows))]
    for key, row in zip(keys, block.rows, strict=True):
        data["rows"][key] = {"kind": group.kind, "verdicts": _verdicts(row)}
    by_row = {id(row): key for key, row in zip(keys, block.rows, strict=True)}
    setting = settings_line(block)
    parts: list[str] = [webpage.heading(setting, 3, place) if setting else ""]
    folded: list[str] = []
    for sheet in sheets(group, block, baseline):
        own = [by_row[id(row)] for row in sheet.of]
        if sheet.name == "tests":
            table = _variants_first(sheet)
            folded.append(webpage.details(TESTS, [_table(table, own)]))
        else:
            # the first table holds what is counted and searched
            first = len(parts) == 1
            texts = [
                printable(f"{group.title} {setting} {row.label}") for row in block.rows * first
            ]
            parts += [webpage.paragraph(NETWORKS, "legend")] * (sheet.name == "networks")
            parts.append(_table(sheet, own, texts))
    parts.append(webpage.notes(block.notes))
    if strips := differences.table(group, block, keys, baseline):
        parts += [
            webpage.paragraph(
                f"Differences from {printable(baseline)}: {differences.HOW}.", "legend"
            )
        ]
        parts.append(strips)
    data["curves"][place] = curves.curves(group, block, keys)
    if data["curves"][place]:
        parts.append(webpage.paragraph(CURVES, "legend"))
        parts.append(webpage.fill(PLACE, place=place))
    return [*parts, *folded, _runs(block, keys, folder)]


TESTS = "Tests: means and differences with 95 % intervals, p, minimum detectable effect"
CURVES = "Training: means over the seeds; the bands show their range."
PLACE = '<div class="charts" data-curves="{{ place }}"></div><div class="keys"></div>'


def _table(sheet: Sheet, keys: list[str], texts: list[str] | None = None) -> str:
    return webpage.table(sheet.name, sheet.columns, sheet.rows, keys, texts or ())


def _variants_first(sheet: Sheet) -> Sheet:
    """The column that names the rows is the first, which stays in view."""
    columns = [sheet.columns[1], sheet.columns[0], *sheet.columns[2:]]
    rows = [[cells[1], cells[0], *cells[2:]] for cells in sheet.rows]
    return Sheet(sheet.name, columns, rows, sheet.of)


def _verdicts(row: Row) -> list[str]:
    words = {cell.test.word for cell in row.cells.values() if cell.test and row.source == "ours"}
    return sorted(word if word in VERDICTS else "not tested" for word in words)


def _fields(group: Group, anchor: str, drawn: dict[Any, str]) -> list[str]:
    if not group.fields:
        return []
    title = webpage.heading("Receptive fields", 3)
    figure = panels.figure(group.fields, group.unmapped)
    if figure in drawn:
        return [title, webpage.fill(SEEN, link=webpage.jump(drawn[figure], "as shown above"))]
    drawn[figure] = f"{anchor}f"
    return [webpage.heading("Receptive fields", 3, f"{anchor}f"), figure]


SEEN = "<p>The same networks, {{ link }}.</p>"


def _runs(block: Block, keys: list[str], folder: Path) -> str:
    """Every run: where it is, when and on what it ran."""
    rows: list[list[webpage.Cell]] = []
    own = []
    for key, row in zip(keys, block.rows, strict=True):
        for run in row.runs:
            record = run.record
            processes = record.batch.get("world_size", 1)
            device = f"{record.device} × {processes}" if processes != 1 else record.device
            texts = [
                row.label,
                str(record.seed),
                record.date or "–",
                number("", record.seconds / 60),
            ]
            texts += [device, record.precision, record.versions.get("torch", "–")]
            texts += [record.versions.get("rfbench", "–"), webpage.commit(record.git) or "–"]
            name = webpage.link(run.folder, folder, printable(run.folder.name))
            rows.append([name, *map(printable, texts)])
            own.append(key)
    if not rows:
        return ""
    title = f"Runs: {len(rows)}, with date, device, versions, commit"
    return webpage.details(title, [webpage.table("Runs", RUN_COLUMNS, rows, own)])
