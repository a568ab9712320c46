"""What a model can learn at all, by its spec: parameters against samples, narrow layers, penalties."""

from __future__ import annotations

from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import SURE

STRONG = {"l2_share": 0.1, "weight_decay": 0.1, "dropout": 0.5, "l1_share": 0.1, "input_dropout": 0.5}
"""Penalties from which on they may be what keeps the training loss high; `_share` is of the number of samples."""
BEHIND = 0.15
"""Of the baseline's loss: how far dropout may keep training behind validation."""
SHRUNK = 0.5
"""Last over first norm of all weights: training by itself lets them grow."""
TOO_DEEP = 20
"""Plain layers from which on more of them train worse than fewer, whatever they do to units and gradients (He et al.
2016 compare 20 with 56)."""
USUAL_INITS = ("he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "orthogonal")


def memorising(record: Record) -> int | None:
    """2 n + d."""
    if record.resolved is None:
        return None
    return 2 * record.parts[0] + record.resolved.sample.size


def bottleneck(record: Record) -> int | None:
    """The width of the narrowest hidden layer where it is below classes - 1."""
    model = record.spec.model
    widths = model.hidden if model.kind == "mlp" else (model.hidden,) if model.kind in ("lstm", "gru") else ()
    least = min(widths, default=None)
    return least if least is not None and least < len(record.classes) - 1 else None


def throttled(record: Record) -> float | None:
    """Mean training loss of the last epoch less the validation loss at its beginning, over the baseline, where the spec
    drops half of the units or more: validation drops none, and what it was better by before is no gain of that epoch."""
    train, val = record.get("train_loss").value, record.get("val_loss").value
    if not {"dropout", "input_dropout"} & set(held_back(record)) or min(len(train), len(val)) < 2 or not record.scale:
        return None
    return float(train[-1] - val[-2]) / record.scale


def held_back(record: Record) -> list[str]:
    """Penalties of the spec that may keep the training loss high: strong ones, and any that has halved the weights."""
    made, samples = record.spec.regularize, max(1, record.parts[0])
    dropout = max(getattr(record.spec.model, "dropout", 0) or 0, getattr(record.spec.model, "spatial_dropout", 0))
    strengths = {
        "l2": (made.l2 / samples, STRONG["l2_share"]),
        "l1": (made.l1 / samples, STRONG["l1_share"]),
        "weight_decay": (made.weight_decay, STRONG["weight_decay"]),
        "dropout": (dropout, STRONG["dropout"]),
        "input_dropout": (getattr(record.spec.model, "input_dropout", 0), STRONG["input_dropout"]),
    }
    norms = record.get("train_weight_norm").value
    shrunk = len(norms) > 1 and norms[-1] < SHRUNK * norms[0]
    of_weights = ("l2", "l1", "weight_decay") if shrunk else ()
    return [name for name, (size, limit) in strengths.items() if size >= limit or (size > 0 and name in of_weights)]


def too_deep(record: Record) -> bool:
    """Whether 20 or more hidden layers without normalisation, begun as usual, are in the way of the signal. Sigmoids and
    tanhs have a name of their own for it: gradients that vanish."""
    model = record.spec.model
    if model.kind != "mlp" or len(model.hidden) < TOO_DEEP or model.norm != "none":
        return False
    usual = model.init is None or model.init.kind in USUAL_INITS
    return usual and model.activation not in ("sigmoid", "tanh")


def drowned(record: Record) -> bool:
    """Whether dropout makes most of the training part's numbers."""
    return (throttled(record) or 0.0) >= BEHIND


def doubted(record: Record, confidence: float) -> float:
    """Of a symptom that so many layers bring with them, or dropout that drowns the signal: not enough to explain anything."""
    return min(confidence, SURE - 0.05) if too_deep(record) or drowned(record) else confidence
