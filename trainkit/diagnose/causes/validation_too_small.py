"""Validation too small: its metric is known only roughly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.verdicts import BY_VALIDATION, Verdict, graded_confidence

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
FEW_SAMPLES = 50
"""Validation samples below which an accuracy of 0.8 has a 95 % interval of more than +-0.11."""


def evidence(record: Record) -> Verdict | None:
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


def suspicion(record: Record) -> float:
    """Fewer than 50 validation samples."""
    size = record.parts[1]
    if record.resolved is None or record.spec.model.kind == "ensemble" or size >= FEW_SAMPLES:
        return 0.0
    return 0.5 if size <= FEW_SAMPLES / 2 else 0.2


def recommendations(record: Record) -> Iterator[Change]:
    expected = (
        "val_accuracy_se",
        "down",
        "with the square root of the size: four times the samples halve it",
        "binomial",
    )
    shipped: Patch = {"use_predefined": False} if (record.facts.splits or {}).get("validation") else {}
    for train, validation in ((6.0, 2.0), (5.0, 3.0)):
        share = {"train": train, "validation": validation, "test": 2.0 if record.spec.split.test else 0.0}
        yield Change(
            {"split": {**shipped, **share}},
            f"A validation part of {validation / 10:.0%} or more of the samples.",
            expected,
        )


def interventions(record: Record) -> Iterator[Intervention]:
    if record.parts[1] >= min(100, 0.15 * record.facts.samples):
        return
    shipped: Patch = {"use_predefined": False} if (record.facts.splits or {}).get("validation") else {}
    share = {"train": 6.0, "validation": 2.0, "test": 2.0 if record.spec.split.test else 0.0}
    measure = "val_accuracy" if record.classification else "val_r2"
    why = "A validation part of a fifth of the samples."
    yield Intervention("larger_validation", "validation_too_small", {"split": {**shipped, **share}}, measure, why)


CAUSE = Cause(
    code="validation_too_small",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="The validation part may be too small to tell how good the model is.",
    lowers_skill=False,
    explains=BY_VALIDATION | {"underfitting_model_bias", "optimization_failure"},
    needs_training_curve=False,
)
