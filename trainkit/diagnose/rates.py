"""Rules about the size of a step: learning rate too high or too low, exploding gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainkit.diagnose.capacity import (
    bottleneck,
    dropout_dominates,
    limit_symptom_confidence,
    strong_penalties,
    too_deep,
)
from trainkit.diagnose.record import Floats, Record, Series
from trainkit.diagnose.sanity_checks import first_batch
from trainkit.diagnose.trends import still_gaining
from trainkit.diagnose.verdicts import Verdict, graded_confidence

LOW_SKILL = 0.5
"""A skill below this counts as little learnt: the model removes less than half of the baseline loss."""
LARGE_STEP = 0.1
"""||update|| / ||weights||: ten such steps can replace the weights. About 1e-3 is usual (Karpathy, CS231n)."""
EXTREME_RATE_FACTOR = 10.0
"""Multiple of the optimizer's default rate that explains low skill even without large steps: after the first steps the
units may be dead, and later steps are small."""
SHORT_PATH = 0.1
"""Sum of relative steps: even in one direction they change the weights by less than a tenth of their norm."""
DOUBLED_LOSS = 2.0
"""A loss of twice the baseline. Random weights may start there, but training does not rise to it."""
UNDONE_SHARE = 0.5
"""Rises of the mean training loss over its falls: at this share the rises undo half of the falls."""
LOW_RATE_FACTOR = 1 / 3
"""Multiple of the optimizer's default rate below which a loss that still falls means a rate too low, not a short run."""
HIGH_SKILL = 0.9
"""From this skill on large steps did no harm that is worth a verdict."""
STEADY_GAIN_SHARE = 0.5
"""Gain of the second half of training over that of the first; ordinary learning curves flatten far more."""
STEEP = 1000.0
"""||g|| ||w|| / baseline: changing the weights by 0.1 % of their norm changes the loss by the whole baseline. About 10 is
usual."""


def relative_steps(record: Record) -> Series | None:
    """Return ||update|| / ||weights|| at each log step: eta ||g|| / ||w||; adaptive methods eta sqrt(P) / ||w||.

    An upper bound for adaptive methods; heavy-ball forms take steps 1 / (1 - b) times as long. None without logged norms.
    """
    rates, weights, gradients = record.get("train_lr"), record.get("train_weight_norm"), record.get("train_grad_norm")
    optimizer = record.spec.optimizer
    step, at = np.intersect1d(rates.step, weights.step, return_indices=True)[:2]
    if not len(step) or optimizer.step_scale == "unknown":
        return None
    lr, norm = rates.value[at], _at(weights, step)
    if optimizer.step_scale == "rate":
        if record.parameters is None:
            return None
        lengths = lr * math.sqrt(record.parameters)
    else:
        shared = np.isin(step, gradients.step)
        step, lr, norm = step[shared], lr[shared], norm[shared]
        g = _at(gradients, step)
        if record.spec.train.clip_norm is not None:
            g = np.minimum(g, record.spec.train.clip_norm)
        lengths = lr * g * optimizer.step_gain
    some = norm > 0
    return Series(step[some], _epochs(weights, step[some]), lengths[some] / norm[some]) if some.any() else None


def sharpness(record: Record) -> Series:
    """Return ||g|| ||w|| / baseline at each log step: the effect of a relative change of the weights on the loss."""
    weights, gradients, scale = record.get("train_weight_norm"), record.get("train_grad_norm"), record.scale
    step = np.intersect1d(weights.step, gradients.step)
    values = _at(weights, step) * _at(gradients, step) / (scale or math.nan)
    return Series(step, _epochs(weights, step), values).finite


def exploding_gradients(record: Record) -> Verdict | None:
    """Exploding gradients: ||g|| ||w|| / baseline >= 1000 at the first log step, at no more than the default rate.

    A larger rate may itself be the cause: it has changed the weights before the first log step.
    """
    seen = sharpness(record)
    first, usual = seen.value[:1], _default_rate(record)
    if not len(first) or first[0] < STEEP or record.spec.optimizer.lr > usual:
        return None
    broken = _not_finite(record)
    by_layer = {path: float(s.value[0]) for path, s in record.layers("grad_norm").items() if len(s)}
    confidence = graded_confidence(
        math.log10(first[0]), math.log10(STEEP), math.log10(STEEP) + 2, 0.6 if broken else 0.5
    )
    return Verdict(
        "exploding_gradients",
        confidence if too_deep(record) else limit_symptom_confidence(record, confidence),
        int(seen.epoch[0]),
        f"The gradient is too large from the first steps on: a change of the weights by 0.1 % changes the loss by "
        f"{first[0] / STEEP:.3g} times the loss of a constant prediction.",
        {
            "relative_steepness": float(first[0]),
            "threshold": STEEP,
            "lr": record.spec.optimizer.lr,
            "first_grad_norm_by_layer": by_layer,
            "not_finite_since_step": broken.step[0].item() if broken else None,
            "series": ["train_grad_norm", "train_weight_norm", "train_batch_loss"],
        },
    )


def learning_rate_too_high(record: Record) -> Verdict | None:
    """Learning rate too high, shown by at least one of:

    - a loss that is not finite;
    - skill below 0.5 and a loss of twice the baseline: as a rise, or with steps of a tenth of the weights' norm, or at
      a rate above the default one unless the loss has only fallen since the start;
    - rises of the mean training loss that undo half of its falls;
    - skill below 0.5 at more than ten times the default rate, or with large steps whose median is at least half as long
      (linear models, whose weights are small: only where the rate is above the default one or the loss rose);
    - skill below 0.9 with large steps throughout.

    At more than ten times the default rate a negative skill on validation counts as skill below 0.5. Rises count from
    2 sqrt(2 / n) baselines on, the noise of a mean of n losses whose spread is about their size.
    """
    scale, learnt = record.scale, record.final_skill
    loss, steps, broken = record.get("train_loss"), relative_steps(record), _not_finite(record)
    largest = float(steps.value.max()) if steps is not None else None
    # penalties that shrink the weights make any relative step large
    wide = largest is not None and largest >= LARGE_STEP and not strong_penalties(record)
    unusual = record.spec.optimizer.lr > _default_rate(record)
    times = record.spec.optimizer.lr / _default_rate(record)
    little = learnt is not None and learnt < LOW_SKILL
    # what training learns in very large steps may not generalise
    held = record.skill("val")
    little = little or (times > EXTREME_RATE_FACTOR and len(held) > 0 and float(np.median(held[-3:])) < 0)
    rises, falls, since = _rises_and_falls(loss, _noise(record))
    reasons: list[tuple[float, str, int]] = []
    if broken:
        reasons.append((0.9 if wide else 0.7, f"The loss was not finite: {broken.value[0]}.", int(broken.epoch[0])))
    if scale and len(loss) and little:
        reasons += _losses_above_baseline(record, scale, wide, unusual)
    # with strong penalties the loss goes up and down at any rate
    pulled = bool(strong_penalties(record)) and not unusual
    if scale and falls and rises and rises >= UNDONE_SHARE * falls and (little or wide) and not pulled:
        message = f"The mean training loss rose by {rises:.3g} in total and fell by {falls:.3g}."
        reasons.append((graded_confidence(rises / falls, UNDONE_SHARE, 1.0, 0.55, 0.8), message, since))
    always = float(np.median(steps.value)) if steps is not None else 0.0
    # the weights of a linear model are small, so any step is relatively large
    rough = record.spec.model.kind != "linear" or unusual or rises > 0
    if little and wide and rough and always >= LARGE_STEP / 2 and steps and largest and len(loss) >= 2:
        message = f"Single steps change the weights by up to {largest:.3g} of their norm."
        reasons.append(
            (graded_confidence(math.log10(largest), -1, 0.5, 0.5, 0.8), message, int(steps.epoch[steps.value.argmax()]))
        )
    if not little and learnt is not None and learnt < HIGH_SKILL and wide and always >= LARGE_STEP and steps:
        message = f"Half of the steps change the weights by {always:.3g} of their norm or more."
        reasons.append((graded_confidence(math.log10(always), -1, 0.5, 0.6, 0.8), message, int(steps.epoch[0])))
    # up to ten times is common; a layer too narrow for the classes learns little at any rate
    if little and len(loss) >= 2 and times > EXTREME_RATE_FACTOR and not reasons and not bottleneck(record):
        message = f"The model learns little at {times:.3g} times the default learning rate of the optimizer."
        reasons.append((graded_confidence(math.log10(times), 1, 3, 0.55, 0.8), message, int(loss.epoch[0])))
    if not reasons:
        return None
    sure = times > EXTREME_RATE_FACTOR or (unusual and not dropout_dominates(record))
    confidence = min(0.97, max(r[0] for r in reasons) + 0.05 * (len(reasons) - 1) + _unlearnt_batch_bonus(record))
    return Verdict(
        "learning_rate_too_high",
        round(confidence, 3) if sure else limit_symptom_confidence(record, round(confidence, 3)),
        min(r[2] for r in reasons),
        " ".join(r[1] for r in sorted(reasons, reverse=True)),
        {
            **_common_evidence(record),
            "largest_relative_step": largest,
            "usual_relative_step": 1e-3,
            "rises": rises,
            "falls": falls,
            "not_finite_since_step": broken.step[0].item() if broken else None,
            "series": ["train_batch_loss", "train_loss", "train_lr", "train_grad_norm", "train_weight_norm"],
        },
    )


def _losses_above_baseline(record: Record, scale: float, wide: bool, unusual: bool) -> list[tuple[float, str, int]]:
    """Return (confidence, message, epoch) of a loss of twice the baseline `scale`: of an epoch's mean, else of a batch.

    wide: a step was large; unusual: the rate is above the optimizer's default.
    """
    loss, batches = record.get("train_loss"), record.get("train_batch_loss")
    risen = np.diff(loss.value, prepend=math.inf) > _noise(record)
    # the loss of random weights may start above the baseline and falls first
    begun = np.logical_and.accumulate(np.diff(loss.value, prepend=math.inf) < 0)
    high = np.flatnonzero((loss.value >= DOUBLED_LOSS * scale) & (wide | (unusual & ~begun) | risen))
    peaks = np.flatnonzero(batches.value >= DOUBLED_LOSS * scale)
    if len(high):
        peak = float(loss.value[high].max()) / scale
        message = f"The mean training loss was up to {peak:.3g} times that of a constant prediction."
        return [(graded_confidence(peak, DOUBLED_LOSS, 10, 0.65), message, int(loss.epoch[high[0]]))]
    if len(peaks) and wide:
        message = f"The batch loss was up to {batches.value.max() / scale:.3g} times that of a constant prediction."
        return [(0.6, message, int(batches.epoch[peaks[0]]))]
    return []


def learning_rate_too_low(record: Record) -> Verdict | None:
    """Learning rate too low: its median is below a third of the default one, without a rise of the loss or a large step.

    With a skill below 0.5, one of: the path is short (mean relative step x steps < 0.1); or the path is below 1 (or
    unknown, with less confidence) and the second half of training gained at least half of what the first half gained.
    With a higher skill: the loss still falls steadily, and validation still improves as in `stopped_too_early`. At a
    usual rate the same curves mean that the run ended too early or that the gradient is the problem.
    """
    learnt, loss = record.final_skill, record.get("train_loss")
    if learnt is None or len(loss) < 2 or record.spec.start_from is not None:
        return None
    rates, usual = record.get("train_lr").value, _default_rate(record)
    rate = float(np.median(rates)) if len(rates) else record.spec.optimizer.lr
    if rate >= LOW_RATE_FACTOR * usual:
        return None
    steps = relative_steps(record)
    path = float(steps.value.mean() * loss.step[-1]) if steps is not None else None
    if _rises_and_falls(loss, _noise(record))[0] or (steps is not None and steps.value.max() >= LARGE_STEP):
        return None
    middle = float(np.interp((loss.step[0] + loss.step[-1]) / 2, loss.step, loss.value))
    early, late = float(loss.value[0]) - middle, middle - float(loss.value[-1])
    steady = len(loss) > 2 and early > 0 and late >= STEADY_GAIN_SHARE * early  # two evaluations have no halves
    if learnt >= LOW_SKILL:
        if not steady or still_gaining(record) is None:
            return None
        confidence = 0.55
        message = f"The loss still falls at the end: by {early:.3g} in the first half, by {late:.3g} in the second."
    elif path is not None and path < SHORT_PATH:
        confidence = graded_confidence(-math.log10(max(path, 1e-12)), 1, 3, 0.7)
        message = f"All steps together change the weights by at most {path:.2g} of their norm."
    elif steady and (path is None or path < 1):
        confidence = limit_symptom_confidence(record, 0.5 if path is None else 0.6)
        message = (
            f"The loss falls steadily: by {early:.3g} in the first half of training and by {late:.3g} in the second."
        )
    else:
        return None
    return Verdict(
        "learning_rate_too_low",
        round(min(0.97, confidence + _unlearnt_batch_bonus(record)), 3),
        int(loss.epoch[0]),
        f"After {int(loss.step[-1])} steps the model removes only {max(learnt, 0):.0%} of the loss of a constant prediction. "
        f"{message}",
        {
            **_common_evidence(record),
            "median_rate": rate,
            "usual_rate": usual,
            "relative_way": path,
            "threshold": SHORT_PATH,
            "fall_in_first_half": early,
            "fall_in_second_half": late,
            "series": ["train_loss", "val_loss", "train_lr", "train_weight_norm", "train_grad_norm"],
        },
    )


def _common_evidence(record: Record) -> dict[str, Any]:
    evidence = {"lr": record.spec.optimizer.lr, "baseline_loss": record.baseline, "skill": record.final_skill}
    batch = first_batch(record)
    return evidence if batch is None else {**evidence, "first_batch": batch}


def _unlearnt_batch_bonus(record: Record) -> float:
    """Return the confidence that is added where the sanity check could not memorise a single batch either."""
    batch = first_batch(record)
    return 0.1 if batch is not None and batch["learnt"] is False else 0.0


def _not_finite(record: Record) -> Series | None:
    for name in ("train_batch_loss", "train_loss", "val_loss"):
        series = record.series.get(name)
        if series is not None and (bad := ~np.isfinite(series.value)).any():
            return Series(series.step[bad], series.epoch[bad], series.value[bad])
    return None


def _default_rate(record: Record) -> float:
    return float(type(record.spec.optimizer)().lr)


def _noise(record: Record) -> float:
    """Return two standard errors of the difference of two means of n losses whose deviation is about the baseline."""
    return 2 * math.sqrt(2 / max(1, record.parts[0])) * (record.scale or 0.0)


def _rises_and_falls(loss: Series, noise: float) -> tuple[float, float, int]:
    """Return (sum of rises beyond the noise, sum of falls, epoch of the first such rise) between evaluations."""
    change = np.diff(loss.value)
    up = np.flatnonzero(change > noise)
    since = int(loss.epoch[up[0] + 1]) if len(up) else 0
    return float(change[up].sum()), float(-change[change < 0].sum()), since


def _at(series: Series, steps: Any) -> Floats:
    """Return the values at these steps, all of which the series has."""
    known, first = np.unique(series.step, return_index=True)
    return series.value[first[np.searchsorted(known, steps)]] if len(known) else np.empty(0)


def _epochs(series: Series, steps: Any) -> Any:
    known, first = np.unique(series.step, return_index=True)
    return series.epoch[first[np.searchsorted(known, steps)]] if len(known) else np.empty(0, np.int64)
