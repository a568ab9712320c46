"""Capacity of a model by its spec: parameters against samples, narrow layers, depth, penalties."""

from __future__ import annotations

import math

from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import EXPLAINS_FROM_CONFIDENCE

STRONG_PENALTIES = {"l2_share": 0.1, "weight_decay": 0.1, "dropout": 0.5, "l1_share": 0.1, "input_dropout": 0.5}
"""Strengths from which on a penalty may keep the training loss high; `_share`: relative to the number of samples."""
WIDE_DROPOUT_GAP = 0.15
"""Share of the baseline loss by which dropout keeps the training loss above the validation loss."""
SHRUNK_WEIGHTS = 0.5
"""Last over first norm of all weights; without penalties training lets the norm grow."""
TOO_DEEP = 20
"""Number of layers without skip connections from which on more layers train worse (He et al. 2016: 20 against 56)."""
LARGE_GAIN = 10.0
"""Growth of the signal by the initial weights, relative to He's, that explains a loss that is not finite."""
KERNEL_AREA = 9
"""Inputs of a unit of a convolution for each channel: kernels are usually 3 x 3."""
USUAL_INITS = ("he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "orthogonal")


def parameters_to_memorise(record: Record) -> int | None:
    """Return 2 n + d, the parameters that fit any labels of n samples in d dimensions (Zhang et al. 2017)."""
    if record.resolved is None:
        return None
    return 2 * record.parts[0] + record.resolved.sample.size


def bottleneck(record: Record) -> int | None:
    """Return the width of the narrowest hidden layer where it is below classes - 1, else None."""
    model = record.spec.model
    widths = model.hidden if model.kind == "mlp" else (model.hidden,) if model.kind in ("lstm", "gru") else ()
    least = min(widths, default=None)
    return least if least is not None and least < len(record.classes) - 1 else None


def dropout_gap(record: Record) -> float | None:
    """Return by how much dropout of 0.5 or more keeps the training loss above the validation loss, over the baseline.

    Compared are the mean training loss of the last epoch and the validation loss before that epoch, so that the gain of
    the epoch itself does not count. None without such dropout.
    """
    train, val = record.get("train_loss").value, record.get("val_loss").value
    if (
        not {"dropout", "input_dropout"} & set(strong_penalties(record))
        or min(len(train), len(val)) < 2
        or not record.scale
    ):
        return None
    return float(train[-1] - val[-2]) / record.scale


def strong_penalties(record: Record) -> list[str]:
    """Return the names of the penalties that may keep the training loss high: strong ones, and any weight penalty that halved
    the weights."""
    regularize = record.spec.regularize
    penalties = regularize.factors(max(1, record.parts[0]))
    kinds = ("dropout", "spatial_dropout", "block_dropout")
    dropout = max(getattr(record.spec.model, kind, 0) or 0 for kind in kinds)
    strengths = {
        "l2": (penalties.l2, STRONG_PENALTIES["l2_share"]),
        "l1": (penalties.l1, STRONG_PENALTIES["l1_share"]),
        "weight_decay": (regularize.weight_decay, STRONG_PENALTIES["weight_decay"]),
        "dropout": (dropout, STRONG_PENALTIES["dropout"]),
        "input_dropout": (getattr(record.spec.model, "input_dropout", 0), STRONG_PENALTIES["input_dropout"]),
    }
    norms = record.get("train_weight_norm").value
    shrunk = len(norms) > 1 and norms[-1] < SHRUNK_WEIGHTS * norms[0]
    of_weights = ("l2", "l1", "weight_decay") if shrunk else ()
    return [name for name, (size, limit) in strengths.items() if size >= limit or (size > 0 and name in of_weights)]


def too_deep(record: Record) -> bool:
    """Return whether the model is an mlp of 20 or more layers without norm and with a usual init.

    With sigmoid or tanh the verdict is `vanishing_gradients` instead.
    """
    model = record.spec.model
    if model.kind != "mlp" or len(model.hidden) < TOO_DEEP or model.norm != "none":
        return False
    usual = model.init is None or model.init.kind in USUAL_INITS
    return usual and model.activation not in ("sigmoid", "tanh")


def dropout_dominates(record: Record) -> bool:
    """Return whether dropout determines the training loss."""
    return (dropout_gap(record) or 0.0) >= WIDE_DROPOUT_GAP


def limit_symptom_confidence(record: Record, confidence: float) -> float:
    """Limit the confidence of a symptom of great depth or strong dropout, so that it explains no other verdict."""
    return (
        min(confidence, EXPLAINS_FROM_CONFIDENCE - 0.05)
        if too_deep(record) or dropout_dominates(record)
        else confidence
    )


def init_gain(record: Record) -> float | None:
    """Return the product over the weight layers of an mlp or cnn of s sqrt(n / 2), s the deviation of initial weights.

    n is the number of inputs of a unit. He's init has 1: by this factor the signal grows from the input to the output of
    relu layers. None for other models, and for inits that follow the shape of a layer.
    """
    model, init = record.spec.model, getattr(record.spec.model, "init", None)
    if init is None or record.resolved is None or init.kind not in ("normal", "uniform"):
        return None
    if model.kind == "mlp":
        inputs = [record.resolved.sample.size, *model.hidden]
    elif model.kind == "cnn":
        channels = (record.resolved.sample.shape[0], *model.channels)
        inputs = [KERNEL_AREA * width for width in channels]
    else:
        return None
    root_mean_square = (
        init.std if init.kind == "normal" else math.sqrt((init.low**2 + init.low * init.high + init.high**2) / 3)
    )
    return math.prod(root_mean_square * math.sqrt(n / 2) for n in inputs)


def has_unusual_init(record: Record) -> bool:
    """Return whether the initial weights do not follow He, Xavier or an orthogonal matrix."""
    init = getattr(record.spec.model, "init", None)
    return init is not None and init.kind not in USUAL_INITS
