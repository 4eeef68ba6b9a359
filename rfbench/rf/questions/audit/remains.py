"""What remains of the faults of a network after fixing a layer, a level or all of it."""

from typing import Any

from rfbench.rf.core import metrics
from rfbench.rf.core.metric import Use
from rfbench.rf.core.position import Pair
from rfbench.rf.core.progress import progress
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit.checkerboard import LEAST
from rfbench.rf.questions.audit.counterfactual import Step, fixed, steps

Record = dict[str, Any]


def figures(target: Target) -> Record:
    """What is judged of the central unit."""
    counts, geometry = target.counts(), target.geometry
    row = {m.name: m.of(counts, geometry) for m in metrics.used(Use.AUDIT)}
    row["shift"] = [s if s is None else round(s, 9) + 0.0 for s in row["shift"]]
    row["checkerboard"] = metrics.checkerboard(counts, geometry) or 0.0
    return {**row, "gridding_by_period": metrics.gridding_by_period(counts, geometry)}


def of_layers(target: Target, own: Target, causes: list[Step], now: Record) -> list[Record]:
    """What remains after fixing only one layer, for those that make a difference.

    Not what would make a causal network read ahead.
    """
    reached = float(own.reached.mean())
    at_own = {s.number: s for s in steps(own)} if reached < 1 else {}
    rows = []
    for step in progress(causes, "layer"):
        alone = fixed(target, [step])
        if own.is_causal and not alone.is_causal:
            continue
        rest = figures(alone)
        if same := at_own.get(step.number):
            rest["reached"] = float(fixed(own, [same]).reached.mean())
        if effect(rest, now) > 1e-6 or rest.get("reached", reached) != reached:
            rows.append({"layer": step.layer, "what": step.what, **rest})
    return rows


def of_levels(target: Target, causes: list[Step]) -> list[Record]:
    """What remains after fixing all layers that reach one stride: branches belong together."""
    levels: dict[float, list[Step]] = {}
    for step in causes:
        fields = target.theory.fields[max(step.nodes)] or ()
        strides = [float(f.stride) for f in fields if f is not None and f.stride]
        if strides:
            levels.setdefault(max(strides), []).append(step)
    return [
        {"stride": stride, "layers": [s.layer for s in level]} | figures(fixed(target, level))
        for stride, level in sorted(levels.items())
        if len(level) > 1
    ]


def faultless(record: Record) -> bool:
    """Whether the field is centred, even, without holes and of branches that agree."""
    meant = ["shift"] * record["causal"] + ["misaligned"] * record["misaligned_meant"]
    rest = [m for m in metrics.used(Use.AUDIT) if m.name not in meant]
    judged = any(m.is_fault(record[m.name]) for m in rest)
    return not judged and record["checkerboard"] <= LEAST


def effect(rest: Record, now: Record) -> float:
    """How much a fix changes, each figure by its own size."""
    pairs: list[tuple[float, float]] = []
    for m in metrics.used(Use.AUDIT):
        then, before = rest[m.name], now[m.name]
        pairs.append((m.badness(then), m.badness(before)))
        if isinstance(then, list):
            pairs += ((a, b) for a, b in zip(then, before, strict=True) if None not in (a, b))
    pairs.append((rest["checkerboard"], now["checkerboard"]))
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs)


def size_of(shift: Pair) -> float:
    """A shift as one number: the largest of all axes that have one, in px."""
    return max(abs(s) for s in shift if s is not None)
