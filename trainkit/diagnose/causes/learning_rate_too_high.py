"""Learning rate too high."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainkit.diagnose.capacity import (
    LARGE_GAIN,
    dropout_dominates,
    has_unusual_init,
    init_gain,
    limit_symptom_confidence,
    strong_penalties,
)
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.gradients import IDLE_SHARE
from trainkit.diagnose.interventions import UNUSUAL_RATE, batch_norm, rate_tenth, standard_rate
from trainkit.diagnose.performance import attainment
from trainkit.diagnose.rates import (
    LARGE_STEP,
    default_rate,
    loss_noise,
    not_finite,
    rate_evidence,
    relative_steps,
    rises_and_falls,
    unlearnt_batch_bonus,
)
from trainkit.diagnose.record import HIGH_SKILL, LOW_SKILL, Record
from trainkit.diagnose.spec_changes import Change, rate_patch
from trainkit.diagnose.verdicts import EXPLAINS_FROM_CONFIDENCE, IDLE, LOW_LEARNING, Verdict, graded_confidence

EXTREME_RATE_FACTOR = 10.0
"""Multiple of the optimizer's default rate that explains why little is learnt."""
DOUBLED_LOSS = 2.0
"""A loss of twice the baseline. Random weights may start there, but training does not rise to it."""
UNDONE_SHARE = 0.5
"""Rises of the mean training loss over its falls: at this share the rises undo half of the falls."""
TARGET_RELATIVE_STEP = 0.005
"""||update|| / ||weights||: the upper end of what is usual in networks that train well."""
LOW_RATE = 0.3
"""Multiple of the default rate below which a rate is not too high, unless the loss is not finite."""


def evidence(record: Record) -> Verdict | None:
    """Learning rate too high, shown by at least one of:

    - a loss that is not finite;
    - skill below 0.5 and a loss of twice the baseline: as a rise, or with steps of a tenth of the weights' norm, or at
      a rate above the default one unless the loss has only fallen since the start;
    - rises of the mean training loss that undo half of its falls;
    - skill below 0.5 with large steps whose median is at least half as long (linear models, whose weights are small:
      only where the rate is above the default one or the loss rose);
    - skill below 0.5 at more than ten times the default rate, with half of the units dead although their initial weights
      are usual, or with a metric that is short of what is attainable;
    - skill below 0.9 with large steps throughout.

    At more than ten times the default rate a negative skill on validation counts as skill below 0.5. Rises count from
    2 sqrt(2 / n) baselines on, the noise of a mean of n losses whose spread is about their size.
    """
    scale, learnt = record.scale, record.final_skill
    loss, steps, broken = record.get("train_loss"), relative_steps(record), not_finite(record)
    largest = float(steps.value.max()) if steps is not None else None
    # penalties that shrink the weights make any relative step large
    wide = largest is not None and largest >= LARGE_STEP and not strong_penalties(record)
    unusual = record.spec.optimizer.lr > default_rate(record)
    times = record.spec.optimizer.lr / default_rate(record)
    little = learnt is not None and learnt < LOW_SKILL
    # what training learns in very large steps may not generalise
    held = record.skill("val")
    little = little or (times > EXTREME_RATE_FACTOR and len(held) > 0 and float(np.median(held[-3:])) < 0)
    rises, falls, since = rises_and_falls(loss, loss_noise(record))
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
    # after the first large steps the units may be dead, and later steps are small
    dead = record.get("train_dead_units").value[-3:]
    killed = len(dead) > 0 and float(np.median(dead)) >= IDLE_SHARE and not has_unusual_init(record)
    if little and times > EXTREME_RATE_FACTOR and not reasons and (killed or attainment(record) == "short"):
        message = f"The model learns little at {times:.3g} times the default learning rate of the optimizer."
        message += " Most of its units are dead." if killed else ""
        reasons.append((graded_confidence(math.log10(times), 1, 3, 0.55, 0.8), message, int(loss.epoch[0])))
    if not reasons or (times < LOW_RATE and not broken):  # at a low rate the loss may start high, and only falls slowly
        return None
    sure = times > EXTREME_RATE_FACTOR or (unusual and not dropout_dominates(record))
    gain = init_gain(record)
    confidence = min(0.97, max(r[0] for r in reasons) + 0.05 * (len(reasons) - 1) + unlearnt_batch_bonus(record))
    if gain is not None and gain >= LARGE_GAIN and times <= EXTREME_RATE_FACTOR:
        confidence = min(confidence, EXPLAINS_FROM_CONFIDENCE - 0.05)  # the init alone makes the loss large
    return Verdict(
        "learning_rate_too_high",
        round(confidence, 3) if sure else limit_symptom_confidence(record, round(confidence, 3)),
        min(r[2] for r in reasons),
        " ".join(r[1] for r in sorted(reasons, reverse=True)),
        {
            **rate_evidence(record),
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
    risen = np.diff(loss.value, prepend=math.inf) > loss_noise(record)
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


def suspicion(record: Record) -> float:
    """A rate above the default one, long steps, or rises of the training loss."""
    times, steps = record.spec.optimizer.lr / default_rate(record), relative_steps(record)
    if record.spec.start_from is not None or times < LOW_RATE:
        return 0.0
    rises, falls, _ = rises_and_falls(record.get("train_loss"), loss_noise(record))
    sure = 0.1 + 0.25 * min(2.0, max(0.0, math.log10(times)))
    if steps is not None and float(np.median(steps.value)) >= LARGE_STEP / 3:
        sure += 0.15
    if falls and rises >= 0.1 * falls:
        sure += 0.2
    return min(0.8, sure)


def recommendations(record: Record) -> Iterator[Change]:
    usual, learnt, steps = default_rate(record), record.final_skill, relative_steps(record)
    expected = ("train_loss", "down", "steadily from the first epoch on", "Bengio 2012")
    if learnt is not None and learnt >= LOW_SKILL and steps is not None:
        # at the usual rate a network that does learn would need far more epochs
        factor = TARGET_RELATIVE_STEP / max(float(np.median(steps.value)), 1e-12)
        if factor < 1:
            yield Change(
                rate_patch(record, factor), "Each step then changes the weights by about 0.5 % of their norm.", expected
            )
    if record.spec.optimizer.lr > 3 * usual:
        patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": usual}}
        yield Change(patch, f"The default learning rate of {record.spec.optimizer.kind}.", expected)
    yield Change(rate_patch(record, 0.1), "A tenth of the learning rate.", expected)
    slow = {"kind": record.spec.schedule.kind, "warmup_epochs": 1}
    yield Change(
        {**rate_patch(record, 0.3), "schedule": slow},
        "A third of the learning rate, reached by a warm-up of one epoch.",
        expected,
    )


def interventions(record: Record) -> Iterator[Intervention]:
    code = "learning_rate_too_high"
    if record.spec.optimizer.lr > UNUSUAL_RATE * default_rate(record):
        yield standard_rate(record, code)
    yield rate_tenth(record, code, 0.8)
    yield from batch_norm(record, code, 0.35)


CAUSE = Cause(
    code="learning_rate_too_high",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="The steps may be too large to settle in a minimum.",
    # no saturated units: these are a verdict where they are so from the first step on
    explains=LOW_LEARNING | (IDLE - {"saturated_activations"}) | {"overfitting"},
)
