"""Paired statistics against scipy, and what they promise: coverage, and family-wise error after Holm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainkit.diagnose.paired import holm, mean_effect, paired_effect, paired_shares, variance_between_runs

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("n", [2, 5, 40, 700])
def test_effect_is_the_paired_t_test_of_scipy(n: int) -> None:
    before = RANDOM.normal(0, 1, n)
    after = before + RANDOM.normal(0.3, 0.5, n)
    found, expected = paired_effect(before, after), stats.ttest_rel(after, before)
    interval = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.gain == pytest.approx(float((after - before).mean()))


def test_effect_agrees_with_wilcoxon_on_clear_and_absent_differences() -> None:
    before = RANDOM.normal(0, 1, 200)
    clear, absent = before + RANDOM.normal(0.5, 1, 200), before + RANDOM.normal(0, 1, 200)
    for after in (clear, absent):
        significant = paired_effect(before, after).p_value < 0.05
        assert significant == (stats.wilcoxon(after, before).pvalue < 0.05)


def test_swapping_the_runs_mirrors_the_effect() -> None:
    before, after = RANDOM.random(50), RANDOM.random(50)
    one, other = paired_effect(before, after), paired_effect(after, before)
    assert (one.gain, one.low, one.high) == pytest.approx((-other.gain, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)


def test_fewer_than_two_pairs_say_nothing() -> None:
    for n in (0, 1):
        found = paired_effect(np.zeros(n), np.ones(n))
        assert (found.low, found.high, found.p_value) == (-math.inf, math.inf, 1.0)
    assert paired_shares(np.zeros(0, bool), np.zeros(0, bool)).p_value == 1.0


def test_interval_of_shares_has_its_coverage_where_few_samples_change() -> None:
    """95 % of the intervals hold the true difference, of 40 samples, 5 % lost and 15 % won."""
    random, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        change = random.choice([-1, 0, 1], 40, p=[0.05, 0.8, 0.15])
        before = np.where(change == 0, random.random(40) < 0.7, change < 0)
        after = np.where(change == 0, before, change > 0)
        found = paired_shares(before, after)
        inside += found.low <= 0.1 <= found.high
    assert 0.94 <= inside / 2000 <= 0.985


def test_p_value_of_shares_is_near_the_exact_test_of_mcnemar() -> None:
    for won, lost, same in ((12, 3, 60), (30, 20, 100), (9, 9, 50)):
        before = np.array([False] * won + [True] * lost + [True] * same)
        after = np.array([True] * won + [False] * lost + [True] * same)
        exact = stats.binomtest(won, won + lost).pvalue
        assert paired_shares(before, after).p_value == pytest.approx(exact, abs=0.07)


def test_recall_weighs_every_class_alike() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    before = classes == 0
    after = np.concatenate([np.arange(90) >= 9, np.ones(10, bool)])  # loses a tenth of the large class
    found = paired_shares(before, after, classes)
    assert found.gain == pytest.approx((-0.1 + 1.0) / 2)
    assert found.low > 0
    assert paired_shares(before, after).gain == pytest.approx(0.01)


def test_three_samples_of_a_class_do_not_make_certain() -> None:
    classes = np.array([0] * 40 + [1] * 3)
    found = paired_shares(np.array([True] * 40 + [False] * 3), np.ones(43, bool), classes)
    assert found.gain == pytest.approx(0.5)
    assert found.high - found.low > 0.3


def test_variance_of_seeds_widens_the_interval() -> None:
    before, after = RANDOM.normal(0, 1, 100), RANDOM.normal(0.4, 1, 100)
    assert paired_effect(before, after, run_variance=0.5).se == pytest.approx(
        math.sqrt(paired_effect(before, after).se ** 2 + 0.5)
    )
    assert variance_between_runs(before, before) == 0.0
    assert variance_between_runs(np.zeros(100), np.full(100, 0.3)) == pytest.approx(0.09)


def test_mean_effect_keeps_the_samples_share_of_the_variance() -> None:
    before, after = RANDOM.random(80) < 0.5, RANDOM.random(80) < 0.8
    one = paired_shares(before, after, run_variance=0.01)
    both = mean_effect([one, one], 0.01)
    assert both.gain == pytest.approx(one.gain)
    assert both.se == pytest.approx(math.sqrt(one.se**2 - 0.005))


def test_holm_adjusts_as_in_his_paper() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    p_values, weights = [0.02, 0.5, 0.2], [8.0, 1.0, 1.0]
    assert holm(p_values, weights)[0] == pytest.approx(0.025)  # what is expected pays little for the others
    assert holm(p_values, [1.0] * 3) == holm(p_values)


@pytest.mark.parametrize("weights", [None, [6.0, 1, 1, 1, 1]])
def test_holm_finds_anything_in_nothing_in_at_most_a_twentieth(weights: list[float] | None) -> None:
    random = np.random.default_rng(1)
    found = sum(min(holm(list(random.random(5)), weights)) < 0.05 for _ in range(4000))
    assert found / 4000 < 0.06
