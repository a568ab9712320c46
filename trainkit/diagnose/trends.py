"""What a loss does at its end and after its best: gains that go on, rises that are no chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainkit.diagnose.record import Floats, Record, Series

NOISE = 2.0
"""Standard errors that a difference must exceed: chance alone does so in 1 of 20."""
STILL_GAINING = 0.05
"""Of the baseline's loss: what the last quarter gained, from which on more epochs plainly pay."""


FEWEST = 4
"""Evaluations from which on a course is one."""
HALF_WAY = 0.5
"""Of the baseline's loss: beyond it a steady fall may be a tail that creeps on, and has to exceed the noise."""
SURE_TREND = 3.0
"""Mann's z from which on a course is steady: seven evaluations each beyond the one before."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What the last quarter of a series gained, with the noise and the threshold that it exceeds."""

    series: str
    gain: float
    noise: float
    threshold: float
    since_epoch: int
    epoch: int


def still_gaining(record: Record) -> Gain | None:
    """Over the last quarter of the evaluations (all, if up to three) validation gained more than 2 standard errors and
    0.05 of the baseline, with its best at the last evaluation or the one before. 1 standard error where training gained
    as much, too; none where half of the way is not done and the fall is steady: z < -3, or each of four evaluations
    below the one before on both parts (the samples are the same at each evaluation). With a single evaluation: at the
    end of its epoch validation is so much below the epoch's mean training loss."""
    name = "val_loss" if len(record.get("val_loss")) else "train_loss"
    loss, scale = record.get(name), record.scale
    if not scale or not len(loss) or loss.value.argmin() < len(loss) - 2:
        return None
    unfinished = (record.learnt or 0.0) < HALF_WAY
    quarter = len(loss) - 1 if unfinished and len(loss) < FEWEST else max(1, len(loss) // 4)  # of three it is too short
    start = max(-1 - quarter, -len(loss))
    before = float(loss.value[start])
    if len(loss) == 1:
        before = float(record.get("train_loss").value[:1].sum()) if name == "val_loss" else before
    gain, noise = before - float(loss.value[-1]), NOISE * standard_error(record, loss, len(loss) - 1)
    train = record.get("train_loss").value
    if len(loss) > 1 and len(train) == len(loss) and float(train[start] - train[-1]) > STILL_GAINING * scale:
        noise /= 2
    always = len(loss) >= FEWEST and bool((np.diff(loss.value) < 0).all() and (np.diff(train) < 0).all())
    if unfinished and (always or trend(loss.value) < -SURE_TREND):
        noise = 0.0
    if gain <= max(noise, STILL_GAINING * scale):
        return None
    return Gain(name, gain, noise, STILL_GAINING * scale, int(loss.epoch[start]), int(loss.epoch[-1]))


def standard_error(record: Record, loss: Series, index: int) -> float:
    """The one logged with that value of the validation loss; 0 where none is, as of training."""
    errors = record.get("val_loss_se")
    at = np.flatnonzero(errors.step == loss.step[index])
    return float(errors.value[at[0]]) if len(at) else 0.0


def trend(values: Floats) -> float:
    """Mann's z for a steady rise (1945): (S - 1) / sqrt(n (n - 1) (2 n + 5) / 18), S the rising pairs less the falling.

    Evaluations of one run lean on each other, so that this is a measure of steadiness and no probability.
    """
    n = len(values)
    if n < 3:
        return 0.0
    balance = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    return (balance - math.copysign(1.0, balance)) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
