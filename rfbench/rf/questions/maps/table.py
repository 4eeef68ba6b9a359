"""The figures of some maps as lines of text."""

from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.core import metrics, randomness
from rfbench.rf.core.metric import Metric, Use


def table(record: dict[str, Any]) -> str:
    """The record's figures, a line a panel and input size."""
    if "panels" not in record:
        rows = record["shift_by_layer"]
        return "\n".join(f"{v}  {name}  {s:+.2f}" for v, row in rows.items() for name, s in row)
    shown = metrics.used(Use.TABLE)
    axes = {len(panel["metrics"]["size"]) for panel in record["panels"]}
    most = max(axes, default=2)
    heads = (m.with_unit(m.heading(most), most) for m in shown)
    lines = [("model", "variant", "input", *heads)]
    for panel in record["panels"]:
        for row in filter(None, (panel["metrics"], panel["at_own_size"])):
            size = "x".join(map(str, row["input_size"])) + (" (cut)" if row["cut"] else "")
            cells = (_cell(m, row) for m in shown)
            lines.append((panel["model"], _variant(panel), size, *cells))
    return "\n".join([*columns(lines), *_causal(record["panels"]), *_random(record["panels"])])


def _variant(panel: dict[str, Any]) -> str:
    """The variant, and of several inputs the one that it is seen from."""
    return panel["variant"] + (f" from {panel['from']}" if "from" in panel else "")


def _causal(panels: list[dict[str, Any]]) -> list[str]:
    """Which networks read nothing ahead, and what of their figures is meant therefore."""
    lines = []
    for panel in (p for p in panels if p.get("causal")):  # not in records of old
        meant = "its shift is meant"
        if panel["misaligned_meant"] and panel["metrics"]["misaligned"]:
            meant += ", and so are its branches, which end at one sample"
        lines.append(
            f"{panel['model']} {_variant(panel)} is causal (nothing ahead is read): {meant}"
        )
    return lines


def _random(panels: list[dict[str, Any]]) -> list[str]:
    """What is drawn at random, the same for all variants of a network."""
    said = (f"{p['model']}: {line}" for p in panels for line in randomness.lines(p["metrics"]))
    return list(dict.fromkeys(said))


def figures(row: dict[str, Any]) -> str:
    """The figures of one map, a line each."""
    axes = len(row["size"])
    shown = [m for m in metrics.used(Use.TABLE) if m.name in row]
    rows = [(m.with_unit(m.heading(axes), axes), _cell(m, row)) for m in shown]
    return "\n".join([*columns(rows), *randomness.lines(row)])


def _cell(metric: Metric, row: dict[str, Any]) -> str:
    """A figure, and how much of it is no fault of the network."""
    border = row.get(f"{metric.name}_by_border")
    return metric.text(row[metric.name]) + (f" (border {metric.text(border)})" if border else "")
