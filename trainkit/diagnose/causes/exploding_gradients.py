"""Exploding gradients: the first gradients are far too large for the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainkit.diagnose.capacity import limit_symptom_confidence, too_deep
from trainkit.diagnose.cause import Cause
from trainkit.diagnose.rates import default_rate, not_finite, sharpness
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, init_patch, model_patch, rate_patch, usual_init
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict, graded_confidence

STEEP = 1000.0
"""||g|| ||w|| / baseline: changing the weights by 0.1 % of their norm changes the loss by the whole baseline. About 10 is
usual."""


def evidence(record: Record) -> Verdict | None:
    """Exploding gradients: ||g|| ||w|| / baseline >= 1000 at the first log step, at no more than the default rate.

    A larger rate may itself be the cause: it has changed the weights before the first log step.
    """
    seen = sharpness(record)
    first, usual = seen.value[:1], default_rate(record)
    if not len(first) or first[0] < STEEP or record.spec.optimizer.lr > usual:
        return None
    broken = not_finite(record)
    by_layer = {path: float(s.value[0]) for path, s in record.layers("grad_norm").items() if len(s)}
    confidence = graded_confidence(
        math.log10(first[0]), math.log10(STEEP), math.log10(STEEP) + 2, 0.6 if broken else 0.5
    )
    return Verdict(
        "exploding_gradients",
        confidence if too_deep(record) else limit_symptom_confidence(record, confidence),
        int(seen.epoch[0]),
        f"The gradient is too large from the first steps on: a change of the weights by 0.1 % changes the loss by "
        f"{first[0] / STEEP:.3g} times the loss of a constant prediction.",
        {
            "relative_steepness": float(first[0]),
            "threshold": STEEP,
            "lr": record.spec.optimizer.lr,
            "first_grad_norm_by_layer": by_layer,
            "not_finite_since_step": broken.step[0].item() if broken else None,
            "series": ["train_grad_norm", "train_weight_norm", "train_batch_loss"],
        },
    )


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


CAUSE = Cause(
    code="exploding_gradients",
    evidence=evidence,
    recommendations=recommendations,
    explains=LOW_LEARNING | {"dead_units", "vanishing_gradients", "learning_rate_too_high", "overfitting"},
)
