"""How each fault is planted, in four strengths from invisible to gross.

`context` is what the run and its twin have in common so that the fault can be there at all (an optimizer, an
activation, outliers); `plant` is the fault. Whether a planted fault has an effect is measured, not presumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.diagnosis.case import Change, Draft
from benchmarks.diagnosis.datasets import PoolEntry
from benchmarks.diagnosis.planted_data import CHANGES
from trainkit.diagnose.verdicts import Code

SMALL = (200, 500)
NO_PATIENCE = {"early_stop": [{"kind": "diverged"}]}


def _anywhere(_entry: PoolEntry, _kind: str) -> bool:
    return True


def _unchanged(_draft: Draft) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Fault:
    """`applies(dataset, model kind)`; `samples`: how many, where it matters; `of_data`: planted in data or split."""

    plant: Callable[[Draft, int], Change]
    prepare: Callable[[Draft], None] = _unchanged
    applies: Callable[[PoolEntry, str], bool] = _anywhere
    samples: tuple[int, int] | None = None
    of_data: bool = False


def _deep_kinds(entry: PoolEntry, kind: str) -> bool:
    return kind == "mlp" and not entry.low_signal and entry.available >= 300


def _learnable(entry: PoolEntry, kind: str) -> bool:
    """Data with something to learn, and a model with hidden layers."""
    return kind != "linear" and not entry.low_signal


def _pick(draft: Draft, choices: list[Any]) -> Any:
    return choices[draft.random.integers(len(choices))]


def _fixed_epochs(draft: Draft) -> None:
    """Fixed epochs at a constant rate, as a run without patience has."""
    draft.context({"schedule": {"kind": "constant"}, **NO_PATIENCE})


def _patient(draft: Draft) -> None:
    """Trained until validation has not gained for ten evaluations."""
    rules = [{"kind": "diverged"}, {"kind": "patience", "patience": 10}]
    draft.context({"schedule": {"kind": "constant"}, "early_stop": rules})


def _overfitting(draft: Draft, s: int) -> Change:
    times = (1.3, 2, 3, 5)[s]
    wide: dict[str, Any] = {
        "mlp": {"hidden": [[64], [128, 64], [256, 128], [512, 256]][s], "dropout": 0.0},
        "cnn": {
            "channels": [[8, 16], [16, 32], [16, 32], [32, 32]][s],
            "dense": [[], [64], [128], [256]][s],
            "dropout": 0.0,
        },
    }.get(draft.kind, {"hidden": (48, 64, 96, 128)[s]})
    count = min(300 if draft.kind == "mlp" else 80, round(draft.document["train"]["epochs"] * times))
    patch = {"model": wide, "train": {"epochs": count}, "regularize": {"weight_decay": 0}, **NO_PATIENCE}
    if s >= 2 and draft.document["optimizer"]["kind"] in ("sgd", "ema_momentum", "heavy_ball", "nesterov"):
        patch["optimizer"] = {"kind": "adam", "lr": 2e-3}
    return Change(f"{wide}, {count} epochs without patience, dropout and decay", patch)


def _underfitting(draft: Draft, s: int) -> Change:
    ways = {"mlp": ["narrow", "penalty", "dropout"], "cnn": ["narrow", "penalty"], "linear": ["penalty"]}
    way = _pick(draft, ways.get(draft.kind, ["narrow"]))
    if way == "dropout":
        share = (0.4, 0.7, 0.85, 0.95)[s]
        return Change(f"dropout {share}", {"model": {"dropout": share}})
    if way == "penalty":
        l2 = (1.0, 30.0, 200.0, 1000.0)[s]
        return Change(f"l2 {l2}", {"regularize": {"l2": l2, "weight_decay": 0}})
    width = (16, 4, 2, 1)[s]
    if draft.kind == "cnn":
        return Change(f"{width} channels", {"model": {"channels": [width, width], "head": "global_average"}})
    return Change(f"width {width}", {"model": {"hidden": [width] if draft.kind == "mlp" else width}})


def _plain_layers(draft: Draft) -> None:
    kind, lr = _pick(draft, [("sgd", 0.1), ("ema_momentum", 0.1), ("sgd", 0.05), ("adam", 1e-3)])
    draft.context(
        {"model": {"hidden": [32, 32], "activation": "relu", "dropout": 0.0}, "optimizer": {"kind": kind, "lr": lr}}
    )


def _optimization_failure(draft: Draft, s: int) -> Change:
    depth = (8, 20, 35, 55)[s]
    return Change(f"{depth} plain layers", {"model": {"hidden": [32] * depth}})


def _rate_too_high(draft: Draft, s: int) -> Change:
    factor = (3, 20, 100, 600)[s] * float(draft.random.uniform(0.8, 1.25))
    return _rate(draft, factor)


def _rate_too_low(draft: Draft, s: int) -> Change:
    factor = (1 / 2, 1 / 20, 1 / 150, 1 / 1500)[s] * float(draft.random.uniform(0.8, 1.25))
    return _rate(draft, factor)


def _rate(draft: Draft, factor: float) -> Change:
    rate = float(f"{draft.document['optimizer']['lr'] * factor:.2g}")
    return Change(f"{draft.document['optimizer']['kind']} {rate:g}, {factor:.2g} times", {"optimizer": {"lr": rate}})


def _gradient_descent(draft: Draft) -> None:
    kind, lr = _pick(draft, [("sgd", 0.1), ("ema_momentum", 0.1), ("heavy_ball", 0.02)])
    draft.context({"model": {"hidden": [32, 32], "dropout": 0.0}, "optimizer": {"kind": kind, "lr": lr}})


def _vanishing(draft: Draft, s: int) -> Change:
    if draft.random.random() < 0.6:
        depth = (2, 4, 6, 9)[s]
        return Change(f"{depth} sigmoid layers", {"model": {"hidden": [32] * depth, "activation": "sigmoid"}})
    depth, std = (3, 4, 5, 6)[s], (0.1, 0.08, 0.05, 0.02)[s]
    model = {"hidden": [32] * depth, "activation": "tanh", "init": {"kind": "normal", "std": std}}
    return Change(f"{depth} layers, weights normal {std}", {"model": model})


def _four_layers(draft: Draft) -> None:
    draft.context({"model": {"hidden": [64, 64, 64, 32], "activation": "relu", "dropout": 0.0}})


def _exploding(draft: Draft, s: int) -> Change:
    std = (0.2, 0.5, 1.0, 1.8)[s]
    normal = {"kind": "normal", "std": std}
    wide = {"kind": "uniform", "low": -1.7 * std, "high": 1.7 * std}
    init = _pick(draft, [normal, wide])
    return Change(f"weights {init['kind']} of deviation {std}", {"model": {"init": init}})


def _relu_layers(draft: Draft) -> None:
    draft.context({"model": {"hidden": [48, 32], "activation": "relu", "dropout": 0.0}})


def _dead_units(draft: Draft, s: int) -> Change:
    low, high = [(-0.3, 0.25), (-0.3, 0.08), (-0.3, -0.02), (-0.5, -0.1)][s]
    return Change(f"weights from {low} to {high}", {"model": {"init": {"kind": "uniform", "low": low, "high": high}}})


def _symmetric(draft: Draft, s: int) -> Change:
    if s == 3:
        return Change("weights 0", {"model": {"init": {"kind": "zeros"}}})
    relative = (1.0, 1e-5, 1e-7)[s]
    init = {"kind": "uniform", "low": 0.05, "high": 0.05 * (1 + relative)} if s else {"kind": "normal", "std": 0.05}
    return Change(f"weights {init}", {"model": {"init": init}})


def _bounded_units(draft: Draft) -> None:
    activation = _pick(draft, ["tanh", "sigmoid"])
    draft.context({"model": {"hidden": [64, 32], "activation": activation, "dropout": 0.0}})


def _saturated(draft: Draft, s: int) -> Change:
    std = (0.3, 1.0, 2.5, 5.0)[s]
    return Change(f"weights normal {std}", {"model": {"init": {"kind": "normal", "std": std}}})


def _scaled(draft: Draft) -> None:
    draft.context({"preprocess": [{"kind": "z_score"}]})


def _unscaled(draft: Draft, s: int) -> Change:
    """The sizes of the inputs are part of the data; their scaling is what the fault leaves out."""
    if draft.entry.form == "vector":
        draft.recipe["spread"] = (0.3, 1.2, 2.0, 3.0)[s]
        return Change(f"columns spread over 10^+-{draft.recipe['spread']}, not scaled", {"preprocess": []})
    draft.recipe["scale"] = (2.0, 30.0, 255.0, 3000.0)[s]
    return Change(f"inputs times {draft.recipe['scale']:g}, not scaled", {"preprocess": []})


def _label_noise(draft: Draft, s: int) -> Change:
    share = (0.02, 0.12, 0.25, 0.4)[s] * (0.75 if draft.entry.classes == 2 else 1.0)
    return Change(f"{share:.0%} of the labels wrong", recipe={"label_noise": share})


def _prepare_imbalance(draft: Draft) -> None:
    draft.recipe["imbalance"] = {"classes": 1, "ratio": 1.0, "thinned": False}


def _imbalance(draft: Draft, s: int) -> Change:
    """The twin has as many samples in all, with the classes' natural shares."""
    ratio, classes = (1.5, 8.0, 20.0, 50.0)[s], max(1, draft.entry.classes // 4)
    planted = {"classes": classes, "ratio": ratio, "thinned": True}
    draft.recipe["imbalance"] = {**planted, "thinned": False}
    return Change(f"{classes} of the classes {ratio:g} times rarer", recipe={"imbalance": planted})


def _ships_parts(draft: Draft) -> None:
    draft.recipe["ships_parts"] = True


def _mismatch(draft: Draft, s: int) -> Change:
    amount, change = (0.05, 0.5, 1.0, 2.0)[s], _pick(draft, sorted(CHANGES))
    parts = _pick(draft, ["test", "test", "held_out"])
    planted = {"change": change, "amount": amount, "parts": parts}
    return Change(f"{change} of {amount} in the {parts} part", recipe={"mismatch": planted})


def _prepare_leakage(draft: Draft) -> None:
    ways = ["held_out", "copies"] + (["column"] if draft.entry.form == "vector" else [])
    way = _pick(draft, ways)
    if way == "held_out":
        draft.recipe["ships_parts"] = True
    elif way == "column":
        draft.recipe["revealing"] = None


def _leakage(draft: Draft, s: int) -> Change:
    if draft.recipe.get("ships_parts"):
        share = (0.01, 0.1, 0.3, 0.6)[s]
        return Change(f"{share:.0%} of held-out samples trained on", recipe={"leak": share})
    if "revealing" in draft.recipe:
        noise = (3.0, 0.5, 0.1, 0.0)[s]
        return Change(f"a column is the target and noise of {noise} deviations", recipe={"revealing": noise})
    copies = (2, 2, 3, 4)[s]
    return Change(f"every sample {copies} times", recipe={"copies": copies})


def _few_validation(draft: Draft, s: int) -> Change:
    count = (60, 25, 12, 6)[s]
    parts = {"train": draft.samples - 2 * count, "validation": count, "test": count}
    return Change(f"{count} validation samples", {"split": parts})


def _stopped(draft: Draft, s: int) -> Change:
    count = max(2, round(draft.document["train"]["epochs"] * (0.7, 0.2, 0.08, 0.03)[s]))
    return Change(f"{count} epochs", {"train": {"epochs": count}})


def _prepare_loss(draft: Draft) -> None:
    if draft.classes:
        draft.context({"loss": {"kind": "cross_entropy"}})
        return
    draft.context({"loss": {"kind": "huber"}})
    draft.recipe["outliers"] = {"share": 0.0, "size": 15.0}


def _wrong_loss(draft: Draft, s: int) -> Change:
    if draft.classes:
        kind = ("focal", "binary_cross_entropy", "mse", "mse")[s]
        return Change(f"{kind} on classes", {"loss": {"kind": kind}})
    draft.recipe["outliers"] = {"share": (0.002, 0.01, 0.03, 0.06)[s], "size": 15.0}
    return Change(f"squared error with {draft.recipe['outliers']['share']:.1%} outliers", {"loss": {"kind": "mse"}})


def _noisy_labels_apply(entry: PoolEntry, kind: str) -> bool:
    return entry.classes > 0 and not entry.low_signal and entry.available >= 400


def _imbalance_applies(entry: PoolEntry, kind: str) -> bool:
    names = ("digits", "mnist", "fashion", "letters", "satellite", "vehicle", "spam", "adult", "clusters", "speech")
    return entry.name in names or (entry.name in ("pima", "overlapping") and kind == "mlp")


def _loss_matters(entry: PoolEntry, kind: str) -> bool:
    return not entry.classes or (not entry.low_signal and kind != "linear")


def _overfits(entry: PoolEntry, kind: str) -> bool:
    return kind != "linear" and entry.name not in ("iris", "wine", "shuttle", "italy_power")


FAULTS: dict[Code, Fault] = {
    "overfitting": Fault(_overfitting, _patient, applies=_overfits, samples=SMALL),
    "underfitting_model_bias": Fault(_underfitting, applies=lambda entry, kind: not entry.low_signal),
    "optimization_failure": Fault(_optimization_failure, _plain_layers, _deep_kinds, (600, 1500)),
    "learning_rate_too_high": Fault(_rate_too_high),
    "learning_rate_too_low": Fault(_rate_too_low, _fixed_epochs),
    "vanishing_gradients": Fault(_vanishing, _gradient_descent, _deep_kinds),
    "exploding_gradients": Fault(_exploding, _four_layers, _deep_kinds),
    "dead_units": Fault(_dead_units, _relu_layers, _deep_kinds),
    "symmetric_initialization": Fault(_symmetric, applies=_learnable),
    "saturated_activations": Fault(_saturated, _bounded_units, _deep_kinds),
    "unscaled_inputs": Fault(_unscaled, _scaled, lambda entry, kind: entry.form != "sequence"),
    "label_noise": Fault(_label_noise, applies=_noisy_labels_apply, of_data=True),
    "class_imbalance": Fault(_imbalance, _prepare_imbalance, _imbalance_applies, (1500, 4000), of_data=True),
    "distribution_mismatch": Fault(_mismatch, _ships_parts, lambda entry, kind: entry.available >= 300, of_data=True),
    "leakage": Fault(_leakage, _prepare_leakage, of_data=True),
    "validation_too_small": Fault(
        _few_validation, applies=lambda entry, kind: entry.available >= 300, samples=(300, 1500), of_data=True
    ),
    "stopped_too_early": Fault(_stopped, _fixed_epochs),
    "wrong_loss": Fault(_wrong_loss, _prepare_loss, _loss_matters),
}

APART: tuple[tuple[Code, Code], ...] = (
    ("overfitting", "validation_too_small"),
    ("overfitting", "class_imbalance"),
    ("overfitting", "leakage"),
    ("stopped_too_early", "label_noise"),
    ("underfitting_model_bias", "label_noise"),
    ("learning_rate_too_low", "label_noise"),
    ("optimization_failure", "class_imbalance"),
)
"""Pairs of which one hides the other, or that need different numbers of samples."""


def fits_together(one: Code, other: Code) -> bool:
    """Return whether both may be planted in one run."""
    return (one, other) not in APART and (other, one) not in APART
