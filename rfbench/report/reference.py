"""The published rows, and how a recipe differs from the published one."""

import dataclasses
from collections.abc import Sequence

from rfbench.config import flat
from rfbench.report import metrics, paper
from rfbench.report.model import Block, Cell, Group, Report, Row
from rfbench.report.runs import WEIGHTS, Run, decisive, text
from rfbench.report.sort import paper_order
from rfbench.report.stats import Effect
from rfbench.schemas.kinds import SCHEMAS

# keys that name the task, or affect only speed and memory
NO_RECIPE = (
    *("model", "detector", "data.name", "threads", "compile", "channels_last", "deterministic"),
    *("max_batch_per_gpu", *WEIGHTS),
)


def tables(kinds: Sequence[str], asked: Sequence[str]) -> list[paper.Table]:
    """The tables of these kinds of runs, with only the metrics asked for; (): all."""
    selected = []
    for table in paper.TABLES:
        shown = [
            i
            for i, metric in enumerate(table.metrics)
            if not asked or any(metrics.fits(name, metric) for name in asked)
        ]
        if shown and (not kinds or table.group[0] in kinds):
            names = tuple(table.metrics[i] for i in shown)
            rows = {variant: tuple(row[i] for i in shown) for variant, row in table.rows.items()}
            selected.append(dataclasses.replace(table, metrics=names, rows=rows))
    return selected


def add(report: Report, table: paper.Table) -> None:
    """Put a table's rows under the setting nearest to its recipe, or into a group of their own."""
    group = next((g for g in report.groups if g.key == table.group), None)
    if group is None:
        group = Group(*table.group, list(table.metrics), [Block({}, [])])
        report.groups.append(group)
    departures = [_departures(block, table) for block in group.blocks]
    nearest = min(range(len(departures)), key=lambda i: len(departures[i]))
    block = group.blocks[nearest]
    present = {row.variant for row in block.rows}
    block.rows += [Row(variant, "not run") for variant in table.rows if variant not in present]
    block.rows += _published(table, report.baseline)
    block.rows.sort(key=lambda row: (paper_order(row.variant), row.source == paper.NAME))
    block.notes.append(f"(paper): table {table.number} of Ge & Wu, which gives no spread")
    if departures[nearest]:
        block.notes.append(f"our recipe differs from the paper's: {', '.join(departures[nearest])}")


def _published(table: paper.Table, baseline: str) -> list[Row]:
    base = table.rows.get(baseline)
    rows = []
    for variant, figures in table.rows.items():
        row = Row(variant, paper.NAME)
        for i, name in enumerate(table.metrics):
            row.cells[name] = Cell(figures[i])
            if base is not None and variant != baseline:
                row.cells[name].test = Effect("none", 0, figures[i] - base[i])
        rows.append(row)
    return rows


def _departures(block: Block, table: paper.Table) -> list[str]:
    """The keys in which a setting's runs differ from the defaults, which are the paper's."""
    runs: list[Run] = [run for row in block.rows for run in row.runs]
    if not runs:
        return []
    record = runs[0].record
    recipe = flat(SCHEMAS[record.kind]().model_dump(mode="json"))
    values = decisive(record.kind, record.config)
    apart = [k for k, v in values.items() if k not in NO_RECIPE and v != recipe.get(k)]
    images = record.images.get("val")
    other = [f"images.val={images}"] if images != table.images else []
    return [*(f"{key}={text(values[key])}" for key in apart), *other]
