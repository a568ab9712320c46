"""Results of the sanity checks of a run: whether one batch could be memorised, and how a smaller model compares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainkit.diagnose.record import Record

MEMORISED_SCORE = 0.95
"""Accuracy or R^2 on the batch; below 1, because the batch may hold duplicates with different labels."""
NOT_MEMORISED_SHARE = 0.5
"""Share of the way from guessing to a perfect score below which the batch was not memorised."""
CLEAR_DIFFERENCE = 0.05
"""Clear difference of two training losses, as a share of the baseline: several times that of consecutive epochs."""

CheckedCode = Literal["optimization_failure", "underfitting_model_bias"]


@dataclass(frozen=True, slots=True)
class SanityCheckResult:
    """The verdict that the sanity checks support, with its confidence, message and numbers; `code` None: undecided."""

    code: CheckedCode | None
    confidence: float
    message: str
    evidence: dict[str, Any]


def interpret_sanity_checks(record: Record) -> SanityCheckResult | None:
    """Decide between a failing optimization and a model that is too small; None where no check was run.

    The optimization fails where a smaller model ended with a lower loss or, without that check, where one batch cannot
    be memorised although the parameters suffice. The model is too small where the batch was memorised (or not checked)
    and the smaller model is not ahead after as many steps. Otherwise undecided: indistinguishable inputs look the same.
    """
    batch, small = first_batch(record), small_model(record)
    if batch is None and small is None:
        return None
    evidence = {name: found for name, found in (("first_batch", batch), ("small_model", small)) if found is not None}
    failed = batch is not None and batch["learnt"] is False
    fitted = batch is not None and batch["learnt"] is True
    lower, ahead = small is not None and small["lower"], small is not None and small["ahead"]
    if lower and small is not None:
        sure = 0.8 if fitted else 0.95 if failed else 0.9
        size, loss, steps = small["parameters"], small["loss"], small["steps"]
        message = f"a model of {size} parameters reached a loss of {loss:.4g} in {steps} steps"
        return SanityCheckResult("optimization_failure", sure, message, evidence)
    if failed and batch is not None and small is None:
        message = f"{batch['steps']} steps on only {batch['samples']} samples did not memorise these either"
        return SanityCheckResult("optimization_failure", 0.85, message, evidence)
    if small is not None and not ahead and (fitted or batch is None):
        message = f"a smaller model learnt as much in {small['steps']} steps"
        message += ", and a single batch was memorised" if fitted else ""
        return SanityCheckResult("underfitting_model_bias", 0.85 if fitted else 0.7, message, evidence)
    return SanityCheckResult(None, 0.0, "", evidence)


def first_batch(record: Record) -> dict[str, Any] | None:
    """Return `{samples, steps, loss, accuracy or r2, learnt}` of the batch; `learnt` is None where undecided.

    True from a score of 0.95 on. False below half of the way from guessing (1/K; R^2 0) to 1, or with a loss that is not
    finite, if the model has the 2 m + d parameters that fit any m samples in d dimensions (Zhang et al. 2017).
    """
    name = "accuracy" if record.classification else "r2"
    scores, losses = (
        record.series.get(f"sanity_check_first_batch_{name}"),
        record.series.get("sanity_check_first_batch_loss"),
    )
    samples = record.get("sanity_check_first_batch_samples")
    if scores is None or losses is None or not len(samples) or record.resolved is None:
        return None
    score, m = float(scores.value[-1]), int(samples.value[-1])
    guess = 1 / max(2, len(record.classes)) if record.classification else 0.0
    enough = record.parameters is not None and record.parameters >= 2 * m + record.resolved.sample.size
    broken = not math.isfinite(score) or not math.isfinite(losses.value[-1])
    learnt: bool | None = None
    if not broken and score >= MEMORISED_SCORE:
        learnt = True
    elif enough and (broken or score < guess + NOT_MEMORISED_SHARE * (1 - guess)):
        learnt = False
    step, loss = int(scores.step[-1]), float(losses.value[-1])
    return {"samples": m, "steps": step, "loss": loss, name: score, "learnt": learnt, "threshold": MEMORISED_SCORE}


def small_model(record: Record) -> dict[str, Any] | None:
    """Return `{parameters, steps, loss, train_loss_then, train_loss, margin, lower, ahead}` of the smaller model.

    `lower`: its loss is below the run's last training losses (median of 3) by more than 0.05 of the baseline. `ahead`:
    likewise below the run's training loss after as many steps, or at the run's first evaluation if that came later.
    """
    small_loss, train, scale = record.get("sanity_check_small_model_loss"), record.get("train_loss"), record.scale
    if not len(small_loss) or not len(train) or not scale:
        return None
    loss, steps = float(small_loss.value[-1]), int(small_loss.step[-1])
    then, last, margin = float(np.interp(steps, train.step, train.value)), train.value[-3:], CLEAR_DIFFERENCE * scale
    size = record.get("sanity_check_small_model_parameters")
    return {
        "parameters": int(size.value[-1]) if len(size) else None,
        "steps": steps,
        "loss": loss,
        "train_loss_then": then,
        "train_loss": float(np.median(last)),
        "margin": margin,
        "lower": loss < float(np.median(last)) - margin,
        "ahead": loss < then - margin,
    }
