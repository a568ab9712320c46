"""Metric estimates of the kept weights, and differences beyond the noise, computed by hand."""

from __future__ import annotations

from math import hypot
from typing import Any

import pytest

from tests.support.diagnosis_records import record, table, well
from trainkit.diagnose.estimates import (
    PAIRED_NOISE_FACTOR,
    MetricEstimate,
    compare,
    comparison_metric,
    kept_metrics,
    standard_error,
    wilson_interval,
)
from trainkit.spec import JobSpec

BEFORE = {"val_loss": MetricEstimate(0.5, 0.03, 3), "val_accuracy": MetricEstimate(0.8, 0.04, 3)}


def spec(**changes: Any) -> JobSpec:
    return record(changes).spec


def test_kept_metrics_are_those_of_the_best_evaluation() -> None:
    series = well(val_loss=[0.9, 0.4, 0.4, 0.6], val_accuracy=[0.5, 0.7, 0.9, 0.8], val_accuracy_se=[0.05] * 4)
    series["val_loss_se"] = [0.1, 0.2, 0.3, 0.4]
    assert kept_metrics(record(**series)) == {
        "val_loss": MetricEstimate(0.4, 0.2, 2),
        "val_accuracy": MetricEstimate(0.7, 0.05, 2),
    }
    by_accuracy = kept_metrics(record({"train": {"monitor": "val_accuracy"}}, **series))
    assert (by_accuracy["val_accuracy"].value, by_accuracy["val_loss"].epoch) == (0.9, 3)
    last = kept_metrics(record({"train": {"restore_best": False}}, **series))
    assert last["val_loss"] == MetricEstimate(0.6, 0.4, 4)


def test_kept_metrics_ignore_non_finite_values() -> None:
    series = well(val_loss=[float("nan"), 0.5, float("-inf")], val_loss_se=[0.1] * 3)
    assert kept_metrics(record(**series))["val_loss"].value == 0.5
    assert kept_metrics(record(**well(val_loss=[float("nan")] * 3))) == {}


def test_compare_counts_a_difference_beyond_the_noise() -> None:
    noise = PAIRED_NOISE_FACTOR * hypot(0.03, 0.04)
    for value, outcome in (
        (0.5 - 1.01 * noise, "improved"),
        (0.5 + 1.01 * noise, "worse"),
        (0.5 - 0.99 * noise, "within_noise"),
    ):
        assert compare("val_loss", BEFORE, {"val_loss": MetricEstimate(value, 0.04, 1)}).outcome == outcome
    assert compare("val_accuracy", BEFORE, {"val_accuracy": MetricEstimate(0.9, 0.03, 1)}).outcome == "improved"


def test_compare_treats_a_missing_metric_as_worst() -> None:
    assert compare("val_loss", BEFORE, {}).outcome == "worse"
    assert compare("val_loss", {}, BEFORE).outcome == "improved"
    assert compare("val_loss", {}, {}).outcome == "within_noise"


def test_standard_error_is_estimated_from_loss_or_accuracy() -> None:
    numbers = {
        "val_loss": MetricEstimate(0.4, 0.02, 1),
        "val_mse": MetricEstimate(8.0, None, 1),
        "val_r2": MetricEstimate(0.6, None, 1),
    }
    assert standard_error("val_mse", numbers) == pytest.approx(0.4)
    assert standard_error("val_r2", numbers) == pytest.approx(0.02)
    assert standard_error("val_f1", {**BEFORE, "val_f1": MetricEstimate(0.7, None, 1)}) == 0.04


@pytest.mark.parametrize(
    ("before", "change", "metric"),
    [
        ({}, {}, "val_loss"),
        ({}, {"balance": "oversample"}, "val_loss"),
        ({}, {"balance": "class_weights"}, "val_accuracy"),
        ({}, {"regularize": {"label_smoothing": 0.1}}, "val_accuracy"),
        ({}, {"loss": {"kind": "focal"}}, "val_accuracy"),
        ({"train": {"monitor": "val_f1"}}, {"loss": {"kind": "focal"}}, "val_f1"),
        ({"train": {"monitor": "train_loss"}}, {}, "val_loss"),
    ],
)
def test_comparison_metric_means_the_same_in_both_runs(
    before: dict[str, Any], change: dict[str, Any], metric: str
) -> None:
    assert comparison_metric(spec(**before), spec(**before, **change)) == metric


def test_comparison_metric_of_regression_with_another_loss() -> None:
    mse, huber = (record({"loss": {"kind": kind}}, table()).spec for kind in ("mse", "huber"))
    assert comparison_metric(mse, huber) == "val_mse"


@pytest.mark.parametrize(
    ("share", "n", "interval"),
    [
        (0.8, 10, (0.490, 0.943)),
        (0.0, 10, (0.0, 3.8416 / 13.8416)),
        (1.0, 10, (10 / 13.8416, 1.0)),
    ],
)
def test_wilson_interval_by_hand(share: float, n: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(share, n) == pytest.approx(interval, abs=5e-4)
    assert wilson_interval(1 - share, n) == pytest.approx((1 - interval[1], 1 - interval[0]), abs=5e-4)
