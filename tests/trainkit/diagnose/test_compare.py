"""Statistics of several runs against SciPy, an example of scikit-learn and published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.datasets import make_moons
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from trainkit.diagnose.compare import compare, mcnemar, summary, wilcoxon
from trainkit.diagnose.t_distribution import critical_value, two_sided_p

RNG = np.random.default_rng(0)
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
"""Extra hours of sleep by two drugs in ten patients (Student 1908)."""
DEPRESSION = (
    [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30],
    [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29],
)
"""Hamilton's factor IV before and after a treatment (Hollander and Wolfe 1973, table 3.1)."""


@pytest.mark.parametrize("df", [1, 2, 3, 4.5, 9, 30, 99, 1e4])
def test_t_distribution_equals_scipy(df):
    for t in (0.0, 1e-3, 0.3, 1.0, 2.2, 5.0, 40.0):
        assert two_sided_p(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-9, abs=1e-300)
        assert two_sided_p(-t, df) == two_sided_p(t, df)
    for confidence in (0.5, 0.9, 0.95, 0.99, 0.9999):
        assert critical_value(confidence, df) == pytest.approx(stats.t.ppf((1 + confidence) / 2, df), rel=1e-8)


def test_t_distribution_with_one_degree_of_freedom_is_cauchy():
    for t in (1e-9, 0.5, 1.0, 1e6):
        assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-14)


def test_critical_values_equal_printed_tables():
    printed = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}
    assert {df: round(critical_value(0.95, df), 3) for df in printed} == printed
    with pytest.raises(ValueError, match="between 0 and 1"):
        critical_value(1.0, 3)


def test_summary_equals_scipy():
    for n in (2, 3, 10, 50):
        values = RNG.normal(0.9, 0.02, n)
        got = summary(values.tolist())
        assert (got.mean, got.sd) == pytest.approx((values.mean(), values.std(ddof=1)))
        assert got.se == pytest.approx(stats.sem(values))
        assert (got.low, got.high) == pytest.approx(stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values)))
    # By hand: 1, 2, 3 have mean 2 and sd 1; 4.3027 / sqrt(3) = 2.4841
    got = summary([1, 2, 3])
    assert (got.mean, got.sd, got.low, got.high) == pytest.approx((2, 1, 2 - 2.4841377, 2 + 2.4841377))


def on_a_scale(values, forth, back, slope):
    """Student's interval by SciPy, on the scale `forth` and carried back."""
    mean, error = values.mean(), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, forth(mean), slope(mean) * error)
    return sorted((back(low), back(high)))


def test_intervals_of_bounded_metrics_equal_scipys_on_their_scales():
    for n in (2, 5, 20):
        shares = RNG.beta(40, 2, n)
        got = summary(shares.tolist(), bounds=(0, 1))
        expected = on_a_scale(shares, special.logit, special.expit, lambda m: 1 / (m * (1 - m)))
        assert [got.low, got.high] == pytest.approx(expected, rel=1e-9)
        assert 0 < got.low < got.mean < got.high < 1
        losses = RNG.gamma(2, 0.1, n)
        got = summary(losses.tolist(), bounds=(0, None))
        assert [got.low, got.high] == pytest.approx(on_a_scale(losses, np.log, np.exp, lambda m: 1 / m), rel=1e-9)
        r2 = 1 - RNG.gamma(2, 0.1, n)
        got = summary(r2.tolist(), bounds=(None, 1))
        expected = on_a_scale(r2, lambda m: np.log(1 - m), lambda g: 1 - np.exp(g), lambda m: 1 / (1 - m))
        assert [got.low, got.high] == pytest.approx(expected, rel=1e-9)
        between = 2 * shares - 1
        doubled = summary(between.tolist(), bounds=(-1, 1))
        first = summary(shares.tolist(), bounds=(0, 1))
        assert (doubled.low, doubled.high) == pytest.approx((2 * first.low - 1, 2 * first.high - 1))


def test_a_bounded_interval_far_from_its_bounds_is_the_plain_one():
    values = RNG.normal(0.5, 1e-4, 8).tolist()
    plain, bounded = summary(values), summary(values, bounds=(0, 1))
    assert (bounded.low, bounded.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


def test_accuracies_at_their_bound():
    plain = summary([0.95, 0.95, 0.98, 0.99, 1.0])
    assert plain.high > 1, "the case that the bounds are for"
    got = summary([0.95, 0.95, 0.98, 0.99, 1.0], bounds=(0, 1))
    assert (got.mean, got.sd, got.se) == (plain.mean, plain.sd, plain.se)
    assert (got.low, got.high) == pytest.approx((0.9238, 0.9914), abs=1e-4)
    all_right = summary([1.0, 1.0, 1.0], bounds=(0, 1))
    assert (all_right.low, all_right.high, all_right.sd) == (1, 1, 0)
    least = summary([0.0, 0.0, 0.3], bounds=(0, None))
    assert 0 < least.low < 0.1 < least.high


def test_bounded_intervals_cover_the_true_accuracy():
    """Folds of 50 samples, 97 % of which are predicted: 95 of 100 intervals hold 0.97, as near as 2000 draws tell."""
    rng = np.random.default_rng(3)
    held = 0
    for folds in rng.binomial(50, 0.97, (2000, 10)) / 50:
        got = summary(folds.tolist(), bounds=(0, 1))
        held += got.low <= 0.97 <= got.high
    assert 0.93 <= held / 2000 <= 0.97


def test_the_corrected_standard_error_is_that_of_nadeau_and_bengio():
    values = RNG.normal(0.8, 0.02, 10)
    got = summary(values.tolist(), test_share=1 / 9)
    error = values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 9)
    assert got.se == pytest.approx(error)
    assert (got.low, got.high) == pytest.approx(stats.t.interval(0.95, 9, values.mean(), error))
    zeros = compare([0.0] * 10, values.tolist(), test_share=1 / 9)
    assert (zeros.low, zeros.high) == pytest.approx((got.low, got.high)), "the same interval as that of a difference"


def test_differences_of_bounded_metrics_keep_to_what_is_possible():
    a, b = [0.1, 0.9, 0.2], [0.9, 0.95, 0.9]
    plain, found = compare(a, b), compare(a, b, bounds=(0, 1))
    assert plain.high > 1
    assert (found.low, found.high, found.p, found.verdict) == (plain.low, 1, plain.p, plain.verdict)
    assert compare(a, b, bounds=(0, None)).high == plain.high


def test_summary_of_one_no_and_non_finite_values():
    assert summary([0.5]).as_dict() | {"mean": 0.5, "n": 1, "sd": None, "low": None} == summary([0.5]).as_dict()
    broken = summary([0.5, math.nan, 0.7, math.inf])
    assert (broken.n, broken.not_finite, broken.mean, broken.low) == (4, (1, 3), None, None)
    assert (summary([2, 2, 2]).sd, summary([2, 2, 2]).low) == (0, 2)
    with pytest.raises(ValueError, match="at least one value"):
        summary([])


def test_compare_on_the_sleep_data_of_student():
    found = compare(*SLEEP, metric="hours")
    assert found.difference == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858))
    assert found.p == found.paired_t_p == pytest.approx(0.002833, abs=5e-7)
    assert (found.wins, found.ties, found.losses) == (9, 1, 0)
    assert found.verdict == "better"
    assert found.summary == "B is better than A: +1.58 hours (95 % CI 0.7 to 2.46, p = 0.0028)."


def test_compare_equals_the_paired_test_of_scipy():
    for n in (2, 5, 30):
        a, b = RNG.normal(0, 1, n), RNG.normal(0.3, 1, n)
        reference = stats.ttest_rel(b, a)
        found = compare(a.tolist(), b.tolist())
        assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
        assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval()))


def test_compare_corrected_equals_the_example_of_scikit_learn():
    """ "Statistical comparison of models using grid search": corrected t 0.750, one-sided p 0.227, of rbf over linear."""
    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), x, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )
    found = compare(linear, rbf, test_share=10 / 90, metric="roc_auc", names=("linear", "rbf"))
    assert round(found.p / 2, 3) == 0.227
    assert found.difference / (found.high - found.difference) * critical_value(0.95, 99) == pytest.approx(
        0.750, abs=5e-4
    )
    assert found.verdict == "cannot_tell"
    assert found.summary.startswith(
        "rbf and linear cannot be told apart: +0.01 roc_auc (95 % CI -0.0164 to 0.0364, p = 0.45,"
    )
    assert found.paired_t_p < 0.05 < found.p  # the plain test is fooled by the folds' common samples


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=12), st.floats(0.05, 1))
def test_compare_properties(differences, share):
    a, b = [0.0] * len(differences), differences
    plain, corrected = compare(a, b), compare(a, b, test_share=share)
    if corrected.p is not None:
        assert corrected.p >= plain.p  # the correction never makes surer
        assert (corrected.p < 0.05) == (not corrected.low <= 0 <= corrected.high)
    forth, back = compare(a, b, test_share=share, better="min"), compare(b, a, test_share=share)
    assert (forth.wins, forth.losses, forth.p) == (back.wins, back.losses, pytest.approx(back.p))
    assert {forth.verdict, corrected.verdict} in ({"better", "worse"}, {"cannot_tell"})
    assert corrected.wins + corrected.ties + corrected.losses == corrected.n


def test_compare_reports_values_that_cannot_be_compared():
    found = compare([0.5, math.nan, 0.6], [0.5, 0.7, math.inf], metric="val_loss")
    assert (found.verdict, found.p, found.difference, found.not_finite) == ("cannot_tell", None, None, (1, 2))
    assert found.summary == "B and A cannot be told apart: no finite val_loss in 2, 3 of 3."
    single = compare([0.5], [0.7], test_share=0.1)
    assert (single.verdict, single.difference, single.low) == ("cannot_tell", pytest.approx(0.2), None)
    assert "a single split" in single.summary
    equal = compare([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])  # differences equal but for rounding
    assert (equal.verdict, equal.p) == ("cannot_tell", None)
    assert "+0.1 score on each of 3 splits" in equal.summary
    with pytest.raises(ValueError, match="2 and 1"):
        compare([1, 2], [1])
    with pytest.raises(ValueError, match="above 0"):
        compare([1, 2], [1, 3], test_share=0)


def test_wilcoxon_on_hollander_and_wolfes_data():
    before, after = DEPRESSION
    found = wilcoxon((np.array(before) - np.array(after)).tolist())
    assert (found.statistic, found.n) == (40, 9)
    assert found.p / 2 == pytest.approx(0.01953, abs=5e-6)


@pytest.mark.parametrize("n", [1, 2, 6, 13, 50])
def test_wilcoxon_without_ties_equals_scipy(n):
    differences = RNG.normal(0.2, 1, n)
    reference = stats.wilcoxon(differences, method="exact")
    found = wilcoxon(differences.tolist())
    assert found.p == pytest.approx(reference.pvalue)
    assert min(found.statistic, n * (n + 1) / 2 - found.statistic) == reference.statistic


@pytest.mark.parametrize("differences", [[1, 1, -1, 2, 3], [0, 1, 1, 1, -2, 0], [-3, -3, -3, 1, 2, 2, 5]])
def test_wilcoxon_with_ties_equals_counting_every_sign_pattern(differences):
    nonzero = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(nonzero))
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(nonzero))]
    observed = ranks[nonzero > 0].sum()
    below, above = np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums])
    found = wilcoxon(differences)
    assert (found.statistic, found.n) == (observed, len(nonzero))
    assert found.p == pytest.approx(min(1, 2 * min(below, above)))


def test_wilcoxon_without_differences():
    assert wilcoxon([0.0, 0.0]) is None
    assert compare([1, 2], [1, 2]).wilcoxon is None


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 6), (5, 5), (12, 3), (86, 150), (4000, 4200)])
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    correct_a = [True] * only_a + [False] * only_b + [True] * 7 + [False] * 2
    correct_b = [False] * only_a + [True] * only_b + [True] * 7 + [False] * 2
    found = mcnemar(correct_a, correct_b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    n = only_a + only_b
    assert found.p == pytest.approx(stats.binomtest(only_a, n).pvalue if n else 1.0, rel=1e-9)


def test_mcnemar_requires_the_same_samples():
    with pytest.raises(ValueError, match="2 and 3"):
        mcnemar([True, False], [True, False, True])
