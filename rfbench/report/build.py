"""From runs to a comparison: grouped, averaged, tested, with the paper's rows beside them."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfbench.config import flat
from rfbench.errors import RfbenchError, UsageError, counted, printable, suggest
from rfbench.models import variant as variants
from rfbench.plotting.columns import natural
from rfbench.report import metrics, networks, reference, sort, stats
from rfbench.report.model import Block, Cell, Group, Network, Report, Row
from rfbench.report.runs import Results, Run, Setting, by_rows, defaults, disputed, settings

# (model, names of variants, input size) -> what is known of each variant
Look = Callable[[str, Sequence[str], tuple[int, int] | None], dict[str, Network]]


@dataclass(frozen=True)
class Wanted:
    """The user's choices; (): all kinds, the paper's metrics; None: baseline, the paper's order.

    rows: keys of the configuration that are compared; (): the variant is.
    """

    kinds: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    baseline: str | None = None
    sort: str | None = None
    reference: bool = False
    rows: tuple[str, ...] = ()


def build(results: Results, wanted: Wanted, look: Look, folders: Sequence[Path]) -> Report:
    """Compare the runs. Raises RfbenchError if there are none, UsageError for what none has."""
    runs = [run for run in results.runs if not wanted.kinds or run.record.kind in wanted.kinds]
    if not runs and not wanted.reference:
        raise RfbenchError(_nothing(results, wanted, folders))
    if wanted.rows:
        if wanted.reference:
            raise UsageError("--reference compares variants; leave out --rows")
        runs = by_rows(runs, wanted.rows)
        _check_rows(runs)
    report = Report(_baseline(runs, wanted), [], list(results.problems))
    tables = reference.tables(wanted.kinds, wanted.metrics) if wanted.reference else []
    known = [key for run in runs for key in metrics.of(run)]
    metrics.check([*known, *(key for table in tables for key in table.metrics)], wanted.metrics)
    by_group: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.group, run.record.seed, str(run.folder))):
        by_group.setdefault(run.group, []).append(run)
    for key, members in by_group.items():
        names = metrics.select(members, wanted.metrics)
        group = Group(*key, names, [_block(s, names, report.baseline) for s in settings(members)])
        if names:
            report.groups.append(group)
        else:
            asked = ", ".join(wanted.metrics)
            report.problems.append(f"{group.title}: skipped; none of its runs has {asked}")
    for table in tables:
        reference.add(report, table)
    report.groups.sort(key=lambda group: [*map(natural, group.key)])
    column = sort.column_of(wanted.sort) if wanted.sort else None
    if column and column not in sort.columns():
        sort.check(report, column)
    for group in report.groups:
        _look_at(group, look)
    if column:
        sort.rows(report, column)
    return report


def _baseline(runs: Sequence[Run], wanted: Wanted) -> str:
    """The variant that the others are compared with."""
    if wanted.baseline is None:
        return variants.PAPER[0]
    name = wanted.baseline if wanted.rows else variants.get(wanted.baseline).name
    known = sorted({run.row for run in runs}, key=sort.paper_order)
    if runs and name not in known:
        raise UsageError(f"--baseline: no run is of '{name}'. There are: {', '.join(known)}.")
    return name


def _check_rows(runs: Sequence[Run]) -> None:
    """Raise UsageError for a key that no configuration has."""
    # older records lack keys that have been added since
    known = {"variant"}.union(*({*flat(r.record.config), *defaults(r.record.kind)} for r in runs))
    known |= {key.rpartition(".")[0] for key in known} - {""}
    for key in runs[0].rows if runs else ():
        if key not in known:
            raise UsageError(f"--rows: no run has the key '{key}'.{suggest(key, sorted(known))}")


def _nothing(results: Results, wanted: Wanted, folders: Sequence[Path]) -> str:
    what = f"no finished runs{' of ' + ' or '.join(wanted.kinds) if wanted.kinds else ''}"
    others = [f"{len(results.problems)} that cannot be used"] if results.problems else []
    others += [f"{results.maps} of receptive fields"] if results.maps else []
    others += [f"{len(results.runs)} of another kind"] if results.runs else []
    where = ", ".join(map(str, folders))
    return f"{what} in {where} and below ({', '.join(others) or 'no result.json'})."


def _block(setting: Setting, names: Sequence[str], baseline: str) -> Block:
    """The rows of a setting, tested against its baseline."""
    claims = disputed(setting.runs)
    by_variant: dict[str, list[Run]] = {}
    rows: list[Row] = []
    for run in setting.runs:
        if run.folder in claims:
            rows.append(Row(run.row, runs=[run], alone=True))
        else:
            by_variant.setdefault(run.row, []).append(run)
    rows += [Row(variant, runs=members) for variant, members in by_variant.items()]
    rows.sort(key=lambda row: (sort.paper_order(row.variant), row.alone, row.label))
    block = Block(setting.keys, rows)
    base = next((r for r in rows if r.variant == baseline and not r.alone), None)
    for row in rows:
        row.parameters = row.runs[0].record.parameters
        row.nonzero = row.runs[0].record.nonzero
        figures = {run.record.seed: metrics.of(run) for run in row.runs}
        row.cells = {name: _cell(figures, name) for name in names}
        if base and not row.alone:
            row.step_time = _step_time(row, base)
    for name in names:
        _test(rows, base, name)
    block.notes = [printable(note) for note in _notes(block, base, baseline, names)]
    return block


def _cell(figures: Mapping[int, Mapping[str, float | None]], metric: str) -> Cell:
    """A metric of a row. figures: all metrics by seed."""
    by_seed = {seed: held.get(metric) for seed, held in figures.items()}
    values = {seed: value for seed, value in by_seed.items() if value is not None}
    missing = len(by_seed) - len(values)
    if not values:
        return Cell(float("nan"), missing=missing)
    numbers = list(values.values())
    return Cell(statistics.fmean(numbers), values, stats.interval(numbers), missing)


def _test(rows: Sequence[Row], base: Row | None, metric: str) -> None:
    if base is None or not base.cells[metric].values:
        return
    for row in rows:
        if row is not base and not row.alone and row.cells[metric].values:
            row.cells[metric].test = stats.compare(
                row.cells[metric].values, base.cells[metric].values
            )
    tests = [test for row in rows if (test := row.cells[metric].test)]
    stats.judge(tests, metrics.direction(metric))


def _step_time(row: Row, base: Row) -> float | None:
    """Time of a step relative to the baseline's, on the device that most runs of both share."""
    speeds: list[dict[str, list[float]]] = []
    for each in (row, base):
        speeds.append({})
        for record in (run.record for run in each.runs):
            speed = metrics.figure(record.images_per_s) or 0.0
            if speed > 0:
                device = f"{record.device} x {record.batch.get('world_size', 1)}"
                speeds[-1].setdefault(device, []).append(speed)
    ours, theirs = speeds
    if not (common := set(ours) & set(theirs)):
        return None
    device = max(sorted(common), key=lambda p: min(len(ours[p]), len(theirs[p])))
    return statistics.median(theirs[device]) / statistics.median(ours[device])


def _notes(block: Block, base: Row | None, baseline: str, names: Sequence[str]) -> list[str]:
    """What a reader must know before trusting the rows."""
    notes = []
    if base is None:
        notes.append(f"no run of {baseline} in this setting: no differences, no tests")
    for (variant, seed), count in Counter(
        (row.variant, row.runs[0].record.seed) for row in block.rows if row.alone
    ).items():
        notes.append(f"{count} records claim to be {variant}, seed {seed}: not averaged")
    none = [name for name in names if not any(row.cells[name].values for row in block.rows)]
    if none:
        labels = ", ".join(map(metrics.label, none))
        notes.append(f"{labels}: missing or not a number in every run")
    for row in block.rows:
        bad = {n: c.missing for n, c in row.cells.items() if c.missing and n not in none}
        if bad:
            text = ", ".join(map(metrics.label, bad))
            most = max(bad.values())
            of = f"{most} of {counted(len(row.runs), 'run')}"
            notes.append(f"{row.label}: {text} missing or not a number in {of}")
    runs = [run.record for row in block.rows for run in row.runs]
    for what, values in (
        ("devices", {record.device for record in runs}),
        ("versions of torch", {record.versions.get("torch", "unknown") for record in runs}),
    ):
        if len(values) > 1:
            notes.append(f"{len(values)} {what}: {', '.join(sorted(values))}")
    parents = [[p.seed for run in r.runs if (p := run.record.parent)] for r in block.rows]
    if any(len(seeds) > 1 and len(set(seeds)) == 1 for seeds in parents):
        notes.append("all detectors start from one classifier; its seed's variation is not covered")
    return notes


def _look_at(group: Group, look: Look) -> None:
    """Add cost and receptive field of every variant of a group, in all settings.

    From the records of a row's runs; `look` is asked for what they do not tell.
    """
    rows = [row for block in group.blocks for row in block.rows]
    runs = [run for row in rows for run in row.runs]
    side = runs[0].record.input.get("size") if runs else None
    group.name = runs[0].record.model if runs else group.model
    told = [_told(row) for row in rows]
    unknown = {row.variant for row, known in zip(rows, told, strict=True) if known is None}
    names = sorted(unknown, key=sort.paper_order)
    size = (side, side) if isinstance(side, int) else None
    if runs and runs[0].rows:  # not of one model; the records tell, or nobody does
        names = []
    measured = look(group.name, names, size) if names else {}
    for row, known in zip(rows, told, strict=True):
        row.network = known or measured.get(row.variant, Network())


def _told(row: Row) -> Network | None:
    """What the first record of a row that tells of its network says."""
    known = (networks.from_record(run.record.network) for run in row.runs)
    return next((network for network in known if network), None)
