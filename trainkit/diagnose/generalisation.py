"""Rules that compare training and validation: overfitting, underfitting, optimization failure, stopped too early."""

from __future__ import annotations

import math

import numpy as np

from trainkit.diagnose.capacity import (
    bottleneck,
    dropout_dominates,
    limit_symptom_confidence,
    parameters_to_memorise,
    strong_penalties,
    too_deep,
)
from trainkit.diagnose.rates import LOW_SKILL
from trainkit.diagnose.record import Record, Series
from trainkit.diagnose.sanity_checks import interpret_sanity_checks
from trainkit.diagnose.trends import MIN_EVALUATIONS, NOISE_FACTOR, STEADY_TREND, standard_error, still_gaining, trend
from trainkit.diagnose.verdicts import EXPLAINS_FROM_CONFIDENCE, Verdict, graded_confidence

WIDE_GAP = 0.15
"""Gap between validation and training loss, as a share of the baseline loss, that counts as overfitting."""
MEMORISED = 0.99
"""Training skill of a model that has memorised its samples."""
WIDE_GAP_MEMORISED = 0.1
"""The gap that counts as overfitting then."""
VERY_LOW_SKILL = 0.25
"""Skill above which the data may hold no more: in many tables half of the variance is noise."""
NO_SKILL = 0.1
"""A skill below this at the end counts as a plateau, whatever the last epochs gained."""
DEEP_PLATEAU_SKILL = 0.75
"""A network of 20 or more plain layers with a plateau below this skill is too deep to train."""
PLATEAU_GAIN = 0.02
"""Gain of the last quarter of the evaluations, as a share of the baseline loss, below which training is on a plateau."""
STEADY_RISE = 0.05
"""Least size of a rise that counts because it is steady, as a share of the baseline loss."""
SANITY_CHECK_SERIES = ("sanity_check_small_model_loss", "sanity_check_first_batch_loss")


def overfitting(record: Record) -> Verdict | None:
    """Overfitting: the validation loss rises from its minimum, or it is far above the training loss.

    Rise, two or more evaluations after the minimum: median of the last 3 - minimum > 2 standard errors of that paired
    difference, while the training loss fell. Where the paired error was not logged: > 2 sqrt(se_last^2 + se_min^2), or
    a steady rise (z > 3) of more than se_min and 0.05 of the baseline.
    Gap at the end: validation - training > 2 standard errors, of the losses or of the accuracies (a few samples may
    dominate a loss), and > 0.15 of the baseline (0.1 with a training skill of 0.99).
    After an early stop the best weights are kept, so only the gap at the best evaluation counts. A skill below 0.25
    gives no verdict.
    """
    train, val, scale = record.get("train_loss"), record.get("val_loss"), record.scale
    learnt = record.final_skill
    if len(val) < 3 or not len(train) or not scale or learnt is None or learnt < VERY_LOW_SKILL:
        return None
    best = int(val.value.argmin())
    stopped_early = record.stop_reason == "early_stop"
    end = best if stopped_early else len(val) - 1
    last = float(np.median(val.value[-min(3, len(val) - best) :])) if best < end else float(val.value[end])
    se_best, se_last = standard_error(record, val, best), standard_error(record, val, end)
    rise, noise = last - float(val.value[best]), NOISE_FACTOR * math.hypot(se_best, se_last)
    noise = _paired_noise(record, val, len(val) - 1, noise)
    train_best = float(np.interp(val.step[best], train.step, train.value))
    fell = train_best - float(train.value[-1])
    gap = last - (train_best if stopped_early else float(train.value[-1]))
    steady = trend(val.value[best : end + 1])
    steadily = steady > STEADY_TREND and rise > max(se_best, STEADY_RISE * scale)
    rising = fell > 0 and end - best >= 2 and (rise > max(noise, PLATEAU_GAIN * scale) or steadily)
    claimed = record.skill("train")
    claim = float(np.interp(val.step[end], train.step, claimed)) if len(claimed) == len(train) else 0.0
    wide = WIDE_GAP if claim < MEMORISED else WIDE_GAP_MEMORISED
    beyond_noise = gap > NOISE_FACTOR * se_last or _accuracy_gap_is_real(record, int(val.step[end]))
    apart = beyond_noise and gap > wide * scale and claim >= LOW_SKILL
    if not rising and not apart:
        return None
    sure = max(
        graded_confidence(rise / max(noise, PLATEAU_GAIN * scale), 1, 3) if rising else 0.0,
        graded_confidence(gap / scale, wide, 3 * WIDE_GAP, 0.5, 0.85) if apart else 0.0,
    )
    parted = np.flatnonzero(val.value - np.interp(val.step, train.step, train.value) > wide * scale)
    since = int(val.epoch[min(best + 1, len(val) - 1)]) if rising or not len(parted) else int(val.epoch[parted[0]])
    message = (
        f"Since epoch {int(val.epoch[best])} the validation loss rose from {val.value[best]:.4g} to {last:.4g}, while the "
        f"training loss fell from {train_best:.4g} to {train.value[-1]:.4g}."
        if rising
        else f"The validation loss ({last:.4g}) is {gap:.3g} higher than the training loss ({train.value[-1]:.4g})."
    )
    return Verdict(
        "overfitting",
        round(min(0.97, float(sure) + 0.05 * bool(rising and apart)), 3),
        since,
        message,
        {
            "best_epoch": int(val.epoch[best]),
            "best_val_loss": float(val.value[best]),
            "last_val_loss": last,
            "rise": rise,
            "rise_noise": noise,
            "rise_trend": steady,
            "gap": gap,
            "gap_noise": NOISE_FACTOR * se_last,
            "baseline_loss": record.baseline,
            "parameters": record.parameters,
            "training_samples": record.parts[0],
            "series": ["train_loss", "val_loss", "val_loss_se", "train_accuracy", "val_accuracy"],
        },
    )


def underfitting_model_bias(record: Record) -> Verdict | None:
    """Underfitting: training is on a plateau of low skill, and the model or its penalties explain it.

    With a skill below 0.5: strong penalties, or a layer narrower than K - 1 for K classes (Fisher 1936; Rao 1948), or
    sanity checks that show it. With a skill below 0.25: fewer than 2 n + d parameters (Zhang et al. 2017).
    Dropout that keeps the training loss 0.15 of the baseline above the validation loss counts without a plateau.
    """
    plateau = _low_skill_plateau(record)
    low_skill = plateau or _held_back_by_dropout(record)
    if low_skill is None:
        return None
    penalties, narrow, checks = strong_penalties(record), bottleneck(record), interpret_sanity_checks(record)
    capacity, needed = record.parameters, parameters_to_memorise(record)
    small = capacity is not None and needed is not None and capacity < needed
    confirmed = checks is not None and checks.code == "underfitting_model_bias"
    if checks is not None and checks.code is not None:
        small = confirmed
    limit = LOW_SKILL if penalties or narrow or confirmed else VERY_LOW_SKILL
    if not (small or penalties) or low_skill[0] >= limit:
        return None
    (learnt, since), samples = low_skill, record.parts[0]
    why = (
        f"{capacity} parameters are too few to memorise {samples} samples"
        if small
        else f"strong penalties ({', '.join(penalties)}) keep the loss high"
    )
    why = f"a layer of width {narrow} is too narrow for {len(record.classes)} classes" if narrow else why
    why = checks.message if confirmed and checks is not None else why
    sure = graded_confidence(limit - learnt, 0, limit, 0.5, 0.7)
    return Verdict(
        "underfitting_model_bias",
        max(sure, checks.confidence) if confirmed and checks is not None else sure,
        since,
        f"Training {'reached a plateau' if plateau else 'ended'} with {learnt:.0%} of the loss of a constant prediction "
        f"removed: {why}.",
        {
            "skill": learnt,
            "threshold": limit,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "narrowest_layer": narrow,
            "penalties": penalties,
            "sanity_checks": checks.evidence if checks is not None else None,
            "cannot_tell": "Noise in the data looks the same. If a larger model ends with no lower loss, it is noise.",
            "series": ["train_loss", "val_loss", *SANITY_CHECK_SERIES],
        },
    )


def optimization_failure(record: Record) -> Verdict | None:
    """Optimization failure: a plateau of low skill that neither capacity nor penalties explain.

    One of: a skill below 0.25 with 2 n + d parameters or more and no strong penalty; sanity checks that show it, with a
    skill below 0.5; 20 or more plain layers that learnt next to nothing (`_lost_in_depth`).
    """
    deep, checks = _lost_in_depth(record), interpret_sanity_checks(record)
    low_skill = _low_skill_plateau(record) or ((record.final_skill or 0.0, 1) if deep else None)
    capacity, needed = record.parameters, parameters_to_memorise(record)
    if low_skill is None or strong_penalties(record) or capacity is None or needed is None:
        return None
    confirmed = checks is not None and checks.code == "optimization_failure"
    if capacity < needed if checks is None or checks.code is None else not confirmed:
        return None
    learnt, since = low_skill
    if learnt >= VERY_LOW_SKILL and not deep and not confirmed:
        return None
    why = f"although {capacity} parameters are enough to memorise {record.parts[0]} samples"
    why += ". So many layers without skip connections pass on hardly any signal" if deep else ""
    sure = 0.8 if deep else graded_confidence(VERY_LOW_SKILL - learnt, 0, VERY_LOW_SKILL, 0.5, 0.8)
    return Verdict(
        "optimization_failure",
        max(sure, checks.confidence) if confirmed and checks is not None else sure,
        since,
        f"Training ended with {learnt:.0%} of the loss of a constant prediction removed, "
        f"{f'and {checks.message}' if confirmed and checks is not None else why}.",
        {
            "skill": learnt,
            "threshold": VERY_LOW_SKILL,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "sanity_checks": checks.evidence if checks is not None else None,
            "cannot_tell": None
            if confirmed
            else "Only a smaller model with a lower final loss would prove it. Run the sanity checks to compare.",
            "series": ["train_loss", "train_grad_norm", "train_lr", *SANITY_CHECK_SERIES],
        },
    )


def stopped_too_early(record: Record) -> Verdict | None:
    """Stopped too early: the run ended while the validation loss was still falling (`still_gaining`)."""
    if not record.final or record.state == "failed" or record.stop_reason == "diverged":
        return None
    found = still_gaining(record)
    if found is None:
        return None
    return Verdict(
        "stopped_too_early",
        min(
            limit_symptom_confidence(
                record, graded_confidence(found.gain, found.threshold, 4 * found.threshold, 0.5, 0.9)
            ),
            1.0
            if _held_back_by_dropout(record) is None
            else EXPLAINS_FROM_CONFIDENCE - 0.05,  # more epochs would not help against the dropout
        ),
        found.epoch,
        f"Training ended ({record.stop_reason or record.state}) while {found.series} was still falling: by "
        f"{found.gain:.3g} since epoch {found.since_epoch}.",
        {
            "gain_of_last_quarter": found.gain,
            "noise": found.noise,
            "threshold": found.threshold,
            "stop_reason": record.stop_reason,
            "epochs": record.spec.train.epochs,
            "series": [found.series, f"{found.series}_se", "train_loss"],
        },
    )


def _low_skill_plateau(record: Record) -> tuple[float, int] | None:
    """Return (skill, first epoch of the plateau) for a skill below 0.5 on a plateau, or below 0.1; else None."""
    loss, learnt, scale = record.get("train_loss"), record.final_skill, record.scale
    if len(loss) < MIN_EVALUATIONS or learnt is None or learnt >= LOW_SKILL or not scale:
        return None
    if not _is_plateau(record) and learnt >= NO_SKILL:
        return None
    near = np.flatnonzero(np.abs(loss.value - loss.value[-1]) <= PLATEAU_GAIN * scale)
    return learnt, int(loss.epoch[near[0]])


def _is_plateau(record: Record) -> bool:
    """Return whether the training loss gained at most 0.02 of the baseline in the last quarter of the evaluations."""
    loss, scale = record.get("train_loss"), record.scale
    if len(loss) < MIN_EVALUATIONS or not scale:
        return False
    start = len(loss) - 1 - max(1, len(loss) // 4)
    # medians at both ends, so that a single good epoch is no gain
    gained = float(np.median(loss.value[max(0, start - 1) : start + 2])) - float(np.median(loss.value[-2:]))
    return gained <= PLATEAU_GAIN * scale


def _accuracy_gap_is_real(record: Record, step: int) -> bool:
    """Return whether training accuracy exceeds validation accuracy at that step by more than 2 standard errors."""
    train, val, n = record.get("train_accuracy"), record.get("val_accuracy"), record.parts[1]
    at = np.flatnonzero(val.step == step)
    if not len(train) or not len(at) or not n:
        return False
    share = (float(val.value[at[0]]) * n + 1) / (n + 2)  # a share of 1 is not without error
    return float(np.interp(step, train.step, train.value)) - share > NOISE_FACTOR * math.sqrt(share * (1 - share) / n)


def _lost_in_depth(record: Record) -> bool:
    """Return whether an ended run of 20 or more plain layers learnt next to nothing.

    One of: no finite loss; a skill below 0.5 (0.75 on a plateau); a skill below 0.1 for half of the evaluations.
    """
    if not (too_deep(record) and record.final):
        return False
    learnt, skill = record.final_skill, record.skill("train")
    limit = DEEP_PLATEAU_SKILL if _is_plateau(record) else LOW_SKILL
    late = len(skill) >= MIN_EVALUATIONS and float(np.median(skill)) < NO_SKILL
    return learnt is None or learnt < limit or late


def _held_back_by_dropout(record: Record) -> tuple[float, int] | None:
    """Return (training skill, first epoch) where dropout dominates the training loss and the skill is below 0.5."""
    skill = record.skill("train")
    if not dropout_dominates(record) or not len(skill) or skill[-1] >= LOW_SKILL:
        return None
    return float(skill[-1]), int(record.get("train_loss").epoch[0])


def _paired_noise(record: Record, loss: Series, index: int, otherwise: float) -> float:
    """Return 2 standard errors of the rise over the minimum before it, where logged; else `otherwise`."""
    errors = record.get("val_loss_rise_se")
    at = np.flatnonzero(errors.step == loss.step[index])
    return NOISE_FACTOR * float(errors.value[at[0]]) if len(at) and errors.value[at[0]] > 0 else otherwise
