"""The statistics against figures worked out by hand, tables, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rfbench.report.stats import Effect, compare, interval, judge

BASE = {0: 70.0, 1: 71.0, 2: 72.0, 3: 73.0}


def by_seed(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


def test_the_interval_of_a_mean_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.975, 2) = 4.3027 from the tables
    low, high = interval([1.0, 2.0, 3.0]) or (0, 0)
    assert (low, high) == pytest.approx(
        (2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), 1e-4
    )
    assert interval([1.0]) is None


def test_the_paired_test_by_hand() -> None:
    # differences 1, 2, 3, 2: mean 2, s = sqrt(2/3), t = 2 / (s / 2) = 4.899, df = 3
    test = compare(by_seed(71.0, 73.0, 75.0, 75.0), BASE)
    assert (test.kind, test.seeds, test.difference) == ("paired", 4, 2.0)
    assert test.p == pytest.approx(2 * scipy_stats.t.sf(4.898979, 3), 1e-5)
    error = math.sqrt(2 / 3) / 2
    assert (test.low, test.high) == pytest.approx((2 - 3.18245 * error, 2 + 3.18245 * error), 1e-4)
    # t(0.975, 3) = 3.18245, t(0.8, 3) = 0.97847
    assert test.smallest == pytest.approx((3.18245 + 0.97847) * error, 1e-4)


def test_pairs_are_by_seed_not_by_place() -> None:
    shuffled = {3: 75.0, 1: 73.0, 0: 71.0, 2: 75.0}
    assert compare(shuffled, BASE) == compare(by_seed(71.0, 73.0, 75.0, 75.0), BASE)


def test_only_common_seeds_are_paired() -> None:
    test = compare({2: 73.0, 3: 75.0, 4: 0.0, 5: 100.0}, BASE)
    assert (test.kind, test.seeds, test.difference) == ("paired", 2, 1.5)


@pytest.mark.parametrize("first", [0, 10])
def test_both_tests_are_those_of_scipy(first: int) -> None:
    draw = np.random.default_rng(first)
    for count in (2, 3, 5, 9):
        ours, theirs = (draw.normal(70, 2, count).tolist() for _ in range(2))
        test = compare(by_seed(*ours, first=first), by_seed(*theirs))
        if first:
            expected = scipy_stats.ttest_ind(ours, theirs, equal_var=False)
        else:
            expected = scipy_stats.ttest_rel(ours, theirs)
        bounds = expected.confidence_interval(0.95)
        assert (test.p, test.low, test.high) == pytest.approx(
            (expected.pvalue, bounds.low, bounds.high), rel=1e-9
        )
        half = scipy_stats.t.ppf(0.975, count - 1) * scipy_stats.sem(ours)
        assert interval(ours) == pytest.approx((np.mean(ours) - half, np.mean(ours) + half))


def test_no_common_seeds_is_welch() -> None:
    ours, theirs = [75.0, 77.0, 76.0], list(BASE.values())
    test = compare(by_seed(*ours, first=10), BASE)
    expected = scipy_stats.ttest_ind(ours, theirs, equal_var=False)
    assert (test.kind, test.difference) == ("unpaired", 4.5)
    assert test.p == pytest.approx(expected.pvalue)
    # s^2/n of both: 1/3 and (5/3)/4
    quantiles = scipy_stats.t.ppf([0.975, 0.8], expected.df).sum()
    assert test.smallest == pytest.approx(quantiles * math.sqrt(1 / 3 + 5 / 12))


@pytest.mark.parametrize(
    ("ours", "base", "word"),
    [
        ({0: 99.0}, BASE, "one seed (no test)"),
        (by_seed(99.0, 98.0, 97.0), {0: 70.0}, "one seed (no test)"),
        ({9: 99.0}, {0: 70.0}, "one seed (no test)"),
        (by_seed(71.0, 72.0, 73.0, 74.0), BASE, "no spread (no test)"),
        (by_seed(70.1, 71.1, 72.1), BASE, "no spread (no test)"),  # equal but for rounding
        ({7: 5.0, 8: 5.0}, {0: 4.0, 1: 4.0}, "no spread (no test)"),
    ],
)
def test_what_cannot_be_tested_says_so(
    ours: dict[int, float], base: dict[int, float], word: str
) -> None:
    test = compare(ours, base)
    judge([test], 1)
    assert (test.word, test.p, test.corrected, test.smallest) == (word, None, None, None)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, then never falling
    tests = [Effect("paired", 6, 1.0, p=p) for p in (0.04, 0.01, 0.03, 0.02)]
    judge(tests, 1)
    assert [t.corrected for t in tests] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [t.word for t in tests] == ["within noise", "better", "within noise", "within noise"]
    judge(large := [Effect("paired", 6, 1.0, p=0.9), Effect("paired", 6, 1.0, p=0.8)], 1)
    assert [t.corrected for t in large] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("direction", "difference", "word"),
    [(1, 2.0, "better"), (1, -2.0, "worse"), (-1, -2.0, "better"), (-1, 2.0, "worse"),
     (0, 2.0, "differs")],
)  # fmt: skip
def test_words_follow_the_direction(direction: int, difference: float, word: str) -> None:
    judge([test := Effect("paired", 6, difference, p=1e-4)], direction)  # type: ignore[arg-type]
    assert test.word == word


def test_without_an_effect_better_or_worse_is_rare() -> None:
    """Any of three variants, none of which has an effect: in at most 5 % of the tables."""
    random = np.random.default_rng(0)
    tables, wrong = 1500, 0
    for _ in range(tables):
        figures = 80 + random.normal(size=(4, 5))
        tests = [compare(by_seed(*row), by_seed(*figures[0])) for row in figures[1:]]
        judge(tests, 1)
        wrong += any(test.word != "within noise" for test in tests)
    assert wrong / tables < 0.05 + 2 * math.sqrt(0.05 * 0.95 / tables)


@pytest.mark.parametrize(("count", "power"), [(3, (0.73, 0.80)), (6, (0.76, 0.83))])
def test_the_smallest_difference_is_found_in_four_of_five(
    count: int, power: tuple[float, float]
) -> None:
    """With the true deviation in place of the sample's; for three seeds slightly less."""
    random = np.random.default_rng(1)
    quantiles = scipy_stats.t.ppf([0.975, 0.8], count - 1).sum()
    effect = quantiles / math.sqrt(count)  # of differences whose deviation is 1
    repetitions = 1500
    base = by_seed(*[0.0] * count)
    found = [compare(by_seed(*random.normal(effect, 1, count)), base).p for _ in range(repetitions)]
    assert power[0] < np.mean(np.array(found) < 0.05) < power[1]
