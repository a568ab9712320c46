"""How far a step goes, against how far it should: rates too high and too low, gradients that explode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainkit.diagnose.capacity import bottleneck, doubted, drowned, held_back, too_deep
from trainkit.diagnose.probes import first_batch
from trainkit.diagnose.record import Floats, Record, Series
from trainkit.diagnose.trends import still_gaining
from trainkit.diagnose.verdicts import Verdict, graded

ADAPTIVE = ("adagrad", "rmsprop", "adam", "adamw", "nadam", "lion")
"""Optimizers whose step is about `lr` for every weight, whatever the gradient."""
LITTLE_LEARNT = 0.5
"""Below this share of the baseline's loss a constant still explains more than the model does."""
LARGE_STEP = 0.1
"""||update|| / ||weights||: ten steps may replace the weights. About 1e-3 is usual (Karpathy, CS231n)."""
FAR_TOO_HIGH = 10.0
"""Times the optimizer's usual rate: with little learnt the rate is to blame, though a network that died of its first
steps shows no large one any more."""
SHORT_WAY = 0.1
"""Steps that, all in one direction, cannot change the weights by a tenth of their norm."""
TWICE_AS_BAD = 2.0
"""A loss of twice the baseline: worse than to say nothing. Random weights may begin there, but do not rise to it."""
TAKEN_BACK = 0.5
"""Rises of the mean training loss that undo half of its falls."""
LOW_RATE = 1 / 3
"""Of the optimizer's usual rate: from here down a fall that goes on is the rate's doing, above it the end came early."""
MUCH_LEARNT = 0.9
"""Beyond it large steps have done no harm that is worth a word."""
STEADY = 0.5
"""The second half of the training gains at least half of what the first gained; learning curves flatten far more."""
SHARP = 1000.0
"""||g|| ||w|| / baseline: to change the weights by a thousandth of their norm changes the loss by all there is to
gain. Some 10 is usual."""


def relative_steps(record: Record) -> Series | None:
    """||update|| / ||weights|| at each log step: eta ||g|| / ||w||, adaptive methods eta sqrt(P) / ||w||.

    An upper bound for adaptive methods; heavy-ball forms go 1 / (1 - b) as far. None without recorded norms.
    """
    rates, weights, gradients = record.get("train_lr"), record.get("train_weight_norm"), record.get("train_grad_norm")
    optimizer = record.spec.optimizer
    step, at = np.intersect1d(rates.step, weights.step, return_indices=True)[:2]
    if not len(step) or optimizer.kind == "muon":
        return None
    lr, norm = rates.value[at], _at(weights, step)
    if optimizer.kind in ADAPTIVE:
        if record.parameters is None:
            return None
        lengths = lr * math.sqrt(record.parameters)
    else:
        shared = np.isin(step, gradients.step)
        step, lr, norm = step[shared], lr[shared], norm[shared]
        g = _at(gradients, step)
        if record.spec.train.clip_norm is not None:
            g = np.minimum(g, record.spec.train.clip_norm)
        lengths = lr * g
        if optimizer.kind in ("heavy_ball", "nesterov"):
            lengths = lengths / (1 - optimizer.momentum)
    some = norm > 0
    return Series(step[some], _epochs(weights, step[some]), lengths[some] / norm[some]) if some.any() else None


def sharpness(record: Record) -> Series:
    """||g|| ||w|| / baseline at each log step: how much of the loss a small relative change of the weights moves."""
    weights, gradients, scale = record.get("train_weight_norm"), record.get("train_grad_norm"), record.scale
    step = np.intersect1d(weights.step, gradients.step)
    values = _at(weights, step) * _at(gradients, step) / (scale or math.nan)
    return Series(step, _epochs(weights, step), values).finite


def exploding_gradients(record: Record) -> Verdict | None:
    """||g|| ||w|| / baseline >= 1000 at the first log step, under a rate no larger than the optimizer's usual one.

    With a larger rate the rate itself explains it: the weights have gone far before the first look.
    """
    seen = sharpness(record)
    first, usual = seen.value[:1], _usual(record)
    if not len(first) or first[0] < SHARP or record.spec.optimizer.lr > usual:
        return None
    broken = _not_finite(record)
    by_layer = {path: float(s.value[0]) for path, s in record.layers("grad_norm").items() if len(s)}
    confidence = graded(math.log10(first[0]), math.log10(SHARP), math.log10(SHARP) + 2, 0.6 if broken else 0.5)
    return Verdict(
        "exploding_gradients",
        confidence if too_deep(record) else doubted(record, confidence),
        int(seen.epoch[0]),
        f"From the first steps on the gradient is so steep that a change of the weights by 0.1 % moves the loss by "
        f"{first[0] / SHARP:.3g} times all that could be gained.",
        {
            "relative_steepness": float(first[0]),
            "threshold": SHARP,
            "lr": record.spec.optimizer.lr,
            "first_grad_norm_by_layer": by_layer,
            "not_finite_since_step": broken.step[0].item() if broken else None,
            "series": ["train_grad_norm", "train_weight_norm", "train_batch_loss"],
        },
    )


def learning_rate_too_high(record: Record) -> Verdict | None:
    """One of: a loss that is not finite; a rise to twice the baseline with little learnt, or that much under steps of a
    tenth of the weights' norm, or under a rate above the optimizer's usual one unless it has only fallen since its
    beginning; a mean training loss whose rises undo half of its falls; little learnt at more than ten times the usual
    rate, or with such steps, their median at least half as long (of a linear model, whose weights are small, where the
    rate is above the usual one or the loss rose, too); not much learnt with such steps throughout. Little: less than
    half of the baseline's loss is gone, or, at more than ten times the usual rate, none on validation; much: nine
    tenths. Rises count beyond the noise of a mean of n losses, 2 sqrt(2 / n) baselines: losses spread about as much as
    they measure."""
    scale, learnt = record.scale, record.learnt
    loss, steps, broken = record.get("train_loss"), relative_steps(record), _not_finite(record)
    largest = float(steps.value.max()) if steps is not None else None
    # penalties that shrink the weights make any step long beside them
    wide = largest is not None and largest >= LARGE_STEP and not held_back(record)
    unusual = record.spec.optimizer.lr > _usual(record)  # a network that died of its first steps shows none any more
    times = record.spec.optimizer.lr / _usual(record)
    little = learnt is not None and learnt < LITTLE_LEARNT
    # what training learns by giant steps may be nothing that holds
    held = record.skill("val")
    little = little or (times > FAR_TOO_HIGH and len(held) > 0 and float(np.median(held[-3:])) < 0)
    rises, falls, since = _ups_and_downs(loss, _noise(record))
    reasons: list[tuple[float, str, int]] = []
    if broken:
        reasons.append((0.9 if wide else 0.7, f"The loss was {broken.value[0]}.", int(broken.epoch[0])))
    if scale and len(loss) and little:
        batches = record.get("train_batch_loss")
        risen = np.diff(loss.value, prepend=math.inf) > _noise(record)
        # random weights are unlearnt first
        begun = np.logical_and.accumulate(np.diff(loss.value, prepend=math.inf) < 0)
        high = np.flatnonzero((loss.value >= TWICE_AS_BAD * scale) & (wide | (unusual & ~begun) | risen))
        peaks = np.flatnonzero(batches.value >= TWICE_AS_BAD * scale)
        if len(high):
            peak = float(loss.value[high].max()) / scale
            message = f"The mean training loss was up to {peak:.3g} times that of a constant."
            reasons.append((graded(peak, TWICE_AS_BAD, 10, 0.65), message, int(loss.epoch[high[0]])))
        elif len(peaks) and wide:
            message = f"The batch loss was up to {batches.value.max() / scale:.3g} times that of a constant."
            reasons.append((0.6, message, int(batches.epoch[peaks[0]])))
    pulled = bool(held_back(record)) and not unusual  # strong penalties and the data take turns at any rate
    if scale and falls and rises and rises >= TAKEN_BACK * falls and (little or wide) and not pulled:
        message = f"The mean training loss rose by {rises:.3g} in all and fell by {falls:.3g}."
        reasons.append((graded(rises / falls, TAKEN_BACK, 1.0, 0.55, 0.8), message, since))
    always = float(np.median(steps.value)) if steps is not None else 0.0
    rough = record.spec.model.kind != "linear" or unusual or rises > 0  # beside its small weights any step is long
    if little and wide and rough and always >= LARGE_STEP / 2 and steps and largest and len(loss) >= 2:
        message = f"Single steps change the weights by up to {largest:.3g} of their norm."
        reasons.append(
            (graded(math.log10(largest), -1, 0.5, 0.5, 0.8), message, int(steps.epoch[steps.value.argmax()]))
        )
    if not little and learnt is not None and learnt < MUCH_LEARNT and wide and always >= LARGE_STEP and steps:
        message = f"Half of the steps change the weights by {always:.3g} of their norm or more."
        reasons.append((graded(math.log10(always), -1, 0.5, 0.6, 0.8), message, int(steps.epoch[0])))
    # ten times is still common; and a layer too narrow for the classes learns little at any rate
    if little and len(loss) >= 2 and times > FAR_TOO_HIGH and not reasons and not bottleneck(record):
        message = f"Little is learnt at {times:.3g} times the optimizer's usual rate."
        reasons.append((graded(math.log10(times), 1, 3, 0.55, 0.8), message, int(loss.epoch[0])))
    if not reasons:
        return None
    sure = times > FAR_TOO_HIGH or (unusual and not drowned(record))
    confidence = min(0.97, max(r[0] for r in reasons) + 0.05 * (len(reasons) - 1) + _not_even_a_batch(record))
    return Verdict(
        "learning_rate_too_high",
        round(confidence, 3) if sure else doubted(record, round(confidence, 3)),
        min(r[2] for r in reasons),
        " ".join(r[1] for r in sorted(reasons, reverse=True)),
        {
            **_common(record),
            "largest_relative_step": largest,
            "usual_relative_step": 1e-3,
            "rises": rises,
            "falls": falls,
            "not_finite_since_step": broken.step[0].item() if broken else None,
            "series": ["train_batch_loss", "train_loss", "train_lr", "train_grad_norm", "train_weight_norm"],
        },
    )


def learning_rate_too_low(record: Record) -> Verdict | None:
    """The rate (median of the run) is below a third of the optimizer's usual one, no rise of the loss, no large step, and
    with little learnt either a way too short (mean relative step x steps < 0.1) or a fall whose second half is at least
    half of the first, on a way < 1 (or unknown, then with less confidence). With more learnt: validation still falls at
    the end as `stopped_too_early` has it. Under a usual rate the same curves mean that the run ended too early, or that
    the gradient is at fault."""
    learnt, loss = record.learnt, record.get("train_loss")
    if learnt is None or len(loss) < 2 or record.spec.start_from is not None:
        return None
    rates, usual = record.get("train_lr").value, _usual(record)
    rate = float(np.median(rates)) if len(rates) else record.spec.optimizer.lr
    if rate >= LOW_RATE * usual:
        return None
    steps = relative_steps(record)
    way = float(steps.value.mean() * loss.step[-1]) if steps is not None else None
    if _ups_and_downs(loss, _noise(record))[0] or (steps is not None and steps.value.max() >= LARGE_STEP):
        return None
    middle = float(np.interp((loss.step[0] + loss.step[-1]) / 2, loss.step, loss.value))
    early, late = float(loss.value[0]) - middle, middle - float(loss.value[-1])
    steady = len(loss) > 2 and early > 0 and late >= STEADY * early  # two evaluations have no halves
    if learnt >= LITTLE_LEARNT:
        if not steady or still_gaining(record) is None:
            return None
        confidence = 0.55
        message = f"The loss still falls at the end: by {early:.3g} in the first half, by {late:.3g} in the second."
    elif way is not None and way < SHORT_WAY:
        confidence = graded(-math.log10(max(way, 1e-12)), 1, 3, 0.7)
        message = f"All steps together could change the weights by {way:.2g} of their norm at most."
    elif steady and (way is None or way < 1):
        confidence = doubted(record, 0.5 if way is None else 0.6)
        message = (
            f"The loss still falls as in the beginning: by {early:.3g} in the first half, by {late:.3g} in the second."
        )
    else:
        return None
    return Verdict(
        "learning_rate_too_low",
        round(min(0.97, confidence + _not_even_a_batch(record)), 3),
        int(loss.epoch[0]),
        f"After {int(loss.step[-1])} steps {max(learnt, 0):.0%} of the baseline's loss is gone. {message}",
        {
            **_common(record),
            "median_rate": rate,
            "usual_rate": usual,
            "relative_way": way,
            "threshold": SHORT_WAY,
            "fall_in_first_half": early,
            "fall_in_second_half": late,
            "series": ["train_loss", "val_loss", "train_lr", "train_weight_norm", "train_grad_norm"],
        },
    )


def _common(record: Record) -> dict[str, Any]:
    told = {"lr": record.spec.optimizer.lr, "baseline_loss": record.baseline, "skill": record.learnt}
    batch = first_batch(record)
    return told if batch is None else {**told, "first_batch": batch}


def _not_even_a_batch(record: Record) -> float:
    """What it adds to the confidence that the probe's one batch could not be learnt by heart either."""
    batch = first_batch(record)
    return 0.1 if batch is not None and batch["learnt"] is False else 0.0


def _not_finite(record: Record) -> Series | None:
    for name in ("train_batch_loss", "train_loss", "val_loss"):
        series = record.series.get(name)
        if series is not None and (bad := ~np.isfinite(series.value)).any():
            return Series(series.step[bad], series.epoch[bad], series.value[bad])
    return None


def _usual(record: Record) -> float:
    return float(type(record.spec.optimizer)().lr)


def _noise(record: Record) -> float:
    """Two standard errors of a difference of two means of n losses whose deviation is about the baseline."""
    return 2 * math.sqrt(2 / max(1, record.parts[0])) * (record.scale or 0.0)


def _ups_and_downs(loss: Series, noise: float) -> tuple[float, float, int]:
    """(sum of the rises beyond the noise, sum of the falls, epoch of the first such rise) between evaluations."""
    change = np.diff(loss.value)
    up = np.flatnonzero(change > noise)
    since = int(loss.epoch[up[0] + 1]) if len(up) else 0
    return float(change[up].sum()), float(-change[change < 0].sum()), since


def _at(series: Series, steps: Any) -> Floats:
    """The values at these steps, each of which the series has."""
    known, first = np.unique(series.step, return_index=True)
    return series.value[first[np.searchsorted(known, steps)]] if len(known) else np.empty(0)


def _epochs(series: Series, steps: Any) -> Any:
    known, first = np.unique(series.step, return_index=True)
    return series.epoch[first[np.searchsorted(known, steps)]] if len(known) else np.empty(0, np.int64)
