"""The effect of a recommendation: which metric of two runs may be compared at all, and whether it got better.

Both runs' best validation values are compared, each with the standard error logged at that evaluation:
noise = sqrt(se_before^2 + se_after^2). Both are of the same samples, so that the noise is too wide rather than too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.estimates import meaning_of_loss
from trainkit.spec import metrics

Outcome = Literal["improved", "within_noise", "worse", "not_comparable", "no_result"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Columns = Mapping[str, NDArray[Any]]
DIRECTIONS = {
    f"val_{name}": "down" if metrics.DIRECTIONS[name] == "min" else "up" for name in metrics.METRICS_WITH_STANDARD_ERROR
}
"""Validation metric with a logged standard error -> the direction in which it gets better."""
NAMES = frozenset({*DIRECTIONS, *(f"{name}_se" for name in DIRECTIONS)})


def best_values(series: Mapping[str, Columns]) -> dict[str, dict[str, Any]]:
    """`{val_loss: {value, se, epoch}, ...}` of those that were logged: the best finite value of the rows that count, of
    equal ones the first. `se` is that of the same step, None where none was logged."""
    found: dict[str, dict[str, Any]] = {}
    for name, direction in DIRECTIONS.items():
        if name not in series:
            continue
        values = np.asarray(series[name]["value"], np.float64)
        if not np.isfinite(values).any():
            continue
        place = int(np.nanargmin(np.where(np.isfinite(values), values if direction == "down" else -values, np.nan)))
        errors = series.get(f"{name}_se", {"step": np.empty(0), "value": np.empty(0)})
        se = errors["value"][errors["step"] == series[name]["step"][place]]
        found[name] = {
            "value": float(values[place]),
            "se": float(se[-1]) if len(se) and np.isfinite(se[-1]) else None,
            "epoch": int(series[name]["epoch"][place]),
        }
    return found


def comparison(
    expected: str, before: Mapping[str, Any], after: Mapping[str, Any], values: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """`{metric, direction, reason, before}`: what is compared. `metric` is None where nothing can be compared.

    `before` and `after` are the resolved specs, `values` the source's `best`. An expected validation
    metric is compared itself; for what is expected of training or of layers the validation loss is compared.
    """
    metric, reason = _metric(expected, before, after)
    if metric is not None:
        value = values.get(metric)
        if value is None:
            metric, reason = None, f"The source job logged no finite {metric}."
        elif value["se"] is None:
            metric, reason = None, f"The source job logged no standard error with its best {metric}."
    return {
        "metric": metric,
        "direction": DIRECTIONS[metric] if metric else None,
        "reason": reason,
        "before": values[metric] if metric else None,
    }


def _metric(expected: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str | None, str | None]:
    for name in ("dataset", "task", "split"):
        if before.get(name) != after.get(name):
            return None, f"The patch changes the {name}: the validation parts are not the same samples."
    if expected == "seconds":
        return None, "What is expected is less time, of which no standard error is known."
    if expected.startswith("val_") and expected not in DIRECTIONS:
        return None, f"{expected} is logged without a standard error: a difference cannot be told from noise."
    if expected in DIRECTIONS and expected != "val_loss":
        return expected, None  # of the predictions themselves, in the targets' own units
    if meaning_of_loss(before) == meaning_of_loss(after):
        reason = (
            None if expected == "val_loss" else f"{expected} is no validation metric: the validation loss is compared."
        )
        return "val_loss", reason
    if after.get("task") == "classification":
        return "val_accuracy", "The patch changes what the loss means: the accuracy is compared."
    return "val_mae", "The patch changes what the loss means: the mean absolute error is compared."


def measured_effect(
    compared: Mapping[str, Any], state: str, error: Mapping[str, Any] | None, values: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """`{outcome, reason, after, gain, noise}` of a job that has ended. `gain` is above 0 where the metric got better."""
    metric = compared.get("metric")
    if state in ("failed", "cancelled"):
        code = f" ({error['code']})" if error and error.get("code") else ""
        return _without(
            "no_result", f"The job was cancelled{code}." if state == "cancelled" else f"The job failed{code}."
        )
    if metric is None:
        return _without("not_comparable", compared.get("reason") or "What to compare was not recorded.")
    after, first = values.get(metric), compared["before"]
    if after is None:
        return _without("no_result", f"The job logged no finite {metric}.")
    if after["se"] is None:
        return _without("not_comparable", f"The job logged no standard error with its best {metric}.")
    gain = first["value"] - after["value"] if compared["direction"] == "down" else after["value"] - first["value"]
    noise = math.hypot(first["se"], after["se"])
    outcome: Outcome = "improved" if gain > noise else "worse" if gain < -noise else "within_noise"
    return {"outcome": outcome, "reason": compared.get("reason"), "after": after, "gain": gain, "noise": noise}


def _without(outcome: Outcome, reason: str) -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason, "after": None, "gain": None, "noise": None}
