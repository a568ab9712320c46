"""Rules about signal flow: vanishing gradients, dead units, saturated activations, symmetric initialization."""

from __future__ import annotations

import math

import numpy as np

from trainkit.diagnose.capacity import bottleneck, limit_symptom_confidence, strong_penalties
from trainkit.diagnose.rates import HIGH_SKILL, LOW_SKILL
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict, graded_confidence

VANISHED_RATIO = 1e-2
"""||g|| ||w|| of the first layer over that of the last. With relu and without biases the products <g, w> of all layers are
equal (Du, Hu and Lee 2018); a sigmoid layer shrinks the gradient by a factor of at least 4."""
IDLE_SHARE = 0.5
"""Share of idle units (dead or saturated) in the whole network that counts."""
BLOCKED_RATIO = 1e-4
"""First over last reach: a smaller ratio cannot come from one layer with few active units."""
IDLE_LAYER_SHARE = 0.9
"""Share of idle units in one layer that blocks the layers before it."""
SYMMETRIC_STD = 1e-6
"""Spread of initial weights below which they count as equal; usual ones are 0.01 to 1."""
KINDS_WITH_HIDDEN_LAYERS = ("mlp", "cnn", "residual_cnn", "lstm", "gru", "torchvision")


def symmetric_initialization(record: Record) -> Verdict | None:
    """Symmetric initialization: the weights of hidden layers start equal (zeros, or a spread below 1e-6).

    All units of a layer then get the same gradient and stay equal. A linear model may start so: its problem is convex.
    """
    model = record.spec.model
    init = getattr(model, "init", None)
    if model.kind not in KINDS_WITH_HIDDEN_LAYERS or (model.kind == "mlp" and not model.hidden) or init is None:
        return None
    zeros = init.kind == "zeros"
    alike = (init.kind == "normal" and init.std < SYMMETRIC_STD) or (
        init.kind == "uniform" and init.high - init.low < SYMMETRIC_STD
    )
    if not zeros and not alike:
        return None
    norms = {path: float(series.value[0]) for path, series in record.layers("grad_norm").items() if len(series)}
    learnt = record.final_skill
    wrong = learnt is not None and learnt > 1 - LOW_SKILL  # something else breaks the symmetry
    return Verdict(
        "symmetric_initialization",
        0.3 if wrong else 0.95,
        1,
        f"All weights of a layer start {'at 0' if zeros else 'equal'}, so its units get equal gradients and stay equal.",
        {
            "init": init.model_dump(mode="json"),
            "skill": learnt,
            "first_grad_norm_by_layer": norms,
            "layers_without_gradient": [path for path, norm in norms.items() if norm == 0],
            "series": ["train_loss", *(f"layers_grad_norm.{path}" for path in norms)],
        },
    )


def vanishing_gradients(record: Record) -> Verdict | None:
    """Vanishing gradients: median ||g|| x median ||w|| of the first layer is <= 1/100 of the last one's, at low skill."""
    reach, learnt, gradients = _gradient_reach(record), record.final_skill, record.layers("grad_norm")
    paths, ratio = list(reach), _first_over_last(reach)
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


def _gradient_reach(record: Record) -> dict[str, float]:
    """Return median ||g|| x median ||w|| of each layer, from the input to the output."""
    gradients, weights = record.layers("grad_norm"), record.layers("weight_norm")
    paths = [path for path in gradients if len(gradients[path]) and path in weights and len(weights[path])]
    return {path: float(np.median(gradients[path].value) * np.median(weights[path].value)) for path in paths}


def _first_over_last(reach: dict[str, float]) -> float | None:
    """Return the first reach over the last; None for fewer than three layers or a last one of 0."""
    values = list(reach.values())
    return values[0] / values[-1] if len(values) > 2 and values[-1] > 0 else None


def dead_units(record: Record) -> Verdict | None:
    """Dead units: at the last evaluations half of all units that can be dead are, or 0.9 of those of one layer."""
    return _idle_units(record, "dead_units", "dead_units", "are 0 for every sample, so they get no gradient")


def saturated_activations(record: Record) -> Verdict | None:
    """Saturated activations: at the last evaluations half of all units that can saturate are, or 0.9 of one layer."""
    return _idle_units(record, "saturated_activations", "saturated_units", "are saturated: their slope is below 4 %")


def _idle_units(record: Record, code: str, name: str, description: str) -> Verdict | None:
    total = record.get(f"train_{name}")
    if not len(total):
        return None
    layers = {path: float(np.median(series.value[-3:])) for path, series in record.layers(name).items() if len(series)}
    share = float(np.median(total.value[-3:]))
    idlest = max(layers, key=lambda path: layers[path], default=None)
    by_layer = idlest is not None and layers[idlest] >= IDLE_LAYER_SHARE
    if share < IDLE_SHARE and not by_layer:
        return None
    learnt = record.final_skill
    if learnt is not None and learnt >= HIGH_SKILL:
        return None
    # a network that learns has units to spare: a hint, but not the cause of anything
    harmless = learnt is not None and learnt >= LOW_SKILL
    # units that became idle by training, by penalties, or because a layer is too narrow are an effect, not a cause
    grown = total.value[0] < IDLE_SHARE and share - total.value[0] > IDLE_SHARE / 2
    # a few active units pass on a weaker gradient: a ratio below that means another cause
    partly_active = share < IDLE_SHARE and idlest is not None and layers[idlest] < 1
    ratio = _first_over_last(_gradient_reach(record))
    blocked = partly_active and ratio is not None and ratio < BLOCKED_RATIO
    shrunk = {"l1", "l2", "weight_decay"} & set(strong_penalties(record))
    is_effect = blocked or bool(shrunk) or bottleneck(record) is not None or (code == "saturated_activations" and grown)
    confidence = max(graded_confidence(share, IDLE_SHARE, 0.9, 0.6), 0.8 if by_layer else 0.0)
    since = np.flatnonzero(total.value >= min(IDLE_SHARE, share))
    where = f" In layer {idlest} it is {layers[idlest]:.0%}." if idlest is not None else ""
    return Verdict(
        "dead_units" if code == "dead_units" else "saturated_activations",
        0.4 if harmless or is_effect else limit_symptom_confidence(record, confidence),
        int(total.epoch[since[0]]) if len(since) else int(total.epoch[-1]),
        f"{share:.0%} of the units {description}.{where}",
        {
            "share": share,
            "threshold": IDLE_SHARE,
            "share_by_layer": layers,
            "layer_threshold": IDLE_LAYER_SHARE,
            "skill": learnt,
            "series": [f"train_{name}", *(f"layers_{name}.{path}" for path in layers)],
        },
    )
