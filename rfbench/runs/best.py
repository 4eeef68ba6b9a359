"""The best evaluation of a run so far, and early stopping."""

import math
from collections.abc import Mapping
from typing import Any

from rfbench.errors import counted
from rfbench.runs.state import Loop

EMA = "ema"  # the group of metrics of the averaged weights


def judge(run: Loop, metrics: Mapping[str, Any]) -> bool:
    """Whether an evaluation is the best so far by `config.best_metric`; counts those that are not.

    metrics: by name, or in groups ("bbox/AP"). None is worse than any number; a lower loss is
    better.
    """
    better = not run.best or merit(run, metrics) > merit(run, run.best)
    run.waited = 0 if better else run.waited + 1
    return better


def merit(run: Loop, metrics: Mapping[str, Any]) -> float:
    """An evaluation as one number, the higher the better; of averaged weights ("ema") if it has."""
    value: Any = metrics.get(EMA, metrics)
    for name in run.config.best_metric.split("/"):
        value = value[name]
    if value is None:
        return -math.inf
    if not isinstance(value, int | float):
        raise TypeError(f"{run.config.best_metric} is {value!r}")
    return -value if run.config.best_metric.endswith("loss") else value


def out_of_patience(run: Loop) -> bool:
    """Whether the last `config.patience` evaluations were no better than the best."""
    return run.config.patience is not None and run.waited >= run.config.patience


def check_restored(run: Loop, evaluations: int) -> None:
    """Raise if the restored state cannot be that of a run after so many evaluations.

    One that has waited for longer would be taken for finished; the next would be the best of one
    that knows of none.
    """
    if run.waited >= max(evaluations, 1):
        raise ValueError(f"waited is {run.waited} after {counted(evaluations, 'evaluation')}")
    if evaluations:
        merit(run, run.metrics)
        merit(run, run.best)
    elif run.metrics or run.best:
        raise ValueError("metrics before the first evaluation")


def check_waited(run: Loop) -> None:
    """Raise if the best metrics cannot be those of `waited` evaluations ago."""
    if not run.waited and run.best != run.metrics:
        raise ValueError("the last evaluation is the best, but its metrics are others")
    if run.waited and merit(run, run.metrics) > merit(run, run.best):
        raise ValueError(f"{run.config.best_metric} of the last evaluation is above the best")
