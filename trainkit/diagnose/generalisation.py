"""Training against validation: over-fitting, under-fitting, ended too early, and an optimisation that gets nowhere."""

from __future__ import annotations

import math

import numpy as np

from trainkit.diagnose.probes import reading
from trainkit.diagnose.rates import LITTLE_LEARNT
from trainkit.diagnose.record import Record, Series
from trainkit.diagnose.verdicts import Verdict, graded

NOISE = 2.0
"""Standard errors that a difference must exceed: chance alone does so in 1 of 20."""
WIDE_GAP = 0.15
"""Of the baseline's loss: the part of what can be learnt that training claims and validation does not confirm."""
FLAT = 0.02
"""Of the baseline's loss: what the last quarter of the evaluations gained, below which training stands still."""
STILL_GAINING = 0.05
"""Of the baseline's loss: what the last quarter gained, from which on more epochs plainly pay."""
FEWEST = 4
"""Evaluations from which on a course is one."""
PROBED = ("probe_small_model_loss", "probe_first_batch_loss")
STRONG = {"l2_share": 0.1, "weight_decay": 0.1, "dropout": 0.5, "l1_share": 0.1}
"""Penalties from which on they may be what keeps the training loss high; `_share` is of the number of samples."""


def overfitting(record: Record) -> Verdict | None:
    """Validation loss against its least value and against training, both beyond the noise.

    Rise: (median of the last 3) - least > 2 standard errors of that difference, by pairs of the same samples, while the
    training loss fell further; of older records, without it, > 2 sqrt(se_last^2 + se_least^2), which is wider. Gap at
    the end: validation - training > 2 se and > 0.15 of the baseline.
    """
    train, val, scale = record.get("train_loss"), record.get("val_loss"), record.scale
    if len(val) < 3 or not len(train) or not scale:
        return None
    best = int(val.value.argmin())
    last = float(np.median(val.value[-min(3, len(val) - best) :])) if best < len(val) - 1 else float(val.value[-1])
    se_best, se_last = _errors(record, val, best), _errors(record, val, len(val) - 1)
    rise, noise = last - float(val.value[best]), NOISE * math.hypot(se_best, se_last)
    noise = _paired(record, val, len(val) - 1, noise)
    train_best = float(np.interp(val.step[best], train.step, train.value))
    fell = train_best - float(train.value[-1])
    gap = last - float(train.value[-1])
    rising = rise > max(noise, FLAT * scale) and fell > 0
    apart = gap > max(NOISE * se_last, WIDE_GAP * scale) and record.skill("train")[-1:].sum() >= LITTLE_LEARNT
    if not rising and not apart:
        return None
    sure = max(
        graded(rise / max(noise, FLAT * scale), 1, 3) if rising else 0.0,
        graded(gap / scale, WIDE_GAP, 3 * WIDE_GAP, 0.5, 0.85) if apart else 0.0,
    )
    wide = np.flatnonzero(val.value - np.interp(val.step, train.step, train.value) > WIDE_GAP * scale)
    since = int(val.epoch[min(best + 1, len(val) - 1)]) if rising or not len(wide) else int(val.epoch[wide[0]])
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
            "gap": gap,
            "gap_noise": NOISE * se_last,
            "baseline_loss": record.baseline,
            "parameters": record.parameters,
            "training_samples": record.parts[0],
            "series": ["train_loss", "val_loss", "val_loss_se", "train_accuracy", "val_accuracy"],
        },
    )


def underfitting_model_bias(record: Record) -> Verdict | None:
    """Training stands still with little learnt, validation close to it, and the model cannot do more: fewer than
    2 n + d parameters (what fits any labels of n samples in d dimensions: Zhang et al. 2017), or strong penalties.
    Where probes were run, these say it in place of the parameters."""
    stuck = _stuck(record)
    if stuck is None:
        return None
    held, probed = _held_back(record), reading(record)
    capacity, needed = record.parameters, _memorising(record)
    small = capacity is not None and needed is not None and capacity < needed
    told = probed is not None and probed.code == "underfitting_model_bias"
    if probed is not None and probed.code is not None:
        small = told
    if not small and not held:
        return None
    (learnt, since), samples = stuck, record.parts[0]
    why = f"{capacity} parameters cannot fit {samples} samples by heart" if small else f"{', '.join(held)} hold it back"
    why = probed.message if told and probed is not None else why
    sure = graded(LITTLE_LEARNT - learnt, 0, LITTLE_LEARNT, 0.4, 0.7)
    return Verdict(
        "underfitting_model_bias",
        max(sure, probed.confidence) if told and probed is not None else sure,
        since,
        f"Training stands still with {learnt:.0%} of the baseline's loss gone, and {why}.",
        {
            "skill": learnt,
            "threshold": LITTLE_LEARNT,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "penalties": held,
            "probes": probed.evidence if probed is not None else None,
            "cannot_tell": "Noise that no model explains looks the same: a larger model that ends no lower would show it.",
            "series": ["train_loss", "val_loss", *PROBED],
        },
    )


def optimization_failure(record: Record) -> Verdict | None:
    """Training stands still with little learnt, though the model has 2 n + d parameters or more and no strong penalty.
    Where probes were run, these say it in place of the parameters."""
    stuck, probed = _stuck(record), reading(record)
    capacity, needed = record.parameters, _memorising(record)
    if stuck is None or _held_back(record) or capacity is None or needed is None:
        return None
    proven = probed is not None and probed.code == "optimization_failure"
    if capacity < needed if probed is None or probed.code is None else not proven:
        return None
    learnt, since = stuck
    why = f"though {capacity} parameters could fit {record.parts[0]} samples by heart"
    sure = graded(LITTLE_LEARNT - learnt, 0, LITTLE_LEARNT, 0.4, 0.8)
    return Verdict(
        "optimization_failure",
        max(sure, probed.confidence) if proven and probed is not None else sure,
        since,
        f"Training stands still with {learnt:.0%} of the baseline's loss gone, "
        f"{f'and {probed.message}' if proven and probed is not None else why}.",
        {
            "skill": learnt,
            "threshold": LITTLE_LEARNT,
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
    name = "val_loss" if len(record.get("val_loss")) else "train_loss"
    loss, scale = record.get(name), record.scale
    if not record.final or record.state == "failed" or len(loss) < FEWEST or not scale:
        return None
    if record.stop_reason == "diverged" or loss.value.argmin() < len(loss) - 2:
        return None
    start = -1 - max(1, len(loss) // 4)
    gain, noise = float(loss.value[start] - loss.value[-1]), NOISE * _errors(record, loss, len(loss) - 1)
    if gain <= max(noise, STILL_GAINING * scale):
        return None
    return Verdict(
        "stopped_too_early",
        graded(gain / scale, STILL_GAINING, 4 * STILL_GAINING, 0.5, 0.9),
        int(loss.epoch[-1]),
        f"Training ended ({record.stop_reason or record.state}) while {name} still fell: by {gain:.3g} since epoch "
        f"{int(loss.epoch[start])}.",
        {
            "gain_of_last_quarter": gain,
            "noise": noise,
            "threshold": STILL_GAINING * scale,
            "stop_reason": record.stop_reason,
            "epochs": record.spec.train.epochs,
            "series": [name, f"{name}_se", "train_loss"],
        },
    )


def _stuck(record: Record) -> tuple[float, int] | None:
    """(skill, epoch since when training stands still) where it does with little learnt."""
    loss, learnt, scale = record.get("train_loss"), record.learnt, record.scale
    if len(loss) < FEWEST or learnt is None or learnt >= LITTLE_LEARNT or not scale:
        return None
    start = -1 - max(1, len(loss) // 4)
    # both ends by medians: one lucky epoch is no gain
    gained = float(np.median(loss.value[start - 1 : start + 2] if start > -len(loss) else loss.value[:2]))
    if gained - float(np.median(loss.value[-2:])) > FLAT * scale:
        return None
    near = np.flatnonzero(np.abs(loss.value - loss.value[-1]) <= FLAT * scale)
    return learnt, int(loss.epoch[near[0]])


def _memorising(record: Record) -> int | None:
    """2 n + d."""
    if record.resolved is None:
        return None
    return 2 * record.parts[0] + record.resolved.sample.size


def _held_back(record: Record) -> list[str]:
    """Penalties of the spec that may keep the training loss high."""
    made, samples = record.spec.regularize, max(1, record.parts[0])
    dropout = max(getattr(record.spec.model, "dropout", 0) or 0, getattr(record.spec.model, "spatial_dropout", 0))
    strengths = {
        "l2": (made.l2 / samples, STRONG["l2_share"]),
        "l1": (made.l1 / samples, STRONG["l1_share"]),
        "weight_decay": (made.weight_decay, STRONG["weight_decay"]),
        "dropout": (dropout, STRONG["dropout"]),
    }
    return [name for name, (strength, limit) in strengths.items() if strength >= limit]


def _paired(record: Record, loss: Series, index: int, otherwise: float) -> float:
    """2 standard errors of that value's rise over the least before it, where they were logged and it did rise."""
    errors = record.get("val_loss_rise_se")
    at = np.flatnonzero(errors.step == loss.step[index])
    return NOISE * float(errors.value[at[0]]) if len(at) and errors.value[at[0]] > 0 else otherwise


def _errors(record: Record, loss: Series, index: int) -> float:
    """The standard error of that value; 0 where none is logged, as of training."""
    errors = record.get("val_loss_se")
    if loss is not record.series.get("val_loss") and not len(errors):
        return 0.0
    at = np.flatnonzero(errors.step == loss.step[index])
    return float(errors.value[at[0]]) if len(at) else 0.0
