"""A block of a comparison as tables of short texts, for the terminal, Markdown and HTML."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rfbench.errors import printable
from rfbench.plotting import webpage
from rfbench.plotting.webpage import Column
from rfbench.report import metrics, paper
from rfbench.report.model import Block, Cell, Group, Report, Row
from rfbench.report.stats import Effect
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import used

SIGNS = {"better": "▲", "worse": "▼", "differs": "≠", "within noise": "≈", "": ""}
NO_TEST = "?"
TONES = {"better": "good", "worse": "bad"}  # CSS classes of a page's cells, by verdict
FAINT = "faint"
VERDICT = "verdict"
WIDE = 3  # with more metrics, costs and receptive fields get a table of their own

ROW = Column("variant", "name", "what is changed in the network; the listed order is the paper's")
SEEDS = Column("seeds", "high", "runs that are averaged")
CHANGED = "✓: stride-2 convolutions of {k}x{k} are changed"
SIGNS_MEAN = "▲ better, ▼ worse, ≈ within noise, ≠ differs, ? not tested"
STEP_TIME = (
    "relative to {baseline} on the same device (from median images/s); meaningful only "
    "on an idle device"
)
TESTED = {
    "mean": "over the seeds, at the end of training",
    "95 %": "t-interval of the mean: the variation between seeds",
    "Δ": "difference from {baseline}",
    "95 % ": "t-interval of the difference, not corrected",
    "p": "of a two-sided t-test against {baseline}, paired by seed where they share some",
    "p (Holm)": "p corrected over the variants of this table, for each metric",
    "smallest": "difference that such a test would find in 4 of 5 experiments (80 % power)",
}
VERDICT_MEANS = "better or worse where the corrected p is below 0.05, else within noise"

LEGEND = (
    "▲ better, ▼ worse, ≈ within noise, ? not tested: against {baseline} in the same setting.",
    "Figures are means over seeds at the end of training. Intervals are 95 % t-intervals; they "
    "cover the variation between seeds, not the choice of data.",
    "Test: two-sided paired t-test over the seeds that both have (as scipy.stats.ttest_rel; Welch's "
    "test, marked unpaired, where they share none). better, worse: p < 0.05 after Holm's "
    "correction over the variants of a table, separately for each metric. Intervals are not "
    "corrected, so one may exclude 0 although the verdict is `within noise`.",
    "smallest: minimum detectable effect at 80 % power, of a single test: "
    "(t(0.975, df) + t(0.8, df)) s / sqrt(n), where df = n - 1 and s is the standard deviation of "
    "the n differences.",
    f"step time: {STEP_TIME}.",
    "shift, gridding: of the path counts to the central unit of the last map, on an input large "
    "enough for its whole receptive field; as in visualize-rf.",
)

CONSISTENCY = (
    "consistency: share of validation images, in percent, with the same top-1 at two positions at "
    "most 1/8 of the image apart (Zhang, 2019)."
)


@dataclass
class Sheet:
    """A table. rows: as many cells each as there are columns. of: the row of the block of each."""

    name: str
    columns: list[Column]
    rows: list[list[webpage.Cell]]
    of: list[Row]

    @property
    def head(self) -> list[str]:
        """The titles of the columns."""
        return [column.name for column in self.columns]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, to be right-aligned and sorted as numbers."""
        return [column.is_number for column in self.columns]

    @property
    def texts(self) -> list[list[str]]:
        """The rows without the cells' classes."""
        return [[c if isinstance(c, str) else c[0] for c in row] for row in self.rows]


def kernel_sizes(rows: Iterable[Row]) -> list[int]:
    """The kernel sizes that get a column of ticks: the paper's, and any others of the rows."""
    return sorted({1, 3}.union(*(row.kernels for row in rows)))


def sheets(group: Group, block: Block, baseline: str = "the baseline") -> list[Sheet]:
    """The metrics, their tests, and costs with receptive fields."""
    by_task: dict[str, list[str]] = {}
    for name in group.metrics:
        by_task.setdefault(name.rpartition(".")[0], []).append(name)
    figures = [_figures(block, names, baseline) for names in by_task.values()]
    network = _network(group, block, baseline)
    if len(group.metrics) <= WIDE and len(figures) == 1:
        figures[0].columns += network.columns[1:]
        for row, more in zip(figures[0].rows, network.rows, strict=True):
            row += more[1:]
        network.rows = []
    own = [(c, r) for c, r in zip(network.rows, network.of, strict=False) if r.source != paper.NAME]
    network.rows, network.of = [cells for cells, _ in own], [row for _, row in own]
    every = [s for s in (*figures, _tests(group, block, baseline), network) if s.rows]
    for sheet in every:
        sheet.columns = [replace(c, name=printable(c.name)) for c in sheet.columns]
        sheet.rows = [[_printable(cell) for cell in row] for row in sheet.rows]
    return every


def _printable(cell: webpage.Cell) -> webpage.Cell:
    return printable(cell) if isinstance(cell, str) else (printable(cell[0]), cell[1])


def _figures(block: Block, names: Sequence[str], baseline: str) -> Sheet:
    sizes = kernel_sizes(block.rows)
    columns = [ROW, *(Column(f"{k}x{k}", "name", CHANGED.format(k=k)) for k in sizes), SEEDS]
    for name in names:
        columns += [_column(name), _column(name, "Δ", _delta(name, baseline))]
    rows: list[list[webpage.Cell]] = []
    for row in block.rows:
        ticks = ["✓" if k in row.kernels else "" for k in sizes]
        cells = [text for name in names for text in _pair(row, name)]
        rows.append([row.label, *ticks, str(len(row.runs) or ""), *cells])
    return Sheet("figures", columns, rows, list(block.rows))


def _column(metric: str, name: str = "", meaning: str = "") -> Column:
    """Of a metric: sorted by what is better, of which the larger where that is not known."""
    best: webpage.Best = "low" if metrics.direction(metric) < 0 else "high"
    return Column(name or metrics.label(metric), best, meaning or metrics.meaning(metric))


def _delta(metric: str, baseline: str) -> str:
    return f"{metrics.label(metric)} minus that of {baseline}; {SIGNS_MEAN}"


def _pair(row: Row, name: str) -> tuple[webpage.Cell, webpage.Cell]:
    """The mean, and the difference with its sign."""
    if row.source == "not run":
        return ("not run", FAINT), ""
    cell = row.cells.get(name)
    if cell is None or cell.mean != cell.mean:
        return "–", ""
    if cell.test is None:
        return number(name, cell.mean), ""
    sign = SIGNS.get(cell.test.word, NO_TEST)
    text = f"{number(name, cell.test.difference, '+')} {sign}".rstrip()
    tone = FAINT if sign == NO_TEST else TONES.get(cell.test.word, "")
    return number(name, cell.mean), (text, tone)


def _tests(group: Group, block: Block, baseline: str) -> Sheet:
    columns = [
        Column("metric", "name", "of the validation set, in the order of the tables"),
        ROW,
        SEEDS,
    ]
    first = group.metrics[0] if group.metrics else ""
    for name, meaning in TESTED.items():
        best: webpage.Best = "low" if name.startswith(("p", "smallest")) else _column(first).best
        columns.append(Column(name.strip(), best, meaning.format(baseline=baseline)))
    rows: list[list[webpage.Cell]] = []
    of = []
    for name in group.metrics:
        for row in block.rows:
            cell = row.cells.get(name)
            if row.source == "ours" and cell:
                rows.append([metrics.label(name), row.label, *_tested(name, row, cell)])
                of.append(row)
    return Sheet("tests", [*columns, Column(VERDICT, "name", VERDICT_MEANS)], rows, of)


def _tested(name: str, row: Row, cell: Cell) -> list[webpage.Cell]:
    if not cell.values:
        return [str(len(row.runs)), *[""] * 7, "no figures"]
    test = cell.test
    seeds = str(len(cell.values)) + (f" of {len(row.runs)}" if cell.missing else "")
    if test and test.kind == "paired" and test.seeds < len(cell.values):
        seeds += f", {test.seeds} pairs"
    texts = [seeds, number(name, cell.mean), _interval(name, cell.interval)]
    if test is None:
        why = "not averaged" if row.alone else ""
        return [*texts, *[""] * 5, why]
    low_high = (test.low, test.high) if test.low is not None and test.high is not None else None
    texts += [number(name, test.difference, "+"), _interval(name, low_high, "+")]
    texts += ["" if p is None else f"{p:.2g}" for p in (test.p, test.corrected)]
    texts.append("" if test.smallest is None else number(name, test.smallest))
    return [*texts, (verdict(test), TONES.get(test.word, ""))]


def verdict(test: Effect) -> str:
    """The verdict, and whether the test was unpaired."""
    return test.word + (" (unpaired)" if test.kind == "unpaired" and test.p is not None else "")


def _interval(name: str, bounds: tuple[float, float] | None, sign: str = "") -> str:
    return "" if bounds is None else f"[{', '.join(number(name, b, sign) for b in bounds)}]"


def _network(group: Group, block: Block, baseline: str) -> Sheet:
    sizes = {row.network.size for row in block.rows if row.network.size}
    at = f" at {'x'.join(map(str, dict.fromkeys(sizes.pop())))} px" if len(sizes) == 1 else ""
    part = {"det": "backbone MACs", "seg": "MACs without head"}.get(group.kind, "MACs")
    ranked = used(Use.RANK)
    pruned = any(row.is_pruned for row in block.rows)  # or it repeats the parameters
    columns = [
        ROW,
        Column("parameters", "low", "of the network that was trained"),
        *[Column("non-zero", "low", "parameters that pruning left")] * pruned,
        Column(f"{part}{at}", "low", "multiply-accumulates for one image"),
        Column("step time", "low", STEP_TIME.format(baseline=baseline)),
        *(Column(m.with_unit(m.name), m.order, m.meaning) for m in ranked),
    ]
    rows: list[list[webpage.Cell]] = []
    for row in block.rows:
        known = row.network if row.source != paper.NAME else type(row.network)()
        rows.append(
            [
                row.label,
                _si(row.parameters),
                *[_si(row.nonzero)] * pruned,
                _si(known.macs),
                "" if row.step_time is None else f"×{row.step_time:.2f}",
                *(_shape(metric, known.figures.get(metric.name)) for metric in ranked),
            ]
        )
    return Sheet("networks", columns, rows, list(block.rows))


def _shape(metric: Metric, value: Any) -> str:
    return "" if value is None else metric.text(value, merge=True)


def _si(value: int | None) -> str:
    """25557032 as '25.6 M'."""
    if value is None:
        return ""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return str(value)


def number(metric: str, value: float, sign: str = "") -> str:
    """A number: percentages with two decimals, others with four digits."""
    percent = metrics.direction(metric) == 1
    return f"{value:{sign}.2f}" if percent else f"{value:{sign}#.4g}"


def settings_line(block: Block) -> str:
    """The keys in which this setting differs; a mapping of which none is set is named once."""
    told: dict[str, str] = {}
    for key, value in block.keys.items():
        top = key.partition(".")[0]
        alike = [v for k, v in block.keys.items() if k.partition(".")[0] == top]
        told[top if len(alike) > 1 and {*alike} == {"not set"} else key] = value
    return printable(", ".join(f"{key}={value}" for key, value in told.items()))


def legend(report: Report) -> list[str]:
    """How to read the signs, tests and columns."""
    texts = [text.format(baseline=report.baseline) for text in LEGEND]
    shown = any("consistency" in group.metrics for group in report.groups)
    return [*texts, CONSISTENCY] if shown else texts
