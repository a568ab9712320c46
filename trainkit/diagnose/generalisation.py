"""Training against validation: over-fitting, under-fitting, ended too early, and an optimisation that gets nowhere."""

from __future__ import annotations

import math

import numpy as np

from trainkit.diagnose.capacity import bottleneck, doubted, drowned, held_back, memorising, too_deep
from trainkit.diagnose.probes import reading
from trainkit.diagnose.rates import LITTLE_LEARNT
from trainkit.diagnose.record import Record, Series
from trainkit.diagnose.trends import FEWEST, NOISE, SURE_TREND, standard_error, still_gaining, trend
from trainkit.diagnose.verdicts import SURE, Verdict, graded

WIDE_GAP = 0.15
"""Of the baseline's loss: the part of what can be learnt that training claims and validation does not confirm."""
ALL_LEARNT = 0.99
"""Of the baseline's loss: training has the samples by heart."""
GAP_OF_ALL = 0.1
"""Of the baseline's loss: the gap that is too wide then."""
BARELY_LEARNT = 0.25
"""Of the baseline's loss: above it, data may hold no more. Half of the variance is noise in many a table of numbers."""
NEXT_TO_NOTHING = 0.1
"""Of the baseline's loss: who has learnt no more in a whole run stands still, whatever the last epochs bring."""
WELL_LEARNT = 0.75
"""Of the baseline's loss: short of it a network of 20 plain layers that stands still is in its own way."""
FLAT = 0.02
"""Of the baseline's loss: what the last quarter of the evaluations gained, below which training stands still."""
STEADY_RISE = 0.05
"""Of the baseline's loss: what a rise must come to that is told by its steadiness."""
PROBED = ("probe_small_model_loss", "probe_first_batch_loss")


def overfitting(record: Record) -> Verdict | None:
    """Validation loss against its least value and against training, both beyond the noise.

    Rise, two evaluations after the least or later: (median of the last 3) - least > 2 standard errors of that
    difference, by pairs of the same samples, while the training loss fell further; of older records, without it, > 2
    sqrt(se_last^2 + se_least^2), which is wider, so that a steady rise (z > 3) counts from 1 se_least and 0.05 of the
    baseline on. Gap at the end: validation - training > 2 se, of the losses or, as a few samples may make the loss, of
    the accuracies, and > 0.15 of the baseline, 0.1 where training has nothing left to learn (0.99 of it is gone). A run
    that an early-stop rule has ended keeps its best: there the gap at the best counts alone. Where not even a quarter of
    the baseline's loss is gone there is nothing to overdo.
    """
    train, val, scale = record.get("train_loss"), record.get("val_loss"), record.scale
    learnt = record.learnt
    if len(val) < 3 or not len(train) or not scale or learnt is None or learnt < BARELY_LEARNT:
        return None
    best = int(val.value.argmin())
    tamed = record.stop_reason == "early_stop"
    end = best if tamed else len(val) - 1
    last = float(np.median(val.value[-min(3, len(val) - best) :])) if best < end else float(val.value[end])
    se_best, se_last = standard_error(record, val, best), standard_error(record, val, end)
    rise, noise = last - float(val.value[best]), NOISE * math.hypot(se_best, se_last)
    noise = _paired(record, val, len(val) - 1, noise)
    train_best = float(np.interp(val.step[best], train.step, train.value))
    fell = train_best - float(train.value[-1])
    gap = last - (train_best if tamed else float(train.value[-1]))
    steady = trend(val.value[best : end + 1])
    steadily = steady > SURE_TREND and rise > max(se_best, STEADY_RISE * scale)
    rising = fell > 0 and end - best >= 2 and (rise > max(noise, FLAT * scale) or steadily)
    claimed = record.skill("train")
    claim = float(np.interp(val.step[end], train.step, claimed)) if len(claimed) == len(train) else 0.0
    wide = WIDE_GAP if claim < ALL_LEARNT else GAP_OF_ALL
    told = gap > NOISE * se_last or _answers_apart(record, int(val.step[end]))
    apart = told and gap > wide * scale and claim >= LITTLE_LEARNT
    if not rising and not apart:
        return None
    sure = max(
        graded(rise / max(noise, FLAT * scale), 1, 3) if rising else 0.0,
        graded(gap / scale, wide, 3 * WIDE_GAP, 0.5, 0.85) if apart else 0.0,
    )
    parted = np.flatnonzero(val.value - np.interp(val.step, train.step, train.value) > wide * scale)
    since = int(val.epoch[min(best + 1, len(val) - 1)]) if rising or not len(parted) else int(val.epoch[parted[0]])
    message = (
        f"Since epoch {int(val.epoch[best])} the validation loss has risen from {val.value[best]:.4g} to {last:.4g} "
        f"while the training loss fell from {train_best:.4g} to {train.value[-1]:.4g}."
        if rising
        else f"The validation loss ({last:.4g}) is {gap:.3g} above that of training ({train.value[-1]:.4g})."
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
            "gap_noise": NOISE * se_last,
            "baseline_loss": record.baseline,
            "parameters": record.parameters,
            "training_samples": record.parts[0],
            "series": ["train_loss", "val_loss", "val_loss_se", "train_accuracy", "val_accuracy"],
        },
    )


def underfitting_model_bias(record: Record) -> Verdict | None:
    """Training stands still with less than half of the baseline's loss gone under strong penalties, or through a layer
    narrower than K - 1 (so many directions tell K classes apart: Fisher 1936; Rao 1948); or with less than a quarter
    gone and fewer than 2 n + d parameters (what fits any labels of n samples in d dimensions: Zhang et al. 2017).
    Where probes were run, these say it in place of the parameters, from less than half on. Dropout of half of the units
    or more that keeps the training loss 0.15 of the baseline above validation's is such a penalty, still or not."""
    still = _stuck(record)
    stuck = still or _throttled(record)
    if stuck is None:
        return None
    held, narrow, probed = held_back(record), bottleneck(record), reading(record)
    capacity, needed = record.parameters, memorising(record)
    small = capacity is not None and needed is not None and capacity < needed
    told = probed is not None and probed.code == "underfitting_model_bias"
    if probed is not None and probed.code is not None:
        small = told
    limit = LITTLE_LEARNT if held or narrow or told else BARELY_LEARNT
    if not (small or held) or stuck[0] >= limit:
        return None
    (learnt, since), samples = stuck, record.parts[0]
    why = f"{capacity} parameters cannot fit {samples} samples by heart" if small else f"{', '.join(held)} hold it back"
    why = f"a layer of width {narrow} cannot tell {len(record.classes)} classes apart" if narrow else why
    why = probed.message if told and probed is not None else why
    sure = graded(limit - learnt, 0, limit, 0.5, 0.7)
    return Verdict(
        "underfitting_model_bias",
        max(sure, probed.confidence) if told and probed is not None else sure,
        since,
        f"Training {'stands still' if still else 'ends'} with {learnt:.0%} of the baseline's loss gone, and {why}.",
        {
            "skill": learnt,
            "threshold": limit,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "narrowest_layer": narrow,
            "penalties": held,
            "probes": probed.evidence if probed is not None else None,
            "cannot_tell": "Noise that no model explains looks the same: a larger model that ends no lower would show it.",
            "series": ["train_loss", "val_loss", *PROBED],
        },
    )


def optimization_failure(record: Record) -> Verdict | None:
    """Training stands still with less than a quarter of the baseline's loss gone, though the model has 2 n + d
    parameters or more and no strong penalty; or it has 20 plain layers and got nowhere (`_lost_in_depth`). Where probes
    were run, these say it in place of the parameters, from less than half on."""
    deep, probed = _lost_in_depth(record), reading(record)
    stuck = _stuck(record) or ((record.learnt or 0.0, 1) if deep else None)
    capacity, needed = record.parameters, memorising(record)
    if stuck is None or held_back(record) or capacity is None or needed is None:
        return None
    proven = probed is not None and probed.code == "optimization_failure"
    if capacity < needed if probed is None or probed.code is None else not proven:
        return None
    learnt, since = stuck
    if learnt >= BARELY_LEARNT and not deep and not proven:
        return None
    why = f"though {capacity} parameters could fit {record.parts[0]} samples by heart"
    why += ": a signal hardly comes through so many plain layers" if deep else ""
    sure = 0.8 if deep else graded(BARELY_LEARNT - learnt, 0, BARELY_LEARNT, 0.5, 0.8)
    return Verdict(
        "optimization_failure",
        max(sure, probed.confidence) if proven and probed is not None else sure,
        since,
        f"Training ends with {learnt:.0%} of the baseline's loss gone, "
        f"{f'and {probed.message}' if proven and probed is not None else why}.",
        {
            "skill": learnt,
            "threshold": BARELY_LEARNT,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "probes": probed.evidence if probed is not None else None,
            "cannot_tell": None
            if proven
            else "A smaller model that ends lower would prove it; this record has none to compare with.",
            "series": ["train_loss", "train_grad_norm", "train_lr", *PROBED],
        },
    )


def stopped_too_early(record: Record) -> Verdict | None:
    """Ended while validation still gained: over the last quarter of the evaluations more than 2 standard errors and
    0.05 of the baseline, with its best at the last evaluation or the one before."""
    if not record.final or record.state == "failed" or record.stop_reason == "diverged":
        return None
    found = still_gaining(record)
    if found is None:
        return None
    return Verdict(
        "stopped_too_early",
        min(
            doubted(record, graded(found.gain, found.threshold, 4 * found.threshold, 0.5, 0.9)),
            1.0 if _throttled(record) is None else SURE - 0.05,  # more epochs would not lift what holds it back
        ),
        found.epoch,
        f"Training ended ({record.stop_reason or record.state}) while {found.series} still fell: by {found.gain:.3g} "
        f"since epoch {found.since_epoch}.",
        {
            "gain_of_last_quarter": found.gain,
            "noise": found.noise,
            "threshold": found.threshold,
            "stop_reason": record.stop_reason,
            "epochs": record.spec.train.epochs,
            "series": [found.series, f"{found.series}_se", "train_loss"],
        },
    )


def _stuck(record: Record) -> tuple[float, int] | None:
    """(skill, epoch since when training stands still) where it does with little learnt, or has learnt next to nothing."""
    loss, learnt, scale = record.get("train_loss"), record.learnt, record.scale
    if len(loss) < FEWEST or learnt is None or learnt >= LITTLE_LEARNT or not scale:
        return None
    if not _stands_still(record) and learnt >= NEXT_TO_NOTHING:
        return None
    near = np.flatnonzero(np.abs(loss.value - loss.value[-1]) <= FLAT * scale)
    return learnt, int(loss.epoch[near[0]])


def _stands_still(record: Record) -> bool:
    """Whether the last quarter of the evaluations gained no more than 0.02 of the baseline in training."""
    loss, scale = record.get("train_loss"), record.scale
    if len(loss) < FEWEST or not scale:
        return False
    start = len(loss) - 1 - max(1, len(loss) // 4)
    # both ends by medians: one lucky epoch is no gain
    gained = float(np.median(loss.value[max(0, start - 1) : start + 2])) - float(np.median(loss.value[-2:]))
    return gained <= FLAT * scale


def _answers_apart(record: Record, step: int) -> bool:
    """Whether training's accuracy at that step is beyond validation's by more than 2 standard errors."""
    train, val, n = record.get("train_accuracy"), record.get("val_accuracy"), record.parts[1]
    at = np.flatnonzero(val.step == step)
    if not len(train) or not len(at) or not n:
        return False
    share = (float(val.value[at[0]]) * n + 1) / (n + 2)  # a share of 1 is not without error
    return float(np.interp(step, train.step, train.value)) - share > NOISE * math.sqrt(share * (1 - share) / n)


def _lost_in_depth(record: Record) -> bool:
    """A run of 20 plain layers that ended with nothing finite, with less than half of the baseline's loss gone (of one
    that stands still less than three quarters), or that had learnt next to nothing for half of its time."""
    if not (too_deep(record) and record.final):
        return False
    learnt, skill = record.learnt, record.skill("train")
    limit = WELL_LEARNT if _stands_still(record) else LITTLE_LEARNT
    late = len(skill) >= FEWEST and float(np.median(skill)) < NEXT_TO_NOTHING
    return learnt is None or learnt < limit or late


def _throttled(record: Record) -> tuple[float, int] | None:
    """(training's skill, its first epoch) where dropout keeps it that far behind validation, and below a half."""
    skill = record.skill("train")
    if not drowned(record) or not len(skill) or skill[-1] >= LITTLE_LEARNT:
        return None
    return float(skill[-1]), int(record.get("train_loss").epoch[0])


def _paired(record: Record, loss: Series, index: int, otherwise: float) -> float:
    """2 standard errors of that value's rise over the least before it, where they were logged and it did rise."""
    errors = record.get("val_loss_rise_se")
    at = np.flatnonzero(errors.step == loss.step[index])
    return NOISE * float(errors.value[at[0]]) if len(at) and errors.value[at[0]] > 0 else otherwise
