"""What a comparison says in short: a line for every setting."""

from rfbench.errors import printable
from rfbench.plotting import webpage
from rfbench.plotting.webpage import Column
from rfbench.report import metrics
from rfbench.report.model import Block, Group, Report, Row
from rfbench.report.sheets import SIGNS, TONES, number, settings_line, verdict
from rfbench.rf.core.metric import Use
from rfbench.rf.core.metrics import used

VERDICTS = ("better", "worse", "within noise", "differs")


def table(report: Report, anchors: list[list[str]]) -> str:
    """A row for every setting, by the first metric of its group. anchors: of groups' settings."""
    shift = used(Use.RANK)[0]
    columns = [
        Column("setting", "name", "what was trained, on what; a link to its tables"),
        Column("seeds", "high", f"of {report.baseline}"),
        Column("metric", "name", "the first of the tables below"),
        Column(report.baseline, "high", f"its mean over the seeds of {report.baseline}"),
        Column("best variant", "name", "by the mean; the best of several looks better than it is"),
        Column("Δ", "high", f"its difference from {report.baseline}"),
        Column("95 %", "high", "t-interval of the difference, not corrected"),
        Column("verdict", "name", "after Holm's correction over the variants"),
        Column(f"its {shift.with_unit(shift.name)}", "zero", shift.meaning),
        Column("all variants", "name", "how many are better, worse, or within noise"),
    ]
    rows = [
        [webpage.jump(anchors[i][j], _title(group, block)), *_line(group, block, report.baseline)]
        for i, group in enumerate(report.groups)
        for j, block in enumerate(group.blocks)
    ]
    return webpage.table("Summary", columns, rows) if rows else ""


def _title(group: Group, block: Block) -> str:
    return ", ".join(part for part in (group.title, settings_line(block)) if part)


def _line(group: Group, block: Block, baseline: str) -> list[webpage.Cell]:
    name = group.metrics[0]
    base = next((r for r in block.rows if r.variant == baseline and r.source == "ours"), None)
    if base is None or base.alone or not base.cells[name].values:
        return ["", metrics.label(name), "–", *[""] * 5, f"no figure of {printable(baseline)}"]
    first = [str(len(base.runs)), metrics.label(name), number(name, base.cells[name].mean)]
    tested = [
        r for r in block.rows if r.source == "ours" and name in r.cells and r.cells[name].test
    ]
    if not tested:
        return [*first, *[""] * 5, "nothing to compare"]
    return [*first, *_best(tested, name), _counts(tested, name)]


def _best(tested: list[Row], name: str) -> list[webpage.Cell]:
    """The variant with the best mean: its difference, interval, verdict and shift."""
    sign = metrics.direction(name)
    if not sign:
        return [""] * 5
    row = max(tested, key=lambda r: sign * r.cells[name].mean)
    test = row.cells[name].test
    assert test is not None
    ends = (
        ""
        if test.low is None or test.high is None
        else (f"[{number(name, test.low, '+')}, {number(name, test.high, '+')}]")
    )
    shift = used(Use.RANK)[0]
    known = row.network.figures.get(shift.name)
    tone = TONES.get(test.word, "")
    return [
        printable(row.label),
        (f"{number(name, test.difference, '+')} {SIGNS.get(test.word, '?')}", tone),
        ends,
        (verdict(test), tone),
        "" if known is None else shift.text(known, merge=True),
    ]


def _counts(tested: list[Row], name: str) -> str:
    words = [test.word for row in tested if (test := row.cells[name].test)]
    counts = {word: words.count(word) for word in VERDICTS}
    counts["not tested"] = len(words) - sum(counts.values())
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
