"""Overfitting: the model fits its training samples, and the validation loss pays for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.performance import attainment, performance
from trainkit.diagnose.plateau import PLATEAU_GAIN
from trainkit.diagnose.record import LOW_SKILL, VERY_LOW_SKILL, Record, Series
from trainkit.diagnose.spec_changes import (
    Change,
    early_stop_patch,
    model_patch,
    narrower_patch,
    regularized_patch,
)
from trainkit.diagnose.trends import (
    NOISE_FACTOR,
    RISEN,
    STEADY_TREND,
    generalisation_gap,
    rise_at_end,
    standard_error,
    trend,
)
from trainkit.diagnose.verdicts import Verdict, graded_confidence

WIDE_GAP = 0.15
"""Gap between validation and training loss, as a share of the baseline loss, that counts as overfitting."""
MEMORISED = 0.99
"""Training skill of a model that has memorised its samples."""
WIDE_GAP_MEMORISED = 0.1
"""The gap that counts as overfitting then."""
HARMLESS = 0.4
"""Most confidence where the kept weights are as good as a reference model, ..."""
LARGE_RISE, LARGE_SHARE = 0.2, 0.75
"""... unless the loss behind them rises by this share of that of a constant prediction, and by this one of its own least
value: more epochs do harm then."""
UNLIKELY = 0.5
"""Probability of being short of a reference model below which the kept weights are taken to be as good as it."""
STEADY_RISE = 0.05
"""Least size of a rise that counts because it is steady, as a share of the baseline loss."""


def evidence(record: Record) -> Verdict | None:
    """Overfitting: the validation loss rises from its minimum, or it is far above the training loss.

    Rise, two or more evaluations after the minimum: median of the last 3 - minimum > 2 standard errors of that paired
    difference, while the training loss fell. Where the paired error was not logged: > 2 sqrt(se_last^2 + se_min^2), or
    a steady rise (z > 3) of more than se_min and 0.05 of the baseline.
    Gap at the end: validation - training > 2 standard errors, of the losses or of the accuracies (a few samples may
    dominate a loss), and > 0.15 of the baseline (0.1 with a training skill of 0.99).
    Where the kept weights come close to what is attainable, memorising did no harm: it is only suspected then, unless the
    loss behind them has risen by 0.2 of the baseline and by 0.75 of its least value. So is a gap alone where they are not
    clearly short of it.
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
    least = max(LARGE_RISE * scale, LARGE_SHARE * float(val.value[best]))
    large = rising and not stopped_early and rise >= least
    unclear = not rising and record.reference and attainment(record) == "unclear"
    if not large and (unclear or _as_good_as_reference(record)):
        sure = min(sure, HARMLESS)
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


def _as_good_as_reference(record: Record) -> bool:
    """Return whether the kept weights come close to a reference model, or are better than one on a small part."""
    reached = performance(record)
    if reached is None or reached.attainable is None:
        return False
    return reached.attainment == "close" or (reached.shortfall or 0.0) < UNLIKELY


def _accuracy_gap_is_real(record: Record, step: int) -> bool:
    """Return whether training accuracy exceeds validation accuracy at that step by more than 2 standard errors."""
    train, val, n = record.get("train_accuracy"), record.get("val_accuracy"), record.parts[1]
    at = np.flatnonzero(val.step == step)
    if not len(train) or not len(at) or not n:
        return False
    share = (float(val.value[at[0]]) * n + 1) / (n + 2)  # a share of 1 is not without error
    return float(np.interp(step, train.step, train.value)) - share > NOISE_FACTOR * math.sqrt(share * (1 - share) / n)


def _paired_noise(record: Record, loss: Series, index: int, otherwise: float) -> float:
    """Return 2 standard errors of the rise over the minimum before it, where logged; else `otherwise`."""
    errors = record.get("val_loss_rise_se")
    at = np.flatnonzero(errors.step == loss.step[index])
    return NOISE_FACTOR * float(errors.value[at[0]]) if len(at) and errors.value[at[0]] > 0 else otherwise


def suspicion(record: Record) -> float:
    """Training is ahead of validation by 0.1 of the baseline loss, or the validation loss has risen from its minimum."""
    val, scale, gap = record.get("val_loss").value, record.scale, generalisation_gap(record)
    if gap is None or not scale or not len(val):
        return 0.0
    return min(0.6, max(2 * (gap - 0.05), 4 * (rise_at_end(record) - RISEN), 0.0))


def observable(record: Record) -> bool:
    return len(record.get("val_loss")) >= 3


def recommendations(record: Record) -> Iterator[Change]:
    model = record.spec.model
    form = record.resolved.sample.form if record.resolved else ""
    if form == "image" and not record.spec.augment:
        moves = [{"kind": "translate", "fraction": 0.1}, {"kind": "rotate", "degrees": 10}]
        expected = (
            "val_loss",
            "down",
            "more than penalties give, where such changes keep the class",
            "Simard et al. 2003",
        )
        yield Change({"augment": moves}, "Shifted and rotated images are new samples of the same classes.", expected)
    yield Change(
        regularized_patch(record),
        "Dropout and weight decay make it harder to memorise single samples.",
        ("val_loss", "down", "some of the gap to training", "Srivastava et al. 2014; Loshchilov and Hutter 2019"),
    )
    if hasattr(model, "dropout") and model.kind != "linear" and (model.dropout or 0) < 0.2:
        yield Change(
            model_patch(record, dropout=0.2),
            "Dropout makes it harder to memorise single samples.",
            ("val_loss", "down", "a little", "Srivastava et al. 2014"),
        )
    if (smaller := narrower_patch(record)) is not None:
        yield Change(
            smaller,
            "A network of half the width can memorise less.",
            ("val_loss", "down", "a little", "rule of thumb"),
        )
    if rise_at_end(record) > RISEN:
        yield Change(
            early_stop_patch(record),
            "Later epochs only increase the gap between validation and training.",
            ("seconds", "down", "the epochs behind the best one; the model stays the same", "this record"),
        )


def interventions(record: Record) -> Iterator[Intervention]:
    code, model = "overfitting", record.spec.model
    why = "Dropout and weight decay make it harder to memorise single samples."
    yield Intervention("regularisation", code, regularized_patch(record), "val_loss", why, 0.7)
    if model.kind != "linear" and hasattr(model, "dropout") and (model.dropout or 0) < 0.2:
        why = "A little dropout makes it harder to memorise single samples."
        yield Intervention("dropout", code, model_patch(record, dropout=0.2), "val_loss", why, 0.6)
    if (smaller := narrower_patch(record)) is not None:
        why = "A network of half the width can memorise less."
        yield Intervention("half_the_width", code, smaller, "val_loss", why, 0.3)


CAUSE = Cause(
    code="overfitting",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="The model may fit its training samples better than others of the same kind.",
    lowers_skill=False,
    explains=frozenset(),
)
