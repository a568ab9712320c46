"""What the probes of `train.probes` say, where they were run: whether one batch, or a smaller model, could be learnt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainkit.diagnose.record import Record

BY_HEART = 0.95
"""Accuracy, or R^2, on the one batch: a copy under another label may stand in it."""
HARDLY = 0.5
"""Of the way from guessing to all right: so little of one batch is no learning by heart."""
CLEARLY = 0.05
"""Of the baseline's loss, between two training losses: several times what two epochs in a row differ by."""

ExperimentView = Literal["optimization_failure", "underfitting_model_bias"]


@dataclass(frozen=True, slots=True)
class Reading:
    """Which of the two the probes speak for, how surely, in words, and their numbers. `code` None: they cannot tell."""

    code: ExperimentView | None
    confidence: float
    message: str
    evidence: dict[str, Any]


def reading(record: Record) -> Reading | None:
    """What the probes say of a training that stands still; None where none was run (techniques, section 11.1).

    The optimisation fails where a smaller model ended lower, or, without one, where one batch cannot be learnt by heart
    though the parameters would do for it. The model is too small where the batch was learnt (or not tried) and the
    smaller one is not ahead at equal steps. Neither learnt: inputs that cannot be told apart look the same.
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
        message = f"a model of {small['parameters']} parameters reached {small['loss']:.4g} in {small['steps']} steps"
        return Reading("optimization_failure", sure, message, evidence)
    if failed and batch is not None and small is None:
        message = f"{batch['steps']} steps on {batch['samples']} samples alone did not learn these either"
        return Reading("optimization_failure", 0.85, message, evidence)
    if small is not None and not ahead and (fitted or batch is None):
        message = f"a smaller model came no further in {small['steps']} steps"
        message += ", and one batch alone was learnt by heart" if fitted else ""
        return Reading("underfitting_model_bias", 0.85 if fitted else 0.7, message, evidence)
    return Reading(None, 0.0, "", evidence)


def first_batch(record: Record) -> dict[str, Any] | None:
    """`{samples, steps, loss, accuracy or r2, learnt}` of the one batch; `learnt` is None where it cannot be said.

    True from 0.95 on. False below half of the way from guessing (1/K; R^2 0) to 1, or with a loss that is not finite,
    where the model has the 2 m + d parameters that learn any m samples in d dimensions (Zhang et al. 2017).
    """
    name = "accuracy" if record.classification else "r2"
    scores, losses = record.series.get(f"probe_first_batch_{name}"), record.series.get("probe_first_batch_loss")
    samples = record.get("probe_first_batch_samples")
    if scores is None or losses is None or not len(samples) or record.resolved is None:
        return None
    score, m = float(scores.value[-1]), int(samples.value[-1])
    guess = 1 / max(2, len(record.classes)) if record.classification else 0.0
    enough = record.parameters is not None and record.parameters >= 2 * m + record.resolved.sample.size
    broken = not math.isfinite(score) or not math.isfinite(losses.value[-1])
    learnt: bool | None = None
    if not broken and score >= BY_HEART:
        learnt = True
    elif enough and (broken or score < guess + HARDLY * (1 - guess)):
        learnt = False
    step, loss = int(scores.step[-1]), float(losses.value[-1])
    return {"samples": m, "steps": step, "loss": loss, name: score, "learnt": learnt, "threshold": BY_HEART}


def small_model(record: Record) -> dict[str, Any] | None:
    """`{parameters, steps, loss, train_loss_then, train_loss, margin, lower, ahead}` of the smaller model.

    `lower`: it ended clearly below the run's last training losses (median of 3). `ahead`: below those of the run after
    as many steps, or at its first evaluation where that came later. Clearly: by 0.05 of the baseline.
    """
    own, train, scale = record.get("probe_small_model_loss"), record.get("train_loss"), record.scale
    if not len(own) or not len(train) or not scale:
        return None
    loss, steps = float(own.value[-1]), int(own.step[-1])
    then, last, margin = float(np.interp(steps, train.step, train.value)), train.value[-3:], CLEARLY * scale
    size = record.get("probe_small_model_parameters")
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
