"""What may be compared, and when a difference counts: worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.recommendations.effect import best_values, comparison, measured_effect
from service.recommendations.service import count_outcomes

SPEC: dict[str, Any] = {
    "dataset": {"id": "ds_1"},
    "task": "classification",
    "split": {"train": 8.0, "seed": 0},
    "loss": {"kind": "cross_entropy"},
    "target_scaling": "auto",
    "regularize": {"label_smoothing": 0.0},
    "balance": "none",
}
VALUES = {
    "val_loss": {"value": 0.5, "se": 0.03, "epoch": 3},
    "val_accuracy": {"value": 0.8, "se": 0.04, "epoch": 5},
    "val_recall": {"value": 0.6, "se": 0.06, "epoch": 5},
    "val_mae": {"value": 2.0, "se": 0.1, "epoch": 4},
}


def columns(*values: float) -> dict[str, Any]:
    steps = 10 * np.arange(1, len(values) + 1)
    return {"value": np.array(values), "step": steps, "epoch": steps // 10}


def test_the_best_evaluation_and_its_own_standard_error() -> None:
    series = {
        "val_loss": columns(0.9, np.nan, 0.5, 0.5, -np.inf),
        "val_loss_se": columns(0.1, 0.2, 0.3, 0.4, 0.5),
        "val_accuracy": columns(0.1, 0.7, np.inf, 0.6),
        "val_accuracy_se": columns(0.01),
    }
    assert best_values(series) == {
        "val_loss": {"value": 0.5, "se": 0.3, "epoch": 3},
        "val_accuracy": {"value": 0.7, "se": None, "epoch": 2},
    }
    assert best_values({"val_loss": columns(np.nan, np.inf)}) == {}


@pytest.mark.parametrize(
    ("expected", "change", "metric", "reason"),
    [
        ("val_loss", {}, "val_loss", None),
        ("val_accuracy", {"loss": {"kind": "mse"}}, "val_accuracy", None),
        ("train_loss", {}, "val_loss", "no validation metric"),
        ("dead_units", {}, "val_loss", "no validation metric"),
        ("val_loss", {"loss": {"kind": "focal"}}, "val_accuracy", "what the loss means"),
        ("val_loss", {"regularize": {"label_smoothing": 0.1}}, "val_accuracy", "what the loss means"),
        ("train_loss", {"balance": "class_weights"}, "val_accuracy", "what the loss means"),
        ("val_loss", {"balance": "oversample"}, "val_loss", None),
        ("val_loss", {"split": {"train": 6.0, "seed": 0}}, None, "split"),
        ("val_accuracy", {"split": {"train": 8.0, "seed": 1}}, None, "split"),
        ("val_accuracy", {"task": "regression"}, None, "task"),
        ("seconds", {}, None, "less time"),
        ("val_recall", {"balance": "class_weights"}, "val_recall", None),
        ("val_mae", {"loss": {"kind": "huber"}}, "val_mae", None),
        ("val_f1", {}, None, "without a standard error"),
    ],
)
def test_what_is_compared(expected: str, change: dict[str, Any], metric: str | None, reason: str | None) -> None:
    found = comparison(expected, SPEC, {**SPEC, **change}, VALUES)
    assert found["metric"] == metric
    assert found["before"] == (VALUES[metric] if metric else None)
    better = {"val_loss": "down", "val_mae": "down", "val_accuracy": "up", "val_recall": "up"}
    assert found["direction"] == (better[metric] if metric else None)
    assert reason in found["reason"] if reason else found["reason"] is None


def test_numbers_have_no_accuracy_and_a_source_may_have_no_value() -> None:
    numbers = {**SPEC, "task": "regression"}
    changed = {**numbers, "loss": {"kind": "huber"}}
    found = comparison("val_loss", numbers, changed, VALUES)
    assert (found["metric"], found["before"]["value"]) == ("val_mae", 2.0)
    assert "mean absolute error" in found["reason"]
    missing = comparison("val_loss", SPEC, SPEC, {})
    assert (missing["metric"], missing["reason"]) == (None, "The source job logged no finite val_loss.")
    bare = {"val_loss": {"value": 0.5, "se": None, "epoch": 1}}
    assert "no standard error" in comparison("val_loss", SPEC, SPEC, bare)["reason"]


@pytest.mark.parametrize(
    ("after", "se", "outcome"),
    # noise: sqrt(0.03^2 + 0.04^2) = 0.05
    [(0.44, 0.04, "improved"), (0.46, 0.04, "within_noise"), (0.54, 0.04, "within_noise"), (0.56, 0.04, "worse")],
)
def test_a_difference_counts_beyond_both_errors_together(after: float, se: float, outcome: str) -> None:
    compared = comparison("val_loss", SPEC, SPEC, VALUES)
    found = measured_effect(compared, "succeeded", None, {"val_loss": {"value": after, "se": se, "epoch": 1}})
    assert found["outcome"] == outcome
    assert found["noise"] == pytest.approx(0.05)
    assert found["gain"] == pytest.approx(0.5 - after)


def test_accuracy_gains_upwards_and_ends_without_a_result() -> None:
    compared = comparison("val_accuracy", SPEC, SPEC, VALUES)
    higher = {"val_accuracy": {"value": 0.9, "se": 0.03, "epoch": 1}}
    found = measured_effect(compared, "stopped", None, higher)
    assert (found["outcome"], found["gain"]) == ("improved", pytest.approx(0.1))
    for state, error, reason in (
        ("failed", {"code": "loss_not_finite"}, "failed (loss_not_finite)"),
        ("cancelled", None, "was cancelled."),
    ):
        lost = measured_effect(compared, state, error, higher)
        assert (lost["outcome"], lost["after"]) == ("no_result", None)
        assert reason in lost["reason"]
    assert measured_effect(compared, "succeeded", None, {})["outcome"] == "no_result"
    bare = {"val_accuracy": {"value": 0.9, "se": None, "epoch": 1}}
    assert measured_effect(compared, "succeeded", None, bare)["outcome"] == "not_comparable"


def test_tally_counts_outcomes_and_the_hit_rate() -> None:
    counted = count_outcomes(
        [("improved", 3), ("within_noise", 1), ("worse", 1), ("not_comparable", 4), ("no_result", 2), (None, 5)]
    )
    assert (counted["recommendations"], counted["ended"], counted["hit_rate"]) == (16, 11, 0.6)
    assert (counted["not_comparable"], counted["no_result"]) == (4, 2)
    assert count_outcomes([("no_result", 2)])["hit_rate"] is None
