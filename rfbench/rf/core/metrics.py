"""The metrics of a receptive field: where it is, whether it grids and whether it has holes.

To add one, write a function of a map of path counts and its geometry, and give it an entry in
METRICS. It then appears in every record, caption and table, in `rf audit` and its --fail-on, in
the zoo and in `compare`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np

from rfbench.errors import UsageError, counted
from rfbench.rf.core.geometry import Geometry, NotUniform
from rfbench.rf.core.metric import Best, Metric, Record, Use, axes_text, merged, unit_of
from rfbench.rf.core.path_map import PathMap, phase_sums
from rfbench.rf.core.position import (
    Pair,
    registration,
    registration_range,
    shift,
    shift_range,
    unit_shift,
)

# -- the metrics -----------------------------------------------------------------------------------


def gridding(counts: PathMap, geometry: Geometry) -> float:
    """The largest of `gridding_by_period`; 0 for an even map.

    A multiple of a period never has less than it: behind strides alone it is that of S.
    """
    return max([0.0, *gridding_by_period(counts, geometry).values()])


def gridding_by_period(counts: PathMap, geometry: Geometry) -> dict[str, float]:
    """Coefficient of variation of the counts' sums over pixel phases, for every period.

    A period is the effective stride behind one of the network's reductions, or the distance of a
    dilated kernel's taps: both sample the layers before them at that distance. 0 for an even map.
    Along an axis without a stride counts are summed. Raises NotUniform where no axis has one.
    """
    geometry.check_some()  # where there is no stride there is no period
    together = _together(geometry.periods)
    # summed at a common multiple of them once, where the map holds it
    common = [math.lcm(*p) for p in geometry.periods]
    sums = counts.by_phase(tuple(map(min, common, counts.counts.shape)))
    return {
        "x".join(map(str, p if len({*p}) > 1 else p[:1])): _variation(phase_sums(sums, p))
        for p in together
    }


def _together(periods: Sequence[list[int]]) -> list[tuple[int, ...]]:
    """The periods of all axes, from the shortest of each to the longest of each."""
    longest = max(1, *map(len, periods))
    filled = ([*p, *(p[-1:] or [1]) * (longest - len(p))] for p in periods)
    return list(zip(*filled, strict=True))


def _variation(values: np.ndarray) -> float:
    return float(values.std() / values.mean())


def read(counts: PathMap, geometry: Geometry) -> float:
    """Share of the theoretical box of the unit, within the source, that a path leads from.

    Less than 1: the field has holes. Dilated kernels whose rates share a factor leave some (Wang
    et al., WACV 2018; Yu et al., CVPR 2017), and strides larger than the kernels around them. 1 of
    a unit whose box lies in the padding, as at a border that is reflected.
    """
    box = tuple(slice(first, last + 1) for first, last in geometry.box(counts.unit))
    within = counts.counts[box] != 0
    return float(within.mean()) if within.size else 1.0


def checkerboard(counts: PathMap, geometry: Geometry) -> float | None:
    """Coefficient of variation of the paths from all pixels over units that take turns.

    Transposed convolutions whose stride does not divide the kernel reach some positions of their
    output by more taps than others (Odena et al., Distill 2016). 0 where later layers even it out;
    None where the border cuts the field, which makes some of its own.
    """
    if counts.period is None:
        return 0.0
    if geometry.is_cut(counts.unit):
        return None
    return float(counts.period.totals.std() / counts.period.totals.mean())


def support(counts: PathMap) -> dict[str, int]:
    """The bounding box of the positions that any path reaches, both ends included."""
    ends = zip(_ENDS[-counts.counts.ndim :], counts.bounds, strict=True)
    return {name: at for pair, region in ends for name, at in zip(pair, region, strict=True)}


_ENDS = [("front", "back"), ("top", "bottom"), ("left", "right")]


def misaligned_layers(geometry: Geometry) -> list[str]:
    """The layer of every addition and concatenation whose branches disagree, along either axis."""
    return [*{d.nodes: d.layer for d in geometry.disagreements}.values()]


# -- their parts of a caption ----------------------------------------------------------------------


def _shift_words(record: Record, brief: bool) -> list[str]:
    border = record.get("shift_by_border")
    if record["shift"] is None:
        return ["" if brief else "no stride, so no shift"]
    text, both = _offset(record["shift"])
    words = [f"shift {'' if both else _axes(record['shift'])}{text} {_unit(record)}"]
    if border and any(b is not None and abs(b) >= 0.005 for b in border):
        text = _offset(border)[0]
        sign = "" if text.startswith(("−", "–")) else "+"
        words.append(f"{sign}{text} of it by the border")
    if (ranges := record.get("shift_range")) and not brief:
        told = [r for r in ranges if None not in r]
        ends = [" to ".join((_offset(r)[0].split(", ") * 2)[:2]) for r in told]
        p = " × ".join(merged(record["phases"]))
        what = "units" if record["stride"] is None else "phases"  # of a stretched map
        words.append(f"mean of {p} {what}: {', '.join(dict.fromkeys(ends))}")
        if own := record.get("unit_shift"):  # which is where the map's centroid is drawn
            words.append(f"this unit {_offset(own)[0]}")
    return words


def _offset(pair: Pair) -> tuple[str, bool]:
    """A figure of every axis in words, and whether it is the same along all."""
    known = ["–" if s is None else f"{round(s, 2) + 0.0:.2f}" for s in pair]
    each = [text.replace("-", "−") for text in known]
    return ", ".join(merged(each)), len(set(each)) == 1


def _axes(figures: Sequence[float]) -> str:
    return f"({axes_text(len(figures))}) "


def _unit(record: Record) -> str:
    return unit_of(len(record["size"]))


def _gridding_words(record: Record, brief: bool) -> list[str]:
    grid = record["gridding_by_period"] or {}
    words = [] if record["gridding"] is None else [f"gridding {_cv(record['gridding'])}"]
    first = next(iter(grid), None)
    if not brief and first is not None and _cv(grid[first]) != _cv(record["gridding"]):
        words.append(f"{_cv(grid[first])} at period {first}")
    return words


def _whole(stride: Fraction | int | None) -> int | float | None:
    if stride is None:
        return None
    return int(stride) if stride == int(stride) else float(stride)


def _read_words(record: Record, brief: bool) -> list[str]:
    share = record.get("read", 1)  # records of before have none
    return [f"reads {READ.text(share)} of its box"] if share < 1 else []


def _cv(value: float) -> str:
    return "0" if value < 1e-9 else f"{value:.4f}" if value >= 5e-5 else "<0.0001"


def _size_words(record: Record, brief: bool) -> list[str]:
    size = " × ".join(merged(record["size"]))
    least = " × ".join(merged(record.get("least_size", record["size"])))
    span = size if least == size else f"{least} to {size}"
    return [] if brief else [f"size {span} {_unit(record)}"]


def _checkerboard_words(record: Record, brief: bool) -> list[str]:
    value = record.get("checkerboard") or 0  # records of before have none
    return [] if brief or value < 5e-5 else [f"checkerboard {value:.4f}"]


def _misaligned_words(record: Record, brief: bool) -> list[str]:
    apart = record["misaligned"]
    return [] if brief or not apart else [counted(apart, "misaligned addition")]


def _bypass_words(record: Record, brief: bool) -> list[str]:
    share = record["bypass"]
    return [] if brief or not share else [f"{share:.1%} of paths bypass the source"]


READ = Metric(
    "read",
    read,
    "share of the field's box that a path leads from; less than 1: holes",
    form=".1%",
    words=_read_words,
    best=Best.ONE,
)

# -- the list --------------------------------------------------------------------------------------

METRICS = [
    Metric(
        "shift",
        shift,
        "centroid of the path counts minus the unit's position in a centred grid",
        form="+.2f",
        unit="px",
        pair=True,
        words=_shift_words,
        best=Best.ZERO,
    ),
    Metric(
        "gridding",
        gridding,
        "coefficient of variation over pixel phases, the largest of strides and dilations",
        words=_gridding_words,
        best=Best.ZERO,
    ),
    READ,
    Metric(
        "size",
        lambda counts, geometry: [
            last - first + 1 if f is None else f.size
            for f, (first, last) in zip(geometry.field, geometry.regions(counts.unit), strict=True)
        ],
        "theoretical field along every axis; the largest where units take turns",
        use=Use.TABLE,
        form="",
        join="x",
        words=_size_words,
    ),
    Metric(
        "stride",
        lambda _, geometry: _of_some([_whole(s) for s in geometry.strides]),
        "effective stride",
        use=Use.TABLE,
        form="g",
        join="x",
        words=lambda record, brief: [],
    ),
    Metric(
        "misaligned",
        lambda _, geometry: len(misaligned_layers(geometry)),
        "additions and concatenations whose branches disagree",
        use=Use.AUDIT,
        form="",
        words=_misaligned_words,
        best=Best.ZERO,
    ),
    Metric(
        "checkerboard",
        checkerboard,
        "coefficient of variation of the paths from all pixels over units that take turns",
        use=Use.CAPTION,
        words=_checkerboard_words,
        best=Best.ZERO,
    ),
    Metric(
        "bypass",
        lambda counts, _: counts.bypass,
        "share of the paths from the input that do not pass the source",
        use=Use.CAPTION,
        words=_bypass_words,
    ),
]

# what a record has besides: (counts, geometry) -> value
BESIDES: dict[str, Callable[[PathMap, Geometry], Any]] = {
    "registration": registration,
    "gridding_by_period": gridding_by_period,
    "centroid": lambda counts, _: counts.centroid,
    "phases": lambda counts, geometry: (
        counts.period.totals.shape if counts.period is not None else geometry.phases
    ),
    "least_size": lambda counts, geometry: [
        min(b - a + 1 for a, b in (f.phases if f is not None else [alone]))
        for f, alone in zip(geometry.field, geometry.regions(counts.unit), strict=True)
    ],
    "shift_range": shift_range,
    "registration_range": registration_range,
    "unit_shift": unit_shift,
    "padding": lambda _, geometry: [f and f.padding for f in geometry.strided],
    "center": lambda counts, geometry: [
        (first + last) / 2 for first, last in geometry.regions(counts.unit)
    ],
    "support": lambda counts, _: support(counts),
    "cut": lambda counts, geometry: geometry.is_cut_anywhere(counts.unit),
    "misaligned_layers": lambda _, geometry: sorted(set(misaligned_layers(geometry))),
    "unit": lambda counts, _: counts.unit,
    "units": lambda counts, _: counts.units,
    "source_size": lambda _, geometry: geometry.source,
    "convention": lambda counts, _: asdict(counts.convention),
}


def used(use: Use) -> list[Metric]:
    """The metrics that go as far as this use, in the order of METRICS."""
    return [metric for metric in METRICS if metric.use >= use]


def measure(counts: PathMap, geometry: Geometry) -> dict[str, Any]:
    """All figures of a map, ready for JSON: distances in pixels of the source, pairs as (y, x).

    Along an axis where units have no stride in common, figures that need one are None, and
    'why_none' says why. Raises UsageError where no path reaches the unit, NotUniform for a map
    without a stride along any axis.
    """
    geometry.check_some()
    return measure_known(counts, geometry)


def measure_known(counts: PathMap, geometry: Geometry) -> dict[str, Any]:
    """As `measure`, also where no axis has a stride: then figures that need one are None."""
    out: dict[str, Any] = {}
    for name, of in _functions(counts).items():
        try:
            out[name] = of(counts, geometry)
        except NotUniform:
            out[name] = None
    try:
        geometry.check_all()
    except NotUniform as error:
        out["why_none"] = str(error)
    return out


def _of_some(values: list[Any]) -> list[Any] | None:
    """A figure of every axis; None where no axis has one."""
    return None if all(v is None for v in values) else values


def _functions(counts: PathMap) -> dict[str, Callable[[PathMap, Geometry], Any]]:
    if not counts.counts.any():
        at = ",".join(map(str, counts.unit))
        raise UsageError(f"no path from the source reaches unit {at}")
    return {metric.name: metric.of for metric in METRICS} | BESIDES


def caption(record: Record, brief: bool = False) -> str:
    """The figures of a map in words, as they stand below its panel. Breaks only at plain spaces."""
    parts = [part for metric in METRICS for part in metric.caption(record, brief)]
    parts += ["cut by the border"] if record["cut"] else []
    return ", ".join(part.replace(" ", "\u00a0") for part in parts)
