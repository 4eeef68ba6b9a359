"""An audit in a few lines of text."""

from collections.abc import Sequence
from itertools import accumulate
from textwrap import shorten
from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.core import metrics, randomness
from rfbench.rf.core.metric import Metric, Use, of_channels, unit_of
from rfbench.rf.questions.audit import by_size, pruned
from rfbench.rf.questions.audit.checkerboard import LEAST
from rfbench.rf.questions.audit.remains import effect, faultless

MOST = 12  # steps in the text; --json has all
WIDE = 100  # characters of names in a line
COSTS = ("macs", "activations")

Record = dict[str, Any]


def text(record: Record) -> str:
    """A record of `audit` in a few lines."""
    at, cover = _by(record["input_size"]), record["coverage"]
    start = "" if record["from"] == "input" else f" from {record['from']}"
    axes = len(record["input_size"])
    rows = [(m.heading(axes), _value(m, record)) for m in metrics.used(Use.AUDIT)]
    share = f"{cover['reached']:.1%} of the input; the central unit's box {cover['seen']:.1%}"
    if record["checkerboard"] > LEAST:
        names = ", ".join(name or "the network" for name in record["checkerboard_layers"])
        by = f"   (by {names})" if names else ""  # rows of zeros are no layer
        rows.append(("checkerboard", f"{record['checkerboard']:.4f}{by}"))
    name = f"{record['model']} / {record['variant']}{start} to {record['to']}"
    channels = of_channels(record["input_channels"])
    unit = unit_of(len(record["input_size"]))
    lines = [f"{name} at {at} {unit}, {channels}: {record['status']}"]
    lines += columns([*rows, ("coverage", share)], "  ")
    lines += columns(_causes(record), "  ") if record["steps"] else []
    if (hidden := len(record["steps"]) - MOST) > 0:
        lines.append(f"    and {hidden} more that do less (--json)")
    sizes = by_size.lines(record["sizes"]) if "sizes" in record else []
    left = pruned.lines(record["pruned"]) if "pruned" in record else []
    said = [f"  {line}" for line in randomness.lines(record)]
    return "\n".join([*lines, *said, *left, *_fixes(record), *sizes])


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _value(metric: Metric, record: Record) -> str:
    """A figure of the network as it is, with what belongs to it."""
    unit = unit_of(len(record["input_size"])) if metric.unit == "px" else metric.unit
    text = metric.text(record[metric.name]) + (f" {unit}" if unit else "")
    return text + _BESIDE.get(metric.name, lambda *_: "")(metric, record)


def _shift(metric: Metric, record: Record) -> str:
    own, at, notes = record["at_own_size"], _by(record["input_size"]), []
    if record["no_stride_along"]:
        axes = " and ".join(record["no_stride_along"])
        notes.append(f"along {axes} units have no stride in common")
    elif record["causal"]:
        notes.append("meant: it is causal, and reads nothing ahead")
    elif own["cut"]:
        at = f"{at} {unit_of(len(record['input_size']))}"
        added = metric.text(own["shift_by_border"])
        notes.append(f"the border cuts it at {at}, which adds {added}")
    larger, stretched = _by(record["measured_at"]), record.get("stretched_along")  # not in old ones
    if stretched and larger != _by(record["input_size"]):
        px, axes = unit_of(len(record["input_size"])), " and ".join(stretched)
        notes.append(
            f"of an input of {larger} {px}: along {axes} units have no stride in common, and "
            "inputs of other sizes have other shifts"
        )
    ranges = [r for r in record.get("shift_range") or [] if None not in r]  # not in old records
    ends = [(metric.text([least]), metric.text([most])) for least, most in ranges]
    if any(least != most for least, most in ends):
        spans = dict.fromkeys(f"{least} to {most}" for least, most in ends)  # of equal axes once
        notes.append(f"the mean of units with {', '.join(spans)}")
    return f"   ({'; '.join(notes)})" if notes else ""


def _periods(metric: Metric, record: Record) -> str:
    grid = record["gridding_by_period"]
    periods = ", ".join(f"{period}: {metric.text(cv)}" for period, cv in grid.items())
    return f"   (by period {periods})" if len(grid) > 1 else ""


def _layers(_: Metric, record: Record) -> str:
    where = ", ".join(name or "the network" for name in record["misaligned_layers"])
    meant = "; meant: they end at one sample" if record["misaligned_meant"] else ""
    return f"   ({where}{meant})" if where else ""


def _holes(_: Metric, record: Record) -> str:
    if record["read"] == 1:
        return ""
    names = [name or "the network" for name in dict.fromkeys(record["hole_layers"])]
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    by = f"by {', '.join(names[:MOST])}{more}" if names else "by no single layer"
    return f" of its box   (holes, {by})"


_BESIDE = {"shift": _shift, "gridding": _periods, "read": _holes, "misaligned": _layers}


def _cells(row: Record, record: Record) -> list[str]:
    own = [m.text(row[m.name]) for m in metrics.used(Use.AUDIT)]
    return [*own, f"{row['checkerboard']:.4f}"] if record["checkerboard"] > LEAST else own


def _head(record: Record) -> list[str]:
    axes = len(record["input_size"])
    own = [m.heading(axes) for m in metrics.used(Use.AUDIT)]
    return [*own, "checkerboard"] if record["checkerboard"] > LEAST else own


def _causes(record: Record) -> Sequence[tuple[str, ...]]:
    """What remains after fixing one layer, all of a level, all there are."""
    shown = sorted(record["steps"], key=lambda row: -effect(row, record))[:MOST]
    named = [(f"{r['layer']} ({r['what']})".strip(), r) for r in record["steps"] if r in shown]
    named += [
        (f"the {len(r['layers'])} that reach stride {r['stride']:g}", r) for r in record["together"]
    ]
    named.append(("all of them", record["all"]))
    lines = [["after fixing only this layer", *_head(record)]]
    lines += [[f"  {name}", *_cells(row, record)] for name, row in named]
    if any("reached" in row for _, row in named):
        shares = (f"{row['reached']:.1%}" if "reached" in row else "" for _, row in named)
        lines = [[*line, more] for line, more in zip(lines, ["coverage", *shares], strict=True)]
    return [tuple(line) for line in lines]


def _fixes(record: Record) -> list[str]:
    """The variants' table, and the line to type."""
    if faultless(record) and all("refused" in row for row in record.get("fixes", [])):
        return [f"  {nothing_to_fix(record)}"]
    if "fixes" not in record:
        return []
    rows: list[tuple[str, ...]] = [("variant", "layers", *_head(record), "MACs", "activations")]
    for row in (r for r in record["fixes"] if "refused" not in r):
        more = (f"{row[f'{key}_more']:+.1%}" if f"{key}_more" in row else "-" for key in COSTS)
        rows.append((row["variant"], str(len(row["layers"])), *_cells(row, record), *more))
    lines = columns(rows, "  ") if len(rows) > 1 else []
    lines += [f"  {_one_line(row['refused'])}" for row in record["fixes"] if "refused" in row]
    lines += [f"  {text}" for text in _untouched(record)]
    if record["read"] < 1 and any("dilation" in row["what"] for row in record["steps"]):
        lines.append(
            "  holes: dilations without a common factor, such as 1, 2, 5 (HDC), or undilated "
            "layers behind them (DRN) leave none"
        )
    if record["checkerboard_layers"]:
        mended = any("transposed" in row["what"] for row in record["steps"])
        lines.append(
            "  checkerboard: kernels that the stride divides, or resizing before a convolution "
            "(Odena et al., 2016) have none"
            + ("; above, each in the place of a transposed convolution" if mended else "")
        )
    if record["best"]:
        lines.append(f'  best: rfbench.fix(model, "{record["best"]}")')
    return lines


def nothing_to_fix(record: Record) -> str:
    """What was checked and found good, of a network that is `faultless`."""
    centred = "causal" if record["causal"] else "centred"
    if record["no_stride_along"]:
        centred += " where there is a stride"
    return f"nothing to fix: {centred}, without grid or holes, all branches aligned"


def _untouched(record: Record) -> list[str]:
    """The layers at fault that no variant changes: there is none for their kind, or it cannot."""
    changed = {layer for row in record["fixes"] for layer in row.get("layers", ())}
    left = [
        row
        for row in record["steps"]
        # what would mend a transposed convolution is said with the checkerboard
        if "layer" in row and row["layer"] not in changed and "transposed" not in row["what"]
    ]
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for row in left:
        changes = row["what"].startswith(("convolution", "max_pool"))
        kinds[changes].append(f"{row['layer']} ({row['what']})")
    lines = [f"no variant is for {_listed(kinds[False])}"] if kinds[False] else []
    return lines + ([f"no variant changes {_listed(kinds[True])}"] if kinds[True] else [])


def _listed(names: Sequence[str]) -> str:
    """As many names as a line holds, and the number of others."""
    ends = accumulate(len(name) + 2 for name in names)
    held = max(1, sum(end <= WIDE for end in ends))
    more = f" and {len(names) - held} more (--json)" if held < len(names) else ""
    return ", ".join(names[:held]) + more


def _one_line(text: str) -> str:
    """A sentence on one line: some name every layer."""
    return shorten(text, 120, placeholder=" ... (--json)")
