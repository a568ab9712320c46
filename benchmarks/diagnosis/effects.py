"""The effect of a change of a run: a fault's, from its twin to it; a recommendation's, from it to what is recommended.

Both runs answer for the same samples aside, so differences are by pairs of answers: gain = mean(d), with the standard
error sd(d) / sqrt(n), and beyond noise from 1.96 of these on. Each cause has a measure of its own where accuracy says
nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.diagnosis.trial import Trial
from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Code

Z = 1.96
MATERIAL_SCORE = 0.01
"""A fault has an effect if it costs this much accuracy, recall or R^2, and more than noise."""
MATERIAL_LOSS = 0.1
"""... or, with an accuracy that cannot be told apart, this share of the loss, or a rise by this share of it."""
WIDE_INTERVAL = 0.1
"""Half-width of the 95 % interval of an accuracy from which on a validation part says too little."""
WIDE_LOSS = 0.5
"""The same of a regression's validation loss, as a share of it."""
Outcome = Literal["better", "worse", "within_noise"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeasuredEffect:
    """Change of a metric; `gain` > 0 is an improvement, [low, high] its 95 % interval."""

    metric: str
    before: float
    after: float
    gain: float
    low: float
    high: float

    @property
    def outcome(self) -> Outcome:
        """Whether the interval of the gain lies above 0, below 0, or holds it."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "within_noise"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "outcome": self.outcome}


def measured_effect(code: Code, before: Trial, after: Trial) -> MeasuredEffect:
    """Return what the change from one run to the other did, in the measure of that cause."""
    return MEASURES.get(code, quality)(before, after)


def has_effect(code: Code, faulty: Trial, twin: Trial) -> tuple[bool, MeasuredEffect]:
    """Return whether a fault matters: whether the twin without it is better, beyond noise and by a material amount."""
    effect = measured_effect(code, faulty, twin)
    if code == "overfitting" and effect.outcome != "better" and (rise := _risen(faulty, twin)) is not None:
        effect = rise  # a curve that rises is over-fitting, though the smaller twin's kept weights are no better
    if effect.outcome != "better":
        return False, effect
    if effect.metric == "loss":
        return effect.gain >= MATERIAL_LOSS * abs(effect.before), effect
    if effect.metric == "rise of val_loss":
        return effect.gain >= MATERIAL_LOSS, effect
    if effect.metric == "half-width":
        return faulty_width(faulty.record) >= 1, effect
    return effect.gain >= MATERIAL_SCORE, effect


def quality(before: Trial, after: Trial) -> MeasuredEffect:
    """Accuracy or R^2 on the samples aside; where it cannot be told apart, the loss, if it means the same in both."""
    name = "accuracy" if before.record.classification else "r2"
    score = paired(name, before.aside.score, after.aside.score)
    if score.outcome != "within_noise" or _meaning(before.record) != _meaning(after.record):
        return score
    loss = paired("loss", -before.aside.loss, -after.aside.loss, sign=-1.0)
    return score if loss.outcome == "within_noise" else loss


def _meaning(record: Record) -> Any:
    """What makes two losses comparable."""
    return record.spec.loss.kind if record.spec.loss else None, record.spec.regularize.label_smoothing


def paired(metric: str, before: Floats, after: Floats, sign: float = 1.0) -> MeasuredEffect:
    """Return the gain by pairs; `sign` undoes the sign of a loss in the two values."""
    difference = after - before
    error = Z * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    gain = float(difference.mean())
    return MeasuredEffect(
        metric, sign * float(before.mean()), sign * float(after.mean()), gain, gain - error, gain + error
    )


def _score(before: Trial, after: Trial) -> MeasuredEffect:
    """Accuracy or R^2 alone: wrong labels in training change what its loss means."""
    return paired("accuracy" if before.record.classification else "r2", before.aside.score, after.aside.score)


def _recall(before: Trial, after: Trial) -> MeasuredEffect:
    """Mean recall of the classes."""
    return paired_recall(before.aside.score, after.aside.score, before.aside.targets)


def paired_recall(before: Floats, after: Floats, truth: NDArray[np.int64]) -> MeasuredEffect:
    """Return the gain in the mean recall, by pairs within each class: se^2 = sum_k var_k / n_k / K^2."""
    labels = [label for label in np.unique(truth) if (truth == label).sum() > 1]
    by_class = [(after - before)[truth == label] for label in labels]
    gain = float(np.mean([one.mean() for one in by_class]))
    error = Z * float(np.sqrt(sum(one.var(ddof=1) / len(one) for one in by_class))) / len(labels)
    was, now = (float(np.mean([score[truth == label].mean() for label in labels])) for score in (before, after))
    return MeasuredEffect("recall", was, now, gain, gain - error, gain + error)


def _overfitting(before: Trial, after: Trial) -> MeasuredEffect:
    """The kept weights' answers; where these cannot be told apart, the rise of the validation loss, then their loss.

    The best weights are kept in any case, and only the curve shows then what more epochs do.
    """
    kept = quality(before, after)
    if kept.metric != "loss" and kept.outcome != "within_noise":
        return kept
    rise = _risen(before, after)
    return kept if rise is None or rise.outcome == "within_noise" else rise


def _risen(before: Trial, after: Trial) -> MeasuredEffect | None:
    """How far the validation loss has risen in both; None where the losses mean different things, or are not known."""
    (was, was_error), (now, now_error) = _rise(before.record), _rise(after.record)
    if _meaning(before.record) != _meaning(after.record) or not np.isfinite([was, now, was_error, now_error]).all():
        return None
    gain, error = was - now, Z * float(np.hypot(was_error, now_error))
    return MeasuredEffect("rise of val_loss", was, now, gain, gain - error, gain + error)


def _rise(record: Record) -> tuple[float, float]:
    """The validation loss at the end over its least value, as a share of it, with the logged standard error by pairs.

    A run that an early-stop rule has ended did not go on rising: 0.
    """
    loss, error = record.get("val_loss").value, record.get("val_loss_rise_se").value
    if record.stop_reason == "early_stop":
        return 0.0, 0.0
    if not len(loss) or not len(error):
        return float("nan"), float("nan")
    least = float(loss.min())
    return (float(loss[-1]) - least) / least, float(error[-1]) / least


def faulty_width(record: Record) -> float:
    """Half-width of the 95 % interval of what validation says at its best, over what is still of use; 1 is too wide."""
    loss, errors = record.get("val_loss").value, record.get("val_loss_se").value
    if not record.parts[1]:
        return float("inf")
    if record.classification:
        accuracy = record.get("val_accuracy").value
        low, high = wilson_interval(float(accuracy.max()) if len(accuracy) else 0.0, record.parts[1])
        return (high - low) / 2 / WIDE_INTERVAL
    if not len(loss) or len(errors) != len(loss):
        return float("inf")
    best = int(loss.argmin())
    return float(Z * errors[best] / abs(loss[best])) / WIDE_LOSS


def _width(before: Trial, after: Trial) -> MeasuredEffect:
    """Half-width of the interval of validation; no sampling error is known of it, so that a fifth less is a gain."""
    was, now = faulty_width(before.record), faulty_width(after.record)
    if np.isinf(was):
        gain = 0.0 if np.isinf(now) else 1.0
        return MeasuredEffect("half-width", was, now, gain, gain, gain)
    gain = was - now
    return MeasuredEffect("half-width", was, now, gain, gain - 0.2 * was, gain + 0.2 * was)


def _optimism(before: Trial, after: Trial) -> MeasuredEffect:
    """How much better the metric is on validation than on samples that no run has seen.

    The two validation values have their logged standard errors; the samples aside are the same in both runs, so that
    their part of the difference is by pairs.
    """
    (was, was_error), (now, now_error) = _best_of_validation(before.record), _best_of_validation(after.record)
    if not np.isfinite([was, now, was_error, now_error]).all():
        return MeasuredEffect("optimism", was, now, 0.0, 0.0, 0.0)
    aside = paired("", before.aside.score, after.aside.score)
    was, now = was - float(before.aside.score.mean()), now - float(after.aside.score.mean())
    gain = max(was, 0.0) - max(now, 0.0)
    error = float(np.sqrt((Z * was_error) ** 2 + (Z * now_error) ** 2 + (aside.high - aside.gain) ** 2))
    return MeasuredEffect("optimism", was, now, gain, gain - error, gain + error)


def _best_of_validation(record: Record) -> tuple[float, float]:
    """The best accuracy or R^2 of validation, and its standard error."""
    name = "val_accuracy" if record.classification else "val_r2"
    values, errors = record.get(name).value, record.get(f"{name}_se").value
    if not len(values) or len(errors) != len(values):
        return float("nan"), float("nan")
    return float(values.max()), float(errors[values.argmax()])


MEASURES: dict[Code, Callable[[Trial, Trial], MeasuredEffect]] = {
    "class_imbalance": _recall,
    "label_noise": _score,
    "leakage": _optimism,
    "overfitting": _overfitting,
    "validation_too_small": _width,
}
"""Faults of validation itself, or of its metric. For all others: `quality`, so also for `distribution_mismatch`, where
the samples aside are the field's."""
