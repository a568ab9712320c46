"""Vanishing gradients: hardly any gradient reaches the first layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from trainkit.diagnose.capacity import limit_symptom_confidence
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.gradients import first_over_last, gradient_reach
from trainkit.diagnose.interventions import (
    EQUAL_WEIGHTS,
    SMALL_WEIGHTS,
    batch_norm,
    fewer_layers,
    init_scale,
    standard_init,
)
from trainkit.diagnose.record import LOW_SKILL, Record
from trainkit.diagnose.spec_changes import (
    DEEP_HIDDEN_LAYERS,
    Change,
    hidden_widths,
    init_fields,
    init_patch,
    model_patch,
    shallower,
    usual_init,
)
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict, graded_confidence

VANISHED_RATIO = 1e-2
"""||g|| ||w|| of the first layer over that of the last. With relu and without biases the products <g, w> of all layers are
equal (Du, Hu and Lee 2018); a sigmoid layer shrinks the gradient by a factor of at least 4."""


def evidence(record: Record) -> Verdict | None:
    """Vanishing gradients: median ||g|| x median ||w|| of the first layer is <= 1/100 of the last one's, at low skill."""
    reach, learnt, gradients = gradient_reach(record), record.final_skill, record.layers("grad_norm")
    paths, ratio = list(reach), first_over_last(reach)
    if ratio is None or learnt is None or learnt >= LOW_SKILL or ratio > VANISHED_RATIO:
        return None
    return Verdict(
        "vanishing_gradients",
        limit_symptom_confidence(record, graded_confidence(-math.log10(max(ratio, 1e-30)), 2, 5, 0.6)),
        int(gradients[paths[0]].epoch[0]),
        f"The gradient of the first layer is only {ratio:.2g} times that of the last layer.",
        {
            "first_over_last": ratio,
            "threshold": VANISHED_RATIO,
            "reach_by_layer": reach,
            "skill": learnt,
            "series": [f"layers_grad_norm.{path}" for path in paths],
        },
    )


def suspicion(record: Record) -> float:
    """A first layer with a tenth of the last one's reach, or a deep network of sigmoid or tanh units."""
    ratio, model = first_over_last(gradient_reach(record)), record.spec.model
    saturating = getattr(model, "activation", "") in ("sigmoid", "tanh")
    deep = len(hidden_widths(record)) >= (3 if saturating else DEEP_HIDDEN_LAYERS)
    weak = ratio is not None and ratio < 0.1
    return 0.5 if weak else 0.3 if deep and ratio is None else 0.15 if deep else 0.0


def observable(record: Record) -> bool:
    return first_over_last(gradient_reach(record)) is not None


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("layers_grad_norm", "up", "first and last layer within a factor of 100", "He et al. 2015")
    model = record.spec.model
    if getattr(model, "activation", "relu") in ("sigmoid", "tanh"):
        fields: dict[str, Any] = {"activation": "relu"}
        yield Change(
            model_patch(record, **fields, **init_fields(record, "he_normal")),
            "relu does not shrink the gradient of active units.",
            expected,
        )
    else:
        yield from shallower(record, expected)
    if getattr(model, "norm", None) == "none":
        yield Change(model_patch(record, norm="batch"), "Batch norm keeps the scale of the gradient.", expected)
    if hasattr(model, "init"):
        yield Change(
            init_patch(record, usual_init(record)),
            "This initialization keeps the scale of the gradient from layer to layer.",
            expected,
        )
    if model.kind == "mlp" and len(model.hidden) > 2:
        yield Change(
            model_patch(record, hidden=list(model.hidden[:2])), "The gradient passes through fewer layers.", expected
        )


def interventions(record: Record) -> Iterator[Intervention]:
    code, scale = "vanishing_gradients", init_scale(record)
    small = scale is not None and scale.spread >= EQUAL_WEIGHTS and scale.ratio < SMALL_WEIGHTS
    bounded = getattr(record.spec.model, "activation", "relu") in ("sigmoid", "tanh")
    if small:
        yield standard_init(record, code, 0.85)
    if bounded:
        patch = model_patch(record, activation="relu", **init_fields(record, "he_normal"))
        why = "relu does not shrink the gradient of active units."
        yield Intervention("relu", code, patch, "val_loss", why, 0.85)
    # relu with the usual weights keeps the size of the gradient (He et al. 2015): depth fails for another reason then
    yield from fewer_layers(record, code, 0.8 if small or bounded else 0.6)
    yield from batch_norm(record, code, 0.75 if small or bounded else 0.5)


CAUSE = Cause(
    code="vanishing_gradients",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="Hardly any gradient may reach the first layers.",
    explains=LOW_LEARNING,
)
