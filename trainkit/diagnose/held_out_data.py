"""Comparison of the validation and test parts, and features that reveal the target."""

from __future__ import annotations

import math
from typing import Any

from trainkit.diagnose.record import Record
from trainkit.spec.facts import feature_columns

LEAKS = ("target_leak", "noisy_target_leak")
"""Codes of the report's findings on features: that predict the target alone, and that look like the target with noise."""
SIGNIFICANT_ERRORS = 3.0
"""Standard errors between validation and test: more than 2, because the best epoch was chosen on validation."""
LEAST_DIFFERENCE = 0.05
"""Least difference of two parts: in accuracy, or as a share of the baseline loss."""


def target_leaking_features(record: Record) -> list[str]:
    """Return the features in use that predict the target, or look like it with noise: columns, or `feature 3` of arrays."""
    names = [one["where"] for one in record.findings(*LEAKS)]
    if record.facts.kind != "table":
        return names
    used = {column.name for column in feature_columns(record.spec, record.facts)}
    return [name for name in names if name in used]


def val_against_test(record: Record) -> dict[str, Any] | None:
    """Return how much worse test is than validation at its best epoch, with the standard error of the difference."""
    evaluation, (_, n_val, n_test) = record.evaluation or {}, record.parts
    if evaluation.get("split") != "test" or not n_val:
        return None
    metrics, n_test = evaluation.get("metrics") or {}, int(evaluation.get("samples") or n_test)
    loss, errors = record.get("val_loss"), record.get("val_loss_se")
    if not len(loss) or n_test < 1:
        return None
    at = loss.step[loss.value.argmin()]
    accuracy = record.get("val_accuracy")
    if record.classification and "accuracy" in metrics and (accuracy.step == at).any():
        validation, other = float(accuracy.value[accuracy.step == at][0]), float(metrics["accuracy"])
        # (hits + 1) / (n + 2): a share of 1 has an error too
        error = sum(_variance(p, n) for p, n in ((validation, n_val), (other, n_test)))
        return _difference("accuracy", validation, other, validation - other, math.sqrt(error))
    if "loss" in metrics and (errors.step == at).any() and record.scale:
        validation, other, error = (
            float(loss.value.min()),
            float(metrics["loss"]),
            float(errors.value[errors.step == at][0]),
        )
        spread = error * math.sqrt(1 + n_val / n_test) / record.scale
        return _difference("loss", validation, other, (other - validation) / record.scale, spread)
    return None


def is_significant(seen: dict[str, Any] | None) -> bool:
    return seen is not None and seen["difference"] > max(SIGNIFICANT_ERRORS * seen["standard_error"], LEAST_DIFFERENCE)


def _variance(share: float, n: int) -> float:
    p = (share * n + 1) / (n + 2)
    return p * (1 - p) / n


def _difference(metric: str, validation: float, other: float, difference: float, error: float) -> dict[str, Any]:
    return {
        "metric": metric,
        "validation": validation,
        "test": other,
        "difference": difference,
        "standard_error": error,
    }
