"""Trends of a loss: whether it still falls at the end, and whether a rise is more than noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainkit.diagnose.record import Floats, Record, Series

NOISE_FACTOR = 2.0
"""Standard errors that a difference must exceed: chance alone exceeds them in 1 of 20 cases."""
STILL_GAINING = 0.05
"""Gain of the last quarter of a run, as a share of the baseline loss, from which on more epochs pay."""
MIN_EVALUATIONS = 4
"""Least number of evaluations of a trend."""
UNFINISHED_SKILL = 0.5
"""From this skill on a steady fall must exceed the noise, because it may be the slow end of training."""
RISEN = 0.02
"""Rise of the validation loss at the end, as a share of the baseline loss, from which on there is something to stop."""
STEADY_TREND = 3.0
"""Mann's z of a steady trend: reached by seven evaluations each beyond the one before."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Gain of the last quarter of a series, with the noise and the threshold that it exceeds."""

    series: str
    gain: float
    noise: float
    threshold: float
    since_epoch: int
    epoch: int


def still_gaining(record: Record) -> Gain | None:
    """Return the gain of the last quarter of the evaluations where validation still improves, else None.

    The best evaluation is the last or the one before, and the gain exceeds 0.05 of the baseline and the noise: 2 standard
    errors; 1 where training gained as much too; 0 with a skill below 0.5 and a steady fall (z < -3, or four evaluations
    each below the one before on both parts, which are the same samples each time). With up to three evaluations of low
    skill the gain is that of all. With one evaluation it is the mean training loss of the epoch less the validation loss.
    """
    name = "val_loss" if len(record.get("val_loss")) else "train_loss"
    loss, scale = record.get(name), record.scale
    if not scale or not len(loss) or loss.value.argmin() < len(loss) - 2:
        return None
    unfinished = (record.final_skill or 0.0) < UNFINISHED_SKILL
    quarter = len(loss) - 1 if unfinished and len(loss) < MIN_EVALUATIONS else max(1, len(loss) // 4)
    start = max(-1 - quarter, -len(loss))
    before = float(loss.value[start])
    if len(loss) == 1:
        before = float(record.get("train_loss").value[:1].sum()) if name == "val_loss" else before
    gain, noise = before - float(loss.value[-1]), NOISE_FACTOR * standard_error(record, loss, len(loss) - 1)
    train = record.get("train_loss").value
    if len(loss) > 1 and len(train) == len(loss) and float(train[start] - train[-1]) > STILL_GAINING * scale:
        noise /= 2
    always = len(loss) >= MIN_EVALUATIONS and bool((np.diff(loss.value) < 0).all() and (np.diff(train) < 0).all())
    if unfinished and (always or trend(loss.value) < -STEADY_TREND):
        noise = 0.0
    if gain <= max(noise, STILL_GAINING * scale):
        return None
    return Gain(name, gain, noise, STILL_GAINING * scale, int(loss.epoch[start]), int(loss.epoch[-1]))


def standard_error(record: Record, loss: Series, index: int) -> float:
    """Return the standard error logged with that value of the validation loss; 0 without one, as for training."""
    errors = record.get("val_loss_se")
    at = np.flatnonzero(errors.step == loss.step[index])
    return float(errors.value[at[0]]) if len(at) else 0.0


def trend(values: Floats) -> float:
    """Return Mann's z of a rise (1945): (S - 1) / sqrt(n (n - 1) (2 n + 5) / 18), S = rising less falling pairs.

    The evaluations of a run are not independent, so z measures how steady a trend is and is no probability.
    """
    n = len(values)
    if n < 3:
        return 0.0
    balance = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    return (balance - math.copysign(1.0, balance)) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)


def generalisation_gap(record: Record) -> float | None:
    """Return (validation loss - training loss) / baseline at the end, medians of 3; None where one was not logged."""
    train, val, scale = record.get("train_loss").value, record.get("val_loss").value, record.scale
    if not len(train) or not len(val) or not scale:
        return None
    return float(np.median(val[-3:]) - np.median(train[-3:])) / scale


def rise_at_end(record: Record) -> float:
    """Return by how much the validation loss ends above its least value, as a share of the baseline; 0 if unknown.

    The end is the median of the last 3 of at least 4 evaluations.
    """
    loss, scale = record.get("val_loss").value, record.scale
    return float(np.median(loss[-3:]) - loss.min()) / scale if scale and len(loss) > 3 else 0.0
