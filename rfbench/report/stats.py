"""Statistics for a few seeds: interval, paired test, minimum detectable effect.

Student's distribution is that of scipy.special: scipy.stats takes seconds to import.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LEVEL, POWER = 0.95, 0.80
Direction = Literal[-1, 0, 1]  # 1: higher is better, -1: lower is better, 0: unknown
Values = Mapping[int, float]  # by seed


@dataclass
class Effect:
    """A variant against the baseline of the same setting.

    kind: "paired" over common seeds, else "unpaired" (Welch), or "none". difference: mean over the
    pairs, else of the means; low, high: its interval. p: uncorrected. corrected: by Holm.
    smallest: minimum detectable effect at `POWER`.
    """

    kind: Literal["paired", "unpaired", "none"]
    seeds: int
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    smallest: float | None = None
    word: str = ""


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The t-interval of the mean; None for one value."""
    if len(values) < 2:
        return None
    half = _quantile(0.5 + LEVEL / 2, len(values) - 1) * _error(values)
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _error(values: Sequence[float]) -> float:
    """The standard error of the mean."""
    return math.sqrt(statistics.variance(values) / len(values))


def _quantile(share: float, degrees: float) -> float:
    """Of Student's distribution."""
    from scipy import special

    return float(special.stdtrit(degrees, share))


def _two_sided(t: float, degrees: float) -> float:
    """The p value of a t."""
    from scipy import special

    return 2 * float(special.stdtr(degrees, -abs(t)))


def compare(values: Values, baseline: Values) -> Effect:
    """Test a variant's values against the baseline's, both by seed and not empty."""
    common = [seed for seed in values if seed in baseline]
    if len(common) > 1:
        ours, theirs = [values[s] for s in common], [baseline[s] for s in common]
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        test = Effect("paired", len(common), statistics.fmean(differences))
        if _constant(differences):
            test.word = "no spread (no test)"
            return test
        error, degrees = _error(differences), len(common) - 1.0
    else:
        ours, theirs = list(values.values()), list(baseline.values())
        test = Effect("none", len(ours), statistics.fmean(ours) - statistics.fmean(theirs))
        if min(len(ours), len(theirs)) < 2:
            test.word = "one seed (no test)"
            return test
        test.kind = "unpaired"
        if _constant(ours) and _constant(theirs):
            test.word = "no spread (no test)"
            return test
        error, degrees = _welch(ours, theirs)
    test.p = _two_sided(test.difference / error, degrees)
    quantile = _quantile(0.5 + LEVEL / 2, degrees)
    test.low, test.high = test.difference - quantile * error, test.difference + quantile * error
    test.smallest = (quantile + _quantile(POWER, degrees)) * error
    return test


def _welch(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The error of a difference of means, and its degrees of freedom (Welch-Satterthwaite)."""
    error = math.hypot(_error(ours), _error(theirs))
    shares = [(_error(values) / error) ** 2 for values in (ours, theirs)]
    parts = [s**2 / (len(v) - 1) for s, v in zip(shares, (ours, theirs), strict=True)]
    return error, 1 / sum(parts)


def _constant(values: Sequence[float]) -> bool:
    """Whether all are equal up to rounding; a test would call any such difference certain."""
    return max(values) - min(values) <= 1e-9 * max(1.0, *map(abs, values))


def judge(tests: Sequence[Effect], direction: Direction) -> None:
    """Correct the p values of a table's variants by Holm, and set the verdict of each."""
    tested = sorted((t for t in tests if t.p is not None), key=lambda t: t.p or 0.0)
    least = 0.0
    for rank, test in enumerate(tested):
        assert test.p is not None
        least = max(least, min(1.0, test.p * (len(tested) - rank)))
        test.corrected = least
        better = direction * test.difference > 0
        words = ("better" if better else "worse") if direction else "differs"
        test.word = words if least < 1 - LEVEL else "within noise"
