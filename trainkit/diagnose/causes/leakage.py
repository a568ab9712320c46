"""Leakage: held-out samples or the target are known in training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.estimates import kept_metrics
from trainkit.diagnose.held_out_data import LEAKS, target_leaking_features
from trainkit.diagnose.record import Record, leading_count
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.verdicts import BY_VALIDATION, Verdict, graded_confidence

LEAKED_SHARE = 0.01
"""Share of held-out samples with a duplicate in training that counts as leakage."""
DUPLICATE_SHARE = 0.05
"""Share of exact duplicates in randomly split data that counts as leakage."""
TELLS_IT, SHARES_MUCH = 0.9, 0.6
"""Confidence in a feature that predicts the target alone, and in one that looks like the target with noise."""
LEAST_INFLATION = 0.01
"""Least rise of the validation accuracy or R^2 by duplicates that is blamed on them."""
HARMLESS = 0.2
"""Confidence for duplicates that do not inflate the metric: they are reported as a suspect."""


def evidence(record: Record) -> Verdict | None:
    """Leakage, by at least one of:

    - predefined parts: 1 % or more of the held-out samples are exact or near duplicates of training samples;
    - a random split: 5 % or more of all samples are exact duplicates, some of which fall into different parts;
    - a feature in use that predicts the target alone, or looks like the target with noise, by the dataset report.

    Duplicates count where they inflate the metric (`_inflation`): a model that is as good on unseen samples as on its
    training samples gains nothing from them.
    """
    found = [one for one in (_target_leak(record), _duplicates(record)) if one is not None]
    return max(found, key=lambda one: one.confidence, default=None)


def _target_leak(record: Record) -> Verdict | None:
    names = target_leaking_features(record)
    if not names:
        return None
    findings = [one for one in record.findings(*LEAKS) if one["where"] in names]
    alone, found = any(one["code"] == "target_leak" for one in findings), [one["message"] for one in findings]
    return Verdict(
        "leakage",
        TELLS_IT if alone else SHARES_MUCH,
        None,
        f"{found[0][0].upper()}{found[0][1:]}.",
        {
            "features": names[:20],
            "findings": found[:10],
            "cannot_tell": "If the feature is known when a prediction is made, it is no leak and the task is easy."
            if alone
            else "A feature that alone causes the target looks the same. Known when a prediction is made, it is no leak.",
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
    inflation = _inflation(record, share)
    if inflation is not None and inflation < LEAST_INFLATION:
        confidence = HARMLESS
    return Verdict(
        "leakage",
        confidence,
        None,
        f"{found[0]['message'][0].upper()}{found[0]['message'][1:]}.",
        {
            "share": share,
            "threshold": limit,
            "inflation": inflation,
            "inflation_threshold": LEAST_INFLATION,
            "findings": [one["message"] for one in found[:10]],
            "cannot_tell": None
            if shipped
            else "How many duplicates fell into different parts of the random split is not recorded.",
            "series": ["val_loss", "val_accuracy"],
        },
    )


def _inflation(record: Record, share: float) -> float | None:
    """Return by how much duplicates raise the validation metric (accuracy or R^2); None without the metrics.

    A held-out duplicate is a training sample, so its expected metric is that of training: v = s t + (1 - s) u of the
    share s of duplicates, validation v, training t and the other samples u. The inflation is v - u = s (t - v) / (1 - s).
    """
    name = "accuracy" if record.classification else "r2"
    train, kept = record.get(f"train_{name}"), kept_metrics(record).get(f"val_{name}")
    if kept is None or not len(train) or share >= 1:
        return None
    ahead = float(np.interp(kept.epoch, train.epoch, train.value)) - kept.value
    return share * max(0.0, ahead) / (1 - share)


def suspicion(record: Record) -> float:
    """Copies in the data, or parts of them in several parts, whatever they did to the metric."""
    return 0.15 if record.findings("leakage", "near_leakage", "duplicates") else 0.0


def observable(record: Record) -> bool:
    return bool(record.report)


def recommendations(record: Record) -> Iterator[Change]:
    metric = "val_accuracy" if record.classification else "val_r2"
    expected = (metric, "down", "to its true value, without the leaked information", "this record")
    names = target_leaking_features(record)
    if names and record.facts.kind == "table":
        dataset = record.spec.dataset.model_dump(mode="json", exclude_defaults=True)
        without = {"dataset": {**dataset, "ignore": [*record.spec.dataset.ignore, *names]}}
        yield Change(
            without, "Without the columns that reveal the target, the model must learn from the others.", expected
        )
    if not names or record.findings("leakage", "near_leakage", "duplicates"):
        why = "Duplicates are then in one part only: no validation or test sample is also in training."
        yield Change({"split": {"duplicates": "drop"}}, why, expected)


def interventions(record: Record) -> Iterator[Intervention]:
    code, measure = "leakage", "val_accuracy" if record.classification else "val_r2"
    names = target_leaking_features(record)
    if names and record.facts.kind == "table":
        dataset = record.spec.dataset.model_dump(mode="json", exclude_defaults=True)
        patch: Patch = {"dataset": {**dataset, "ignore": [*record.spec.dataset.ignore, *names]}}
        why = "Without the columns that reveal the target."
        yield Intervention("without_leaking_columns", code, patch, measure, why)
    if record.findings("leakage", "near_leakage", "duplicates") and record.spec.split.duplicates != "drop":
        patch = {"split": {"duplicates": "drop"}}
        why = "Training goes without copies of held-out samples."
        yield Intervention("without_copies", code, patch, measure, why)


CAUSE = Cause(
    code="leakage",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="The data hold copies; they inflate the metric by less than its noise.",
    lowers_skill=False,
    explains=BY_VALIDATION,
    needs_training_curve=False,
)
