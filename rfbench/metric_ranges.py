"""What each metric can be: a number outside of its range was not measured, whatever file it is in.

Checkpoints, records and evaluations read the ranges here. A name that stands in no table may be any
number: it is one's own.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from rfbench.errors import one_line

PERCENT = (0, 100)
POSITIVE = (0, math.inf)
ROUNDING = 1e-6  # of sums in another order

PERCENTAGES = (
    *("top1", "top5", "train_top1", "consistency"),
    *("pixel_accuracy", "train_pixel_accuracy", "mean_accuracy"),
    *("mIoU", "foreground_mIoU", "boundary_mIoU"),
    *("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl"),
)
COUNTS = ("epoch", "images", "consistency_images", "pairs")
RANGES = dict.fromkeys(PERCENTAGES, PERCENT) | dict.fromkeys(
    (*COUNTS, "loss", "train_loss", "jitter", "coco"), POSITIVE
)
# groups of percentages by class, and the figure beside them that is their mean
MEANS = {"iou": "mIoU", "boundary_iou": "boundary_mIoU", "classes": "AP"}


def check(metrics: Any, name: str, classes: Collection[str] | None = None) -> None:
    """Raise ValueError, which names the metric, for what no evaluation gives.

    metrics: numbers by name, maybe in groups; None and what is not finite: undefined. classes: the
    names of all, where they are known.
    """
    if not isinstance(metrics, Mapping):
        raise ValueError(f"{name} is {one_line(repr(metrics), 60)}")
    _check_ranges(metrics, name)
    for where, group in _groups(metrics, name):
        _check_means(group, where, classes)
        if _number(group, "top1", 0.0) > _number(group, "top5", 100.0) + ROUNDING:
            raise ValueError(f"{where}.top1 is above top5: {group['top1']}, {group['top5']}")


def _check_ranges(metrics: Mapping[str, Any], name: str, by_class: bool = False) -> None:
    for key, value in metrics.items():
        where = one_line(f"{name}.{key}", 60)
        if isinstance(value, Mapping):
            _check_ranges(value, where, key in MEANS)
            continue
        low, high = PERCENT if by_class else _range(str(key), metrics)
        if _is_number(value) and not low <= value <= high + ROUNDING:
            what = f"not from {low} to {high}" if high < math.inf else f"below {low}"
            raise ValueError(f"{where} is {one_line(repr(value), 60)}, {what}")
        if not by_class and key in COUNTS and _is_number(value) and value != int(value):
            raise ValueError(f"{where} is {one_line(repr(value), 60)}, not a whole number")


def _range(key: str, beside: Collection[str]) -> tuple[float, float]:
    if key == "jitter" and "mIoU" in beside:  # of pixels; that of boxes is in px
        return PERCENT
    return RANGES.get(key, POSITIVE if key.endswith("_se") else (-math.inf, math.inf))


def _groups(metrics: Mapping[str, Any], name: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The metrics, and the groups in them, such as "ema" and "bbox"; not those by class."""
    below = {k: v for k, v in metrics.items() if isinstance(v, Mapping) and k not in MEANS}
    return [(name, metrics), *((one_line(f"{name}.{k}", 60), v) for k, v in below.items())]


def _check_means(
    group: Mapping[str, Any], where: str, classes: Collection[str] | None = None
) -> None:
    """Every class is there, and the mean of their figures is the figure that is told."""
    for key, mean in MEANS.items():
        each = group.get(key)
        if each is None:
            continue
        if not isinstance(each, Mapping):
            raise ValueError(f"{where}.{key} is no list by class")
        if mean not in group:
            continue
        if classes is not None and set(each) != set(classes):
            raise ValueError(f"{where}.{key} is of {len(each)} classes, not of all {len(classes)}")
        values = [value for value in each.values() if _is_number(value)]
        told, wanted = group[mean], [sum(values) / len(values)] if values else []
        if told is None and values:
            raise ValueError(f"{where}.{mean} is missing, {where}.{key} is there")
        _check_among(told, wanted, f"{where}.{mean}")
        if key == "iou":
            # the mean without one class, the background, which no file names; one that neither
            # occurs nor is predicted takes nothing away
            rest = len(values) - 1
            without = [(sum(values) - value) / rest for value in values] if rest > 0 else []
            known = wanted if len(values) < len(each) else []
            foreground = f"{where}.foreground_mIoU"
            _check_among(group.get("foreground_mIoU"), [*without, *known], foreground)
    inside, borders = group.get("iou"), group.get("boundary_iou")
    if isinstance(inside, Mapping) and isinstance(borders, Mapping) and {*inside} != {*borders}:
        raise ValueError(f"{where}.boundary_iou is of other classes than iou")


def _check_among(told: Any, wanted: Collection[float], where: str) -> None:
    if _is_number(told) and not any(abs(told - value) <= ROUNDING for value in wanted):
        raise ValueError(f"{where} is {one_line(repr(told), 60)}, not the mean of its classes")


def _number(group: Mapping[str, Any], key: str, default: float) -> float:
    value: Any = group.get(key)
    return value if _is_number(value) else default


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, or one too large to be a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)
