"""Controlled changes that several causes name: the building blocks of `Cause.interventions`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainkit.diagnose.cause import Intervention
from trainkit.diagnose.rates import default_rate
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Patch, init_patch, longer_patch, model_patch, rate_patch, usual_init
from trainkit.diagnose.verdicts import Code
from trainkit.spec.patch import replacing

UNUSUAL_RATE = 3.0
"""Times the optimizer's default rate, or its share, from which on a rate is unusual."""
LARGE_WEIGHTS, SMALL_WEIGHTS, EQUAL_WEIGHTS = 2.5, 0.4, 1e-4
"""Size of initial weights, in units of the usual one: above, below, and a spread below which they are equal."""
BIASED_WEIGHTS = 0.3
"""Mean of initial weights in the same unit, from which on the units of a layer are pushed to one side."""
DEEP = 6
"""Hidden layers from which on a plain network is unusually deep."""


@dataclass(frozen=True, slots=True)
class InitScale:
    """Weights of an explicit initialisation, in the standard deviations of the usual one: mean, spread, and their size.

    `ratio` = sqrt(mean^2 + spread^2) of the layer where it is largest.
    """

    mean: float
    spread: float
    ratio: float


def init_scale(record: Record) -> InitScale | None:
    """Return the scale of the hidden layers' first weights; None for a usual initialisation, and for none."""
    init = getattr(record.spec.model, "init", None)
    if init is None or init.kind in ("pretrained", "he_normal", "he_uniform"):
        return None
    if init.kind in ("xavier_normal", "xavier_uniform", "orthogonal"):
        return None if 0.4 <= init.gain <= 2.5 else InitScale(0.0, init.gain, init.gain)
    if init.kind == "zeros":
        return InitScale(0.0, 0.0, 0.0)
    width = _fan_in(record)
    if init.kind == "normal":
        mean, spread = 0.0, init.std
    elif init.kind == "uniform":
        mean, spread = (init.low + init.high) / 2, (init.high - init.low) / math.sqrt(12)
    else:
        return None
    usual = math.sqrt(2 / width)
    return InitScale(mean / usual, spread / usual, math.hypot(mean, spread) / usual)


def _fan_in(record: Record) -> float:
    """Inputs of a typical unit of the hidden layers."""
    model = record.spec.model
    if model.kind == "mlp" and model.hidden:
        return float(max(model.hidden))
    if model.kind in ("cnn", "residual_cnn"):
        return float(max(model.channels) * getattr(model, "kernel", 3) ** 2)
    if model.kind in ("lstm", "gru"):
        return float(model.hidden)
    return float(record.resolved.sample.size if record.resolved else 64)


def standard_init(record: Record, cause: Code, repairs: float) -> Intervention:
    """The usual initialisation in the place of an unusual one."""
    why = "The usual initialisation keeps the scale of activations and gradients from layer to layer."
    patch = init_patch(record, usual_init(record))
    return Intervention("standard_init", cause, patch, "val_loss", why, repairs, undoes=True)


def standard_rate(record: Record, cause: Code) -> Intervention:
    """The optimizer's default rate in the place of an unusual one."""
    patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": default_rate(record)}}
    why = f"The default learning rate of {record.spec.optimizer.kind}."
    return Intervention("standard_rate", cause, patch, "val_loss", why, 0.9, undoes=True)


def rate_tenth(record: Record, cause: Code, repairs: float) -> Intervention:
    patch = rate_patch(record, 0.1)
    return Intervention("rate_tenth", cause, patch, "val_loss", "A tenth of the learning rate.", repairs)


def rate_tenfold(record: Record, cause: Code, repairs: float) -> Intervention:
    patch = rate_patch(record, 10.0)
    return Intervention("rate_tenfold", cause, patch, "val_loss", "Ten times the learning rate.", repairs)


def longer(record: Record, cause: Code, repairs: float, *, undoes: bool = False) -> Intervention:
    return Intervention(
        "longer", cause, longer_patch(record, 3), "val_loss", "Three times the epochs.", repairs, undoes
    )


def batch_norm(record: Record, cause: Code, repairs: float) -> Iterator[Intervention]:
    """Batch norm, where the model can have it and has none."""
    if getattr(record.spec.model, "norm", None) == "none":
        patch = model_patch(record, norm="batch")
        why = "Batch norm keeps activations and gradients in range."
        yield Intervention("batch_norm", cause, patch, "val_loss", why, repairs)


def fewer_layers(record: Record, cause: Code, repairs: float) -> Iterator[Intervention]:
    """The first two hidden layers, of an mlp with more than three."""
    hidden = record.spec.model.hidden if record.spec.model.kind == "mlp" else ()
    if len(hidden) > 3:
        patch = model_patch(record, hidden=list(hidden[:2]))
        why = "Two hidden layers: gradients pass through fewer of them."
        yield Intervention("fewer_layers", cause, patch, "val_loss", why, repairs, len(hidden) >= DEEP)


def wider(record: Record, cause: Code, repairs: float) -> Iterator[Intervention]:
    """Four times the width, and at least 64 units or 16 channels a layer; a hidden layer for a linear model."""
    model = record.spec.model
    if model.kind in ("linear", "linear_svm"):
        patch: Patch = {"model": replacing(model.model_dump(mode="json"), {"kind": "mlp", "hidden": [64]})}
        if model.kind == "linear_svm" and record.spec.loss is not None and record.spec.loss.kind == "hinge":
            patch["loss"] = replacing(record.spec.loss.model_dump(), {"kind": "cross_entropy"})
        why = "A linear model cannot fit a non-linear relation; hidden layers can."
        yield Intervention("hidden_layer", cause, patch, "val_loss", why, repairs)
        return
    why = "A wider network can fit more."
    if model.kind == "mlp" and model.hidden:
        narrow = min(model.hidden) < max(4, min(len(record.classes) - 1, 16))
        patch = model_patch(record, hidden=[min(4096, max(64, 4 * width)) for width in model.hidden])
    elif model.kind in ("cnn", "residual_cnn"):
        narrow = min(model.channels) < 4
        patch = model_patch(record, channels=[min(1024, max(16, 4 * width)) for width in model.channels])
    elif model.kind in ("lstm", "gru"):
        narrow = model.hidden < 6
        patch = model_patch(record, hidden=min(2048, max(32, 4 * model.hidden)))
    else:
        return
    yield Intervention("wider", cause, patch, "val_loss", why, repairs, narrow)
