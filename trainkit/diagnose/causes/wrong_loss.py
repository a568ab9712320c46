"""Wrong loss: the loss does not fit the task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainkit.diagnose.capacity import dropout_gap
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.performance import attainment
from trainkit.diagnose.record import LOW_SKILL, Record, leading_count
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict, graded_confidence
from trainkit.spec.facts import FEW_VALUES, target_column
from trainkit.spec.patch import replacing

HEAVY_TAILS = 4.0
"""mse / mae^2 of the residuals: pi/2 = 1.57 for a normal, 2 for a Laplace distribution. From 4 on outliers dominate."""
FITTED_BY_OTHERS = 0.4
"""Most confidence in outliers where a reference model is clearly better, though it minimises squared errors as well."""
MIN_RESIDUALS = 30
"""Least number of residuals for this ratio."""


def evidence(record: Record) -> Verdict | None:
    """Wrong loss: squared error on classes, a regression target with few whole values, or outliers.

    Outliers: squared error where mse / mae^2 of the training or validation residuals is >= 4.
    """
    kind = record.spec.loss.kind if record.spec.loss else None
    if record.classification:
        return _on_classes(record) if kind == "mse" else None
    return _few_values(record) or (_outliers(record) if kind == "mse" else None)


def _on_classes(record: Record) -> Verdict:
    learnt = record.final_skill
    poor = learnt is not None and learnt < LOW_SKILL
    return Verdict(
        "wrong_loss",
        0.8 if poor else 0.5,
        1 if len(record.get("train_loss")) else None,
        "Squared error is used for classification: its gradient is small for very wrong outputs, and the outputs are no "
        "probabilities.",
        {"loss": "mse", "task": record.spec.task, "skill": learnt, "series": ["train_loss", "val_accuracy"]},
    )


def _few_values(record: Record) -> Verdict | None:
    values = _whole_values(record)
    if not values:
        return None
    return Verdict(
        "wrong_loss",
        0.4,
        None,
        f"The target has {values} different whole values and is predicted as a number. If the values name classes, their "
        "distances have no meaning: use classification.",
        {
            "values": values,
            "cannot_tell": "Whole numbers may also be counts or grades, whose distances have a meaning.",
            "series": ["val_mse", "val_mae"],
        },
    )


def _whole_values(record: Record) -> int:
    """Return how many different values the target has, where they are few and whole numbers; else 0."""
    column = target_column(record.spec, record.facts) if record.facts.kind == "table" else None
    values = column.unique if column is not None and column.integer else 0
    if column is None:
        values = sum(leading_count(found["message"]) for found in record.findings("whole_number_targets"))
    return values if values <= FEW_VALUES else 0


def _outliers(record: Record) -> Verdict | None:
    if record.facts.target_width > 1:
        return None
    # strong dropout itself produces large training residuals
    sizes = zip(("train", "val"), (0 if dropout_gap(record) else record.parts[0], record.parts[1]), strict=True)
    ratio = max((_tail_ratio(record, split) for split, size in sizes if size >= MIN_RESIDUALS), default=0.0)
    if ratio < HEAVY_TAILS:
        return None
    confidence = graded_confidence(ratio / HEAVY_TAILS, 1, 4, 0.5, 0.8)
    if attainment(record) == "short":  # a reference fits them: these are errors of the model, not outliers of the data
        confidence = min(confidence, FITTED_BY_OTHERS)
    return Verdict(
        "wrong_loss",
        confidence,
        int(record.get("train_loss").epoch[0]),
        f"A few large residuals dominate the squared error: mse / mae^2 is {ratio:.3g} (normal distribution: 1.57).",
        {
            "mse_over_mae_squared": ratio,
            "threshold": HEAVY_TAILS,
            "series": ["val_mse", "val_mae", "val_loss", "val_loss_se"],
        },
    )


def _tail_ratio(record: Record, split: str) -> float:
    """Return mse / mae^2 of the residuals, the median of three evaluations near the best one.

    After overfitting few residuals are large, whatever their distribution was.
    """
    mse, mae = record.get(f"{split}_mse").value, record.get(f"{split}_mae").value
    if len(mse) < 3 or len(mse) != len(mae):
        return 0.0
    at = _near_best(record)
    return float(np.median(mse[at] / np.maximum(mae[at] ** 2, 1e-300)))


def _near_best(record: Record) -> slice:
    """Return three evaluations, with the minimum of the validation loss in the middle where possible."""
    loss = record.get("val_loss").value
    first = min(max(int(loss.argmin()) - 1, 0), len(loss) - 3) if len(loss) > 2 else -3
    return slice(first, first + 3 or None)


def suspicion(record: Record) -> float:
    """Squared error on classes, or residuals with heavier tails than a Laplace distribution's."""
    kind = record.spec.loss.kind if record.spec.loss else None
    if record.classification:
        return 0.4 if kind in ("mse", "mae", "hinge") else 0.0
    if kind != "mse" or record.facts.target_width > 1:
        return 0.0
    return min(0.5, max(0.0, _tail_ratio(record, "val") / HEAVY_TAILS - 0.5))


def recommendations(record: Record) -> Iterator[Change]:
    old = record.spec.loss.model_dump() if record.spec.loss else {}
    if record.classification:
        expected = ("val_accuracy", "up", "sooner", "Golik, Doetsch and Ney 2013")
        yield Change(
            {"loss": replacing(old, {"kind": "cross_entropy"})},
            "The gradient of cross entropy stays large where a prediction is wrong.",
            expected,
        )
        return
    expected = ("val_mae", "down", "clearly; the squared error may rise", "Huber 1964")
    if old.get("kind") == "mse":
        yield Change(
            {"loss": replacing(old, {"kind": "huber"})},
            "The Huber loss counts large residuals linearly, not squared.",
            expected,
        )
        yield Change(
            {"loss": replacing(old, {"kind": "mae"})},
            "The mean absolute error predicts the median, which outliers do not move.",
            expected,
        )
    if record.facts.kind == "table":
        expected = ("val_accuracy", "up", "becomes available", "this record")
        yield Change(_classes_patch(record), "Predicts the values as classes.", expected)


def _classes_patch(record: Record) -> Patch:
    old = record.spec.loss.model_dump() if record.spec.loss else {}
    loss = {**dict.fromkeys(old), "kind": "cross_entropy"}
    return {"task": "classification", "target_scaling": "auto", "loss": loss}


def interventions(record: Record) -> Iterator[Intervention]:
    code, kind = "wrong_loss", record.spec.loss.kind if record.spec.loss else ""
    old = record.spec.loss.model_dump() if record.spec.loss else {}
    if record.classification and kind == "mse":
        patch: Patch = {"loss": replacing(old, {"kind": "cross_entropy"})}
        why = "The gradient of cross entropy stays large where a prediction is wrong."
        yield Intervention("cross_entropy", code, patch, "val_accuracy", why, 0.8, undoes=True)
    if not record.classification and kind == "mse":
        patch = {"loss": replacing(old, {"kind": "huber"})}
        why = "The Huber loss counts large residuals linearly, not squared."
        yield Intervention("huber_loss", code, patch, "val_mae", why, 0.8)
    if not record.classification and _whole_values(record):
        # the same samples are to be validated as for numbers, whose parts are drawn without regard to the target
        patch = {**_classes_patch(record), "split": {"stratify": False}}
        why = "Predicts the values as classes, and as the number their mean, weighted by probability."
        yield Intervention("as_classes", code, patch, "val_r2", why, 0.8)


CAUSE = Cause(
    code="wrong_loss",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="Another loss may fit the task or its outliers better.",
    lowers_skill=False,
    explains=LOW_LEARNING | {"validation_too_small", "overfitting"},
)
