"""Exploding gradients: the first gradients are far too large for the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainkit.diagnose.capacity import LARGE_GAIN, has_unusual_init, init_gain, limit_symptom_confidence, too_deep
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import (
    BIASED_WEIGHTS,
    LARGE_WEIGHTS,
    batch_norm,
    init_scale,
    rate_tenth,
    standard_init,
)
from trainkit.diagnose.rates import default_rate, not_finite, sharpness
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, init_patch, model_patch, rate_patch, usual_init
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict, graded_confidence

STEEP = 1000.0
"""||g|| ||w|| / baseline: changing the weights by 0.1 % of their norm changes the loss by the whole baseline. About 10 is
usual."""


def evidence(record: Record) -> Verdict | None:
    """Exploding gradients: ||g|| ||w|| / baseline >= 1000 at the first log step, at no more than the default rate.

    Or a loss that is not finite, with initial weights that make the signal ten times as large as He's do.

    A larger rate may itself be the cause: it has changed the weights before the first log step.
    """
    seen, broken, gain = sharpness(record), not_finite(record), init_gain(record)
    first, usual = seen.value[:1], default_rate(record)
    steep = len(first) > 0 and first[0] >= STEEP and record.spec.optimizer.lr <= usual
    grown = gain is not None and gain >= LARGE_GAIN and broken is not None
    if not steep and not grown:
        return None
    by_layer = {path: float(s.value[0]) for path, s in record.layers("grad_norm").items() if len(s)}
    steepness = float(first[0]) if len(first) else math.inf
    confidence = graded_confidence(
        math.log10(max(steepness, STEEP)), math.log10(STEEP), math.log10(STEEP) + 2, 0.6 if broken else 0.5
    )
    if grown:
        confidence = max(confidence, 0.75)
    return Verdict(
        "exploding_gradients",
        confidence if too_deep(record) else limit_symptom_confidence(record, confidence),
        int(seen.epoch[0]) if len(seen) else 1,
        f"The gradient is too large from the first steps on: a change of the weights by 0.1 % changes the loss by "
        f"{steepness / STEEP:.3g} times the loss of a constant prediction."
        if steep
        else f"The initial weights make the signal {gain:.3g} times as large as it was, and the loss was not finite.",
        {
            "relative_steepness": steepness if len(first) else None,
            "gain_of_init": gain,
            "threshold": STEEP,
            "lr": record.spec.optimizer.lr,
            "first_grad_norm_by_layer": by_layer,
            "not_finite_since_step": broken.step[0].item() if broken else None,
            "series": ["train_grad_norm", "train_weight_norm", "train_batch_loss"],
        },
    )


def suspicion(record: Record) -> float:
    """Steep first gradients (a tenth of what counts as evidence), or initial weights that let the signal grow.

    After usual initial weights a rate above the default one explains them: it has changed the weights by the first log step.
    """
    steep = sharpness(record).value[:1]
    if len(steep) and steep[0] >= STEEP / 10:
        usual = record.spec.optimizer.lr <= default_rate(record) or has_unusual_init(record)
        return 0.5 if usual else 0.2
    gain = init_gain(record)
    return 0.4 if gain is not None and gain >= LARGE_GAIN else 0.0


def observable(record: Record) -> bool:
    return len(sharpness(record)) > 0


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("grad_norm", "down", "to about 1, with a finite loss", "Pascanu, Mikolov and Bengio 2013")
    if getattr(record.spec.model, "init", None) is not None:
        yield Change(
            init_patch(record, usual_init(record)),
            "This initialization keeps the scale of the activations from layer to layer.",
            expected,
        )
    if record.spec.train.clip_norm is None:
        yield Change({"train": {"clip_norm": 1.0}}, "Clipping limits the norm of the gradient to 1.", expected)
    if getattr(record.spec.model, "norm", None) == "none":
        yield Change(model_patch(record, norm="batch"), "Batch norm keeps the scale of the activations.", expected)
    yield Change(
        {**rate_patch(record, 0.1), "train": {"clip_norm": 1.0}},
        "Gradient clipping and a tenth of the learning rate.",
        expected,
    )


def interventions(record: Record) -> Iterator[Intervention]:
    code, scale = "exploding_gradients", init_scale(record)
    if scale is not None and (scale.ratio > LARGE_WEIGHTS or scale.mean > BIASED_WEIGHTS):
        yield standard_init(record, code, 0.9)
        yield from batch_norm(record, code, 0.5)
        yield rate_tenth(record, code, 0.3)
    if record.spec.train.clip_norm is None:
        patch = {"train": {"clip_norm": 1.0}}
        yield Intervention("clipping", code, patch, "val_loss", "Clipping limits the norm of the gradient to 1.", 0.4)


CAUSE = Cause(
    code="exploding_gradients",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="The first gradients may be too large for the weights.",
    explains=LOW_LEARNING | {"dead_units", "vanishing_gradients", "learning_rate_too_high", "overfitting"},
)
