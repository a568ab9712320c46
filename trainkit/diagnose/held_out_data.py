"""Rules about the validation and test parts: leakage, distribution mismatch, validation too small."""

from __future__ import annotations

import math
from typing import Any

from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.record import Record, leading_count
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec.facts import feature_columns

SIGNIFICANT_ERRORS = 3.0
"""Standard errors between validation and test: more than 2, because the best epoch was chosen on validation."""
LEAST_DIFFERENCE = 0.05
"""Least difference of two parts: in accuracy, or as a share of the baseline loss."""
WIDE_INTERVAL = 0.1
"""Distance of the validation accuracy from the far end of its 95 % interval, for a part below 5 % of the samples."""
WIDE_INTERVAL_USUAL_SHARE = 0.15
"""Half-width of that interval for a part of the usual share, where a larger part would cost training samples."""
WIDE_LOSS_INTERVAL = 0.5
"""Two standard errors of a regression's validation loss over the loss, for a part below 5 % of the samples."""
SMALL_SHARE = 0.05
"""Share of all samples: half of the usual validation share."""
REFERENCE_ACCURACY = 0.8
"""Accuracy at which the interval of a part is judged if the model is worse: near 0.5 any interval is wide."""
LEAKED_SHARE = 0.01
"""Share of held-out samples with a duplicate in training that counts as leakage."""
DUPLICATE_SHARE = 0.05
"""Share of exact duplicates in randomly split data that counts as leakage."""


def leakage(record: Record) -> Verdict | None:
    """Leakage, by at least one of:

    - predefined parts: 1 % or more of the held-out samples are exact or near duplicates of training samples;
    - a random split: 5 % or more of all samples are exact duplicates, some of which fall into different parts;
    - a feature in use that predicts the target alone, by the dataset report.
    """
    found = [one for one in (_target_leak(record), _duplicates(record)) if one is not None]
    return max(found, key=lambda one: one.confidence, default=None)


def target_leaking_features(record: Record) -> list[str]:
    """Return the features in use that predict the target alone: names of columns, or `feature 3` of arrays."""
    names = [one["where"] for one in record.findings("target_leak")]
    if record.facts.kind != "table":
        return names
    used = {column.name for column in feature_columns(record.spec, record.facts)}
    return [name for name in names if name in used]


def distribution_mismatch(record: Record) -> Verdict | None:
    """Distribution mismatch between predefined parts; randomly split parts differ by chance only.

    Either test is worse than validation at the kept epoch by more than 3 standard errors and by 0.05, or the dataset
    report finds drift (with a higher confidence where test is 0.05 worse or the validation part drifted).
    """
    if not (record.facts.splits and record.spec.split.use_predefined):
        return None
    drifted = record.findings("drift")
    seen = _val_against_test(record)
    worse = _is_significant(seen)
    if not worse and not drifted:
        return None
    confidence = 0.0
    if seen is not None and worse:
        sigma = seen["difference"] / max(seen["standard_error"], 1e-12)
        confidence = graded_confidence(sigma, SIGNIFICANT_ERRORS, 6, 0.7)
    elif drifted:
        judged = any(" in validation than " in found["message"] for found in drifted)
        harmed = seen is not None and seen["difference"] > LEAST_DIFFERENCE
        confidence = 0.55 if harmed else 0.5 if judged or seen is None else 0.35
    message = (
        f"{seen['metric']} is {seen['validation']:.4g} on validation and {seen['test']:.4g} on test. " if seen else ""
    )
    message += " ".join(found["message"] + "." for found in drifted[:3])
    return Verdict(
        "distribution_mismatch",
        confidence,
        None,
        message.strip(),
        {
            **(seen or {}),
            "drift": [found["message"] for found in drifted[:10]],
            "cannot_tell": "A validation part on which many runs were selected gives the same result."
            if worse
            else None,
            "series": ["val_loss", "val_accuracy", "test_loss", "test_accuracy"],
        },
    )


def validation_too_small(record: Record) -> Verdict | None:
    """Validation too small: no validation part, or a wide 95 % interval of its metric.

    Classification (Wilson's interval): below 5 % of the samples, the far end is 0.1 from the accuracy; from 5 % on, the
    half-width at that accuracy, or at 0.8, is 0.15. Regression: 2 standard errors of the loss are 0.5 of it, from 5 % on
    0.75; they count as at least sqrt(2 / n), those of squared normal residuals.
    """
    size = record.parts[1]
    accuracy, loss, errors = (record.get(f"val_{name}") for name in ("accuracy", "loss", "loss_se"))
    if record.resolved is None or record.spec.model.kind == "ensemble":
        return None
    share = size / max(1, sum(record.parts))
    evidence: dict[str, Any] = {
        "samples": size,
        "share": share,
        "series": ["val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se"],
    }
    if size == 0:
        message = (
            "There is no validation part, so overfitting cannot be seen and the last weights are kept, not the best."
        )
        return Verdict("validation_too_small", 0.6, None, message, evidence)
    if record.classification and len(accuracy):
        best = float(accuracy.value.max())
        small = share < SMALL_SHARE
        low, high = wilson_interval(best if small else max(best, REFERENCE_ACCURACY), size)
        wide = max(best - low, high - best) if small else (high - low) / 2
        limit = WIDE_INTERVAL if small else WIDE_INTERVAL_USUAL_SHARE
        what = f"The validation part has {size} samples, so the accuracy is known only to +-{wide:.2f}."
    elif not record.classification and len(loss) and len(errors):
        at = int(loss.value.argmin())
        seen = float(errors.value[min(at, len(errors) - 1)]) / max(abs(float(loss.value[at])), 1e-12)
        wide = 2 * max(seen, math.sqrt(2 / size))
        limit = WIDE_LOSS_INTERVAL * (1.0 if share < SMALL_SHARE else WIDE_INTERVAL_USUAL_SHARE / WIDE_INTERVAL)
        what = f"The validation part has {size} samples, so the loss is known only to +-{wide:.0%}."
    else:
        return None
    if wide < limit:
        return None
    evidence |= {"width": wide, "threshold": limit}
    return Verdict("validation_too_small", graded_confidence(wide, limit, 2 * limit, 0.5, 0.9), None, what, evidence)


def parts_differ(record: Record) -> bool:
    """Return whether the parts differ, by the dataset report or by the metrics."""
    return bool(record.findings("drift")) or _is_significant(_val_against_test(record))


def _target_leak(record: Record) -> Verdict | None:
    names = target_leaking_features(record)
    if not names:
        return None
    found = [one["message"] for one in record.findings("target_leak") if one["where"] in names]
    return Verdict(
        "leakage",
        0.9,
        None,
        f"{found[0][0].upper()}{found[0][1:]}.",
        {
            "features": names[:20],
            "findings": found[:10],
            "cannot_tell": "If the feature is known when a prediction is made, it is no leak and the task is easy.",
            "series": ["val_loss", "val_accuracy"] if record.classification else ["val_loss", "val_r2"],
        },
    )


def _duplicates(record: Record) -> Verdict | None:
    if record.spec.split.duplicates == "drop":
        return None
    shipped = bool(record.facts.splits) and record.spec.split.use_predefined
    held = max(1, sum(record.parts[1:]))
    if shipped:
        found = record.findings("leakage", "near_leakage")
        share = sum(leading_count(one["message"]) for one in found) / held
        confidence = graded_confidence(share, LEAKED_SHARE, 0.2, 0.7)
        limit = LEAKED_SHARE
    else:
        found = record.findings("duplicates")
        share = sum(leading_count(one["message"]) for one in found) / max(1, record.facts.samples)
        confidence, limit = graded_confidence(share, DUPLICATE_SHARE, 0.5, 0.5, 0.75), DUPLICATE_SHARE
    if not found or share < limit:
        return None
    return Verdict(
        "leakage",
        confidence,
        None,
        f"{found[0]['message'][0].upper()}{found[0]['message'][1:]}.",
        {
            "share": share,
            "threshold": limit,
            "findings": [one["message"] for one in found[:10]],
            "cannot_tell": None
            if shipped
            else "How many duplicates fell into different parts of the random split is not recorded.",
            "series": ["val_loss", "val_accuracy"],
        },
    )


def _val_against_test(record: Record) -> dict[str, Any] | None:
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


def _is_significant(seen: dict[str, Any] | None) -> bool:
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
