"""Signal flow through the layers: gradient reach and idle units."""

from __future__ import annotations

import numpy as np

from trainkit.diagnose.capacity import bottleneck, limit_symptom_confidence, strong_penalties
from trainkit.diagnose.record import HIGH_SKILL, LOW_SKILL, Record
from trainkit.diagnose.verdicts import Verdict, graded_confidence

IDLE_SHARE = 0.5
"""Share of idle units (dead or saturated) in the whole network that counts."""
BLOCKED_RATIO = 1e-4
"""First over last reach: a smaller ratio cannot come from one layer with few active units."""
IDLE_LAYER_SHARE = 0.9
"""Share of idle units in one layer that blocks the layers before it."""


def gradient_reach(record: Record) -> dict[str, float]:
    """Return median ||g|| x median ||w|| of each layer, from the input to the output."""
    gradients, weights = record.layers("grad_norm"), record.layers("weight_norm")
    paths = [path for path in gradients if len(gradients[path]) and path in weights and len(weights[path])]
    return {path: float(np.median(gradients[path].value) * np.median(weights[path].value)) for path in paths}


def first_over_last(reach: dict[str, float]) -> float | None:
    """Return the first reach over the last; None for fewer than three layers or a last one of 0."""
    values = list(reach.values())
    return values[0] / values[-1] if len(values) > 2 and values[-1] > 0 else None


def idle_units(record: Record, code: str, name: str, description: str) -> Verdict | None:
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
    ratio = first_over_last(gradient_reach(record))
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


def idle_suspicion(record: Record, name: str) -> float:
    """Return 0.5 where a quarter of all units that can be idle are, or half of those of one layer; else 0."""
    total = record.get(f"train_{name}")
    layers = [float(np.median(one.value[-3:])) for one in record.layers(name).values() if len(one)]
    if not len(total):
        return 0.0
    idle = float(np.median(total.value[-3:])) >= IDLE_SHARE / 2 or max(layers, default=0.0) >= IDLE_SHARE
    return 0.5 if idle else 0.0
