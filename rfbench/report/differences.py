"""The differences from the baseline as a table of strips: means, intervals, seeds on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from rfbench.errors import printable
from rfbench.plotting import webpage
from rfbench.plotting.webpage import Column
from rfbench.report import metrics, paper
from rfbench.report.model import Block, Group, Row
from rfbench.report.sheets import NO_TEST, ROW, SIGNS, TONES, number

WIDTH, MARGIN = 240.0, 8.0  # of a strip, px


@dataclass
class Scale:
    """What a metric's strips have in common: differences from `low` to `high`."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Where a difference is, px."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 2)


def table(group: Group, block: Block, keys: Sequence[str], baseline: str) -> Markup | None:
    """A row a variant, a strip a metric; None where nothing has a difference."""
    base = next((r for r in block.rows if r.variant == baseline and r.source == "ours"), None)
    rows = [
        (key, row)
        for key, row in zip(keys, block.rows, strict=True)
        if row.source == "ours" and not row.alone and any(c.test for c in row.cells.values())
    ]
    names = [n for n in group.metrics if any(row.cells[n].test for _, row in rows)]
    if base is None or not rows:
        return None
    published = {r.variant: r for r in block.rows if r.source == paper.NAME}
    drawn = {n: [_drawn(r, base, n, published.get(r.variant)) for _, r in rows] for n in names}
    scales = {name: _scale(found) for name, found in drawn.items()}
    columns, cells, foot = [ROW], [[printable(row.label)] for _, row in rows], [""]
    for name in names:
        best: webpage.Best = "low" if metrics.direction(name) < 0 else "high"
        columns.append(Column(printable(f"{metrics.label(name)}, minus {baseline}"), best, HOW))
        foot.append(_axis(scales[name]))
        for line, found in zip(cells, drawn[name], strict=True):
            line.append(_strip(found, scales[name]) if found else "")
    return webpage.table("Differences", columns, cells, [key for key, _ in rows], foot=foot)


HOW = (
    "bar: the mean, green where it is better ▲, orange where worse ▼, blue within noise ≈; "
    "line: its 95 % interval; dots: seeds; open diamond: the paper's"
)


def _drawn(row: Row, base: Row, name: str, published: Row | None) -> dict[str, Any] | None:
    """What a strip shows, as differences; None without any."""
    cell, theirs = row.cells[name], base.cells[name].values
    if (test := cell.test) is None:
        return None
    both = None if test.low is None or test.high is None else (test.low, test.high)
    dots = [value - theirs[seed] for seed, value in cell.values.items() if seed in theirs]
    told = published.cells[name].test if published and name in published.cells else None
    text = number(name, test.difference, "+")
    ends = (
        f", 95 % from {number(name, both[0], '+')} to {number(name, both[1], '+')}" if both else ""
    )
    return {
        "text": f"{text} {SIGNS.get(test.word, NO_TEST)}".rstrip(),
        "label": f"{text}{ends}, {len(dots)} seeds, {test.word}",
        "tone": TONES.get(test.word, ""),
        "mean": test.difference,
        "both": both,
        "dots": dots,
        "published": told.difference if told else None,
    }


def _scale(found: Sequence[dict[str, Any] | None]) -> Scale:
    values = [0.0]
    for strip in (s for s in found if s):
        values += [strip["mean"], *(strip["both"] or ()), *strip["dots"]]
        values += [] if strip["published"] is None else [strip["published"]]
    return Scale(min(values), max(values))


def _strip(found: dict[str, Any], scale: Scale) -> Markup:
    ends = found["both"] and [scale.x(end) for end in found["both"]]
    left, right = sorted((scale.x(0), scale.x(found["mean"])))
    return webpage.fill(
        webpage.asset("rfbench.report", "strip.html"),
        **{key: found[key] for key in ("text", "label", "tone")},
        zero=scale.x(0),
        left=left,
        width=round(right - left, 2),
        ends=ends,
        dots=[scale.x(dot) for dot in found["dots"]],
        published=None if found["published"] is None else scale.x(found["published"]),
    )


def _axis(scale: Scale) -> Markup:
    ticks = MaxNLocator(4).tick_values(scale.low, scale.high)
    shown = [t + 0.0 for t in ticks if scale.low <= t <= scale.high]
    return webpage.fill(
        webpage.asset("rfbench.report", "axis.html"),
        ticks=[(scale.x(tick), f"{tick:g}") for tick in shown],
    )
