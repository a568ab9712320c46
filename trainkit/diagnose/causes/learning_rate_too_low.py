"""Learning rate too low."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainkit.diagnose.capacity import limit_symptom_confidence
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import UNUSUAL_RATE, longer, rate_tenfold, standard_rate
from trainkit.diagnose.rates import (
    LARGE_STEP,
    default_rate,
    loss_noise,
    rate_evidence,
    relative_steps,
    rises_and_falls,
    unlearnt_batch_bonus,
)
from trainkit.diagnose.record import LOW_SKILL, Record
from trainkit.diagnose.spec_changes import Change, rate_patch
from trainkit.diagnose.trends import STEADY_TREND, still_gaining, trend
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict, graded_confidence
from trainkit.spec.patch import replacing

SHORT_PATH = 0.1
"""Sum of relative steps: even in one direction they change the weights by less than a tenth of their norm."""
LOW_RATE_FACTOR = 1 / 3
"""Multiple of the optimizer's default rate below which a loss that still falls means a rate too low, not a short run."""
STEADY_GAIN_SHARE = 0.5
"""Gain of the second half of training over that of the first; ordinary learning curves flatten far more."""


def evidence(record: Record) -> Verdict | None:
    """Learning rate too low: its median is below a third of the default one, without a rise of the loss or a large step.

    Where validation still improves at the end of the run, as in `stopped_too_early`, the rate is why it was too short.
    Else, with a skill below 0.5, one of: the path is short (mean relative step x steps < 0.1); or the path is below 1 (or
    unknown, with less confidence) and the second half of training gained at least half of what the first half gained.
    At a usual rate the same curves mean that the run ended too early or that the gradient is the problem.
    """
    learnt, loss = record.final_skill, record.get("train_loss")
    if learnt is None or len(loss) < 2 or record.spec.start_from is not None:
        return None
    rate, usual = _median_rate(record), default_rate(record)
    if rate >= LOW_RATE_FACTOR * usual:
        return None
    steps = relative_steps(record)
    path = float(steps.value.mean() * loss.step[-1]) if steps is not None else None
    short = path is not None and path < SHORT_PATH
    rises = rises_and_falls(loss, loss_noise(record))[0] > 0 or (steps is not None and steps.value.max() >= LARGE_STEP)
    if rises and not short:  # on a short path the loss rises by the noise of dropout alone
        return None
    middle = float(np.interp((loss.step[0] + loss.step[-1]) / 2, loss.step, loss.value))
    early, late = float(loss.value[0]) - middle, middle - float(loss.value[-1])
    steady = len(loss) > 2 and early > 0 and late >= STEADY_GAIN_SHARE * early  # two evaluations have no halves
    if still_gaining(record) is not None and record.final:
        confidence = graded_confidence(math.log10(usual / rate), -math.log10(LOW_RATE_FACTOR), 1.5, 0.5, 0.75)
        message = f"The loss still falls at the end: by {early:.3g} in the first half, by {late:.3g} in the second."
    elif learnt >= LOW_SKILL:
        return None
    elif short and path is not None:
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
        round(min(0.97, confidence + unlearnt_batch_bonus(record)), 3),
        int(loss.epoch[0]),
        f"After {int(loss.step[-1])} steps the model removes only {max(learnt, 0):.0%} of the loss of a constant prediction. "
        f"{message}",
        {
            **rate_evidence(record),
            "median_rate": rate,
            "usual_rate": usual,
            "relative_way": path,
            "threshold": SHORT_PATH,
            "fall_in_first_half": early,
            "fall_in_second_half": late,
            "series": ["train_loss", "val_loss", "train_lr", "train_weight_norm", "train_grad_norm"],
        },
    )


def _median_rate(record: Record) -> float:
    """The median of the logged rates, above 0, which a schedule may begin or end with; else the optimizer's."""
    rates = record.get("train_lr").value
    return max(float(np.median(rates)), 1e-9 * default_rate(record)) if len(rates) else record.spec.optimizer.lr


def suspicion(record: Record) -> float:
    """A rate below the default one, or a loss that still falls steadily."""
    rate, usual = _median_rate(record), default_rate(record)
    loss = record.get("train_loss")
    falling = len(loss) > 3 and trend(loss.value) < -STEADY_TREND
    if rate >= 3 * usual or not falling:
        return 0.0
    return min(0.7, 0.1 + 0.3 * min(2.0, max(0.0, math.log10(usual / rate))))


def recommendations(record: Record) -> Iterator[Change]:
    usual, rates = default_rate(record), record.get("train_lr").value
    expected = ("train_loss", "down", "more in one epoch than in this whole run", "CS231n: relative step near 1e-3")
    if len(rates) and float(np.median(rates)) < record.spec.optimizer.lr / 3:
        old = record.spec.schedule.model_dump(mode="json")
        yield Change(
            {"schedule": replacing(old, {"kind": "constant"})}, "The schedule keeps the learning rate small.", expected
        )
    if record.spec.optimizer.lr < usual / 3:
        patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": usual}}
        yield Change(patch, f"The default learning rate of {record.spec.optimizer.kind}.", expected)
    for factor in (10.0, 100.0):
        yield Change(rate_patch(record, factor), f"{factor:g} times the learning rate.", expected)


def interventions(record: Record) -> Iterator[Intervention]:
    code, usual = "learning_rate_too_low", default_rate(record)
    if record.spec.optimizer.lr < usual / UNUSUAL_RATE:
        yield standard_rate(record, code)
    # a rate that is usual or above is seldom too low: what ten times of it gains, more epochs gain as well
    yield rate_tenfold(record, code, 0.8 if record.spec.optimizer.lr < usual / 2 else 0.6)
    if record.spec.schedule.kind != "constant":
        old = record.spec.schedule.model_dump(mode="json")
        patch = {"schedule": replacing(old, {"kind": "constant"})}
        yield Intervention("constant_schedule", code, patch, "val_loss", "The learning rate stays as it is.", 0.4)
    yield longer(record, code, 0.35)


CAUSE = Cause(
    code="learning_rate_too_low",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="The steps may be too small for the length of the run.",
    explains=LOW_LEARNING - {"learning_rate_too_low"},
)
