"""Whether anything comes through the network: gradients that vanish, units that are dead, saturated or all alike."""

from __future__ import annotations

import math

import numpy as np

from trainkit.diagnose.capacity import bottleneck, doubted, held_back
from trainkit.diagnose.rates import LITTLE_LEARNT, MUCH_LEARNT
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict, graded

FADED = 1e-2
"""||g|| ||w|| of the first layer over that of the last. With relu and no biases the inner products <g, w> of all layers
are equal (Du, Hu and Lee 2018); each sigmoid layer takes a factor of 4 at least: four of them a hundred."""
HALF_IDLE = 0.5
"""Half of the units that could say something say nothing."""
NOTHING_COMES = 1e-4
"""First over last reach, beyond what the few living units of one layer can do to it."""
LAYER_IDLE = 0.9
"""A layer so idle cuts off what lies before it."""
ALIKE_STD = 1e-6
"""Initial weights that differ by less than float32 resolves beside the usual 0.01 to 1."""
WITH_HIDDEN = ("mlp", "cnn", "residual_cnn", "lstm", "gru", "torchvision")


def symmetric_initialization(record: Record) -> Verdict | None:
    """Hidden layers begin all alike (zeros, or weights that differ by less than 1e-6), so that all units of a layer
    get the same gradient and stay the same. A linear model may begin so: its problem is convex."""
    model = record.spec.model
    init = getattr(model, "init", None)
    if model.kind not in WITH_HIDDEN or (model.kind == "mlp" and not model.hidden) or init is None:
        return None
    zeros = init.kind == "zeros"
    alike = (init.kind == "normal" and init.std < ALIKE_STD) or (
        init.kind == "uniform" and init.high - init.low < ALIKE_STD
    )
    if not zeros and not alike:
        return None
    norms = {path: float(series.value[0]) for path, series in record.layers("grad_norm").items() if len(series)}
    learnt = record.learnt
    wrong = learnt is not None and learnt > 1 - LITTLE_LEARNT  # something breaks the symmetry all the same
    return Verdict(
        "symmetric_initialization",
        0.3 if wrong else 0.95,
        1,
        f"All weights of a layer begin {'at 0' if zeros else 'alike'}: its units get equal gradients and stay one unit.",
        {
            "init": init.model_dump(mode="json"),
            "skill": learnt,
            "first_grad_norm_by_layer": norms,
            "layers_without_gradient": [path for path, norm in norms.items() if norm == 0],
            "series": ["train_loss", *(f"layers_grad_norm.{path}" for path in norms)],
        },
    )


def vanishing_gradients(record: Record) -> Verdict | None:
    """median ||g|| x median ||w|| over the evaluations: the first layer's <= 1/100 of the last one's, and little learnt."""
    reach, learnt, gradients = _reach(record), record.learnt, record.layers("grad_norm")
    paths, ratio = list(reach), _first_over_last(reach)
    if ratio is None or learnt is None or learnt >= LITTLE_LEARNT or ratio > FADED:
        return None
    return Verdict(
        "vanishing_gradients",
        doubted(record, graded(-math.log10(max(ratio, 1e-30)), 2, 5, 0.6)),
        int(gradients[paths[0]].epoch[0]),
        f"Of the gradient that the last layer gets {ratio:.2g} reaches the first one.",
        {
            "first_over_last": ratio,
            "threshold": FADED,
            "reach_by_layer": reach,
            "skill": learnt,
            "series": [f"layers_grad_norm.{path}" for path in paths],
        },
    )


def _reach(record: Record) -> dict[str, float]:
    """median ||g|| x median ||w|| of each layer, from the input to the output."""
    gradients, weights = record.layers("grad_norm"), record.layers("weight_norm")
    paths = [path for path in gradients if len(gradients[path]) and path in weights and len(weights[path])]
    return {path: float(np.median(gradients[path].value) * np.median(weights[path].value)) for path in paths}


def _first_over_last(reach: dict[str, float]) -> float | None:
    """None of fewer than three layers, or where the last one gets nothing."""
    values = list(reach.values())
    return values[0] / values[-1] if len(values) > 2 and values[-1] > 0 else None


def dead_units(record: Record) -> Verdict | None:
    """At the last evaluations half of all units that can be dead are, or nine tenths of one layer's."""
    return _idle(record, "dead_units", "dead_units", "are 0 for every sample and get no gradient any more")


def saturated_activations(record: Record) -> Verdict | None:
    """At the last evaluations half of all units that can saturate are saturated, or nine tenths of one layer's."""
    return _idle(
        record, "saturated_activations", "saturated_units", "stay at an end of their range, where slopes are < 4 %"
    )


def _idle(record: Record, code: str, name: str, what: str) -> Verdict | None:
    total = record.get(f"train_{name}")
    if not len(total):
        return None
    layers = {path: float(np.median(series.value[-3:])) for path, series in record.layers(name).items() if len(series)}
    share = float(np.median(total.value[-3:]))
    worst = max(layers, key=lambda path: layers[path], default=None)
    by_layer = worst is not None and layers[worst] >= LAYER_IDLE
    if share < HALF_IDLE and not by_layer:
        return None
    learnt = record.learnt
    if learnt is not None and learnt >= MUCH_LEARNT:
        return None
    # a network that learns has units to spare: worth a word, not the cause of anything
    harmless = learnt is not None and learnt >= LITTLE_LEARNT
    # units that training has driven to an end, that penalties have, or that are too few for their task, tell what they
    # were asked for
    grown = total.value[0] < HALF_IDLE and share - total.value[0] > HALF_IDLE / 2
    # through a few living units a gradient comes by weakened, but it does come by: what kills it is not this layer
    passing = share < HALF_IDLE and worst is not None and layers[worst] < 1
    ratio = _first_over_last(_reach(record))
    faded = passing and ratio is not None and ratio < NOTHING_COMES
    shrunk = {"l1", "l2", "weight_decay"} & set(held_back(record))
    driven = faded or bool(shrunk) or bottleneck(record) is not None or (code == "saturated_activations" and grown)
    confidence = max(graded(share, HALF_IDLE, 0.9, 0.6), 0.8 if by_layer else 0.0)
    since = np.flatnonzero(total.value >= min(HALF_IDLE, share))
    where = f"; in {worst} {layers[worst]:.0%}" if worst is not None else ""
    return Verdict(
        "dead_units" if code == "dead_units" else "saturated_activations",
        0.4 if harmless or driven else doubted(record, confidence),
        int(total.epoch[since[0]]) if len(since) else int(total.epoch[-1]),
        f"{share:.0%} of the units {what}{where}.",
        {
            "share": share,
            "threshold": HALF_IDLE,
            "share_by_layer": layers,
            "layer_threshold": LAYER_IDLE,
            "skill": learnt,
            "series": [f"train_{name}", *(f"layers_{name}.{path}" for path in layers)],
        },
    )
