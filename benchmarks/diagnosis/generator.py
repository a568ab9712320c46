"""Cases from seeds: a dataset, a sound run on it, and what is planted in it. The seed alone determines a case.

Ten seeds in a row hold six runs with one fault, one with two, and three sound ones, in an order drawn for the ten; the
faults come in rounds in which each occurs once. So every range of seeds has nearly the same shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.diagnosis.case import FAMILIES, STRENGTHS, Case, Document, Draft, Family, Planted, Strength
from benchmarks.diagnosis.datasets import POOL, PoolEntry
from benchmarks.diagnosis.faults import FAULTS, fits_together
from trainkit.diagnose.verdicts import Code
from trainkit.spec.patch import merge_patch

STRENGTH_SHARES = (0.1, 0.25, 0.35, 0.3)
ROLES = ("one",) * 6 + ("two",) + ("sound",) * 3
FINAL_FROM = 1544
"""Seeds from here on are for the final figure only. Those from 1000 on were, until rules were made from their mistakes."""


def role_of(seed: int) -> str:
    """Return one, two or sound."""
    order = np.random.default_rng([seed // len(ROLES), 1]).permutation(len(ROLES))
    return ROLES[order[seed % len(ROLES)]]


def case(seed: int) -> Case:
    """Return the case of a seed."""
    random = np.random.default_rng([seed, 2])
    role, rank = role_of(seed), _rank(seed)
    if role == "sound":
        families = np.random.default_rng([rank // len(FAMILIES), 3]).permutation(len(FAMILIES))
        family = FAMILIES[families[rank % len(FAMILIES)]]
        draft = _sound(random, family, seed)
        return Case(seed, family, (), draft.recipe, draft.document, draft.recipe, draft.document)
    codes = np.random.default_rng([rank // len(FAULTS), 4, role == "two"]).permutation(len(FAULTS))
    code = list(FAULTS)[codes[rank % len(FAULTS)]]
    if role == "one":
        return planted_case(seed, random, [code])
    partners = [
        other for other in FAULTS if FAULTS[other].of_data != FAULTS[code].of_data and fits_together(code, other)
    ]
    other = partners[random.integers(len(partners))]
    return planted_case(seed, random, sorted([code, other], key=lambda one: FAULTS[one].of_data))


def _rank(seed: int) -> int:
    """Return how many smaller seeds have the same role."""
    begin = seed // len(ROLES) * len(ROLES)
    role = role_of(seed)
    return seed // len(ROLES) * ROLES.count(role) + sum(role_of(other) == role for other in range(begin, seed))


def planted_case(
    seed: int, random: np.random.Generator, codes: list[Code], strengths: list[Strength] | None = None
) -> Case:
    """Return a case with these faults; strengths are drawn where they are not given.

    The faults' contexts (a depth, an optimizer) are part of the twin, so that the twin differs by what is planted alone.
    """
    rules = [FAULTS[code] for code in codes]
    if strengths is None:
        # Two faults are strong enough to be told apart: one that is invisible, or that hides the other, is no second one.
        drawn = [random.choice(4, p=STRENGTH_SHARES) if len(codes) == 1 else 2 + random.integers(2) for _ in codes]
        strengths = [STRENGTHS[one] for one in drawn]
    draft = _draft(random, rules, seed)
    for rule in rules:
        rule.prepare(draft)
    changes = [rule.plant(draft, STRENGTHS.index(strength)) for rule, strength in zip(rules, strengths, strict=True)]
    recipe, document = dict(draft.recipe), draft.document
    planted = []
    for code, strength, change in zip(codes, strengths, changes, strict=True):
        alone = merge_patch(draft.document, change.document)
        planted.append(Planted(code, strength, change.what, {**draft.recipe, **change.recipe}, alone))
        recipe, document = {**recipe, **change.recipe}, merge_patch(document, change.document)
    return Case(seed, "ordinary", tuple(planted), recipe, document, draft.recipe, draft.document)


def _draft(random: np.random.Generator, rules: list[Any], seed: int) -> Draft:
    """A dataset and a model that all the faults may be planted in."""
    entries = {
        kind: [
            entry
            for entry in POOL.values()
            if kind in kinds_for(entry) and all(rule.applies(entry, kind) for rule in rules)
        ]
        for kind in KIND_WEIGHTS
    }
    kind = _kind(random, [kind for kind, found in entries.items() if found])
    entry = entries[kind][random.integers(len(entries[kind]))]
    limits = [rule.samples for rule in rules if rule.samples is not None]
    return sound_draft(random, entry, kind, seed, limits[0] if limits else USUAL_SAMPLES)


def _kind(random: np.random.Generator, kinds: list[str]) -> str:
    weights = np.array([KIND_WEIGHTS[kind] for kind in kinds])
    return kinds[random.choice(len(kinds), p=weights / weights.sum())]


KIND_WEIGHTS = {"linear": 1.0, "mlp": 5.0, "cnn": 2.0, "lstm": 1.0, "gru": 1.0}
USUAL_SAMPLES = (400, 2500)
MOST_SAMPLES = {"linear": 3000, "mlp": 3000, "cnn": 1500, "lstm": 1200, "gru": 1200}
"""So that a run takes seconds."""


def kinds_for(entry: PoolEntry) -> tuple[str, ...]:
    """Return the kinds of models that are sound choices for a dataset."""
    if entry.form == "sequence":
        return ("lstm", "gru")
    linear = ("linear",) if entry.linear else ()
    return (*linear, "mlp", "cnn", "lstm", "gru") if entry.form == "image" else (*linear, "mlp")


OPTIMIZERS: dict[str, tuple[float, float]] = {
    "adam": (2e-3, 5e-3),
    "adamw": (2e-3, 5e-3),
    "nadam": (2e-3, 4e-3),
    "rmsprop": (1e-3, 2e-3),
    "heavy_ball": (0.02, 0.04),
    "nesterov": (0.02, 0.04),
    "ema_momentum": (0.15, 0.3),
    "sgd": (0.1, 0.25),
}
"""Kind -> sound learning rates."""
RATE_FACTORS = {"linear": 2.0, "mlp": 1.0, "cnn": 1.0, "lstm": 2.0, "gru": 2.0}
ADAPTIVE = ("adam", "adamw", "nadam", "rmsprop")
UPDATES = {"linear": 3000, "mlp": 3000, "cnn": 1000, "lstm": 800, "gru": 800}
"""Steps within which a sound run converges."""


def sound_draft(
    random: np.random.Generator, entry: PoolEntry, kind: str, seed: int, samples: tuple[int, int] = USUAL_SAMPLES
) -> Draft:
    """Return a sound run of a kind of model on a dataset, with a number of samples drawn between `samples`."""
    most = min(entry.available, max(samples[1], entry.least), MOST_SAMPLES[kind])
    least = min(max(samples[0], entry.least), most)
    n = round(float(np.exp(random.uniform(np.log(least), np.log(most)))))
    form = {"cnn": "image", "lstm": "sequence", "gru": "sequence"}.get(kind)
    if form is None:
        form = "image" if entry.form == "image" else "table" if random.random() < 0.4 else "arrays"
    recipe = {"dataset": entry.name, "seed": seed, "n": n, "form": form}
    split = [(6, 2, 2), (7, 2, 1), (6, 3, 1)][random.integers(3)]
    train_samples = n * split[0] / 10
    batch = int(random.choice([16, 32] if train_samples < 600 else [32, 64]))
    names = ADAPTIVE[:3] if kind in ("lstm", "gru") else ADAPTIVE if kind == "cnn" else tuple(OPTIMIZERS)
    name = names[random.integers(len(names))]
    low, high = OPTIMIZERS[name]
    rate = float(f"{np.exp(random.uniform(np.log(low), np.log(high))) * RATE_FACTORS[kind]:.2g}")
    count = int(np.clip(round(UPDATES[kind] * batch / train_samples), 12, 150))
    patient = random.random() < 0.7
    document: Document = {
        "dataset": "d",
        "model": _model(random, entry, kind, n),
        "optimizer": {"kind": name, "lr": rate},
        "preprocess": [{"kind": "z_score"}] if _needs_scaling(entry, form) else [],
        "split": {"train": split[0], "validation": split[1], "test": split[2], "seed": seed},
        "train": {"epochs": count, "batch_size": batch, "seed": seed, "threads": 1},
        "early_stop": [{"kind": "diverged"}, *([{"kind": "patience", "patience": 10}] if patient else [])],
        "schedule": {"kind": "constant"} if patient else {"kind": "cosine"},
        "regularize": {"weight_decay": 0.01} if name in ADAPTIVE and random.random() < 0.5 else {},
        "resources": {"device": "cpu"},
    }
    return Draft(random, entry, kind, recipe, document)


def _needs_scaling(entry: PoolEntry, form: str) -> bool:
    """Images are between 0 and 1, and Japanese vowels of one size; the others' columns are not alike."""
    return entry.form == "vector" and form != "sequence"


def _model(random: np.random.Generator, entry: PoolEntry, kind: str, samples: int) -> Document:
    """A model as large as the number of samples allows, with dropout where they are few."""
    if kind == "linear":
        return {"kind": "linear"}
    if kind in ("lstm", "gru"):
        return {"kind": kind, "hidden": int(random.choice([32, 48, 64]))}
    if kind == "cnn":
        channels, norm = [[8, 16], [16, 32]][random.integers(2)], ["batch", "none"][random.integers(2)]
        dropout = float(random.choice([0.2, 0.3]))
        return {"kind": "cnn", "channels": channels, "norm": norm, "head": "flatten", "dropout": dropout}
    if samples < 600 or entry.low_signal:
        hidden, dropout = [[16], [32], [32, 16]][random.integers(3)], float(random.choice([0.1, 0.2]))
    else:
        hidden, dropout = [[64], [64, 32], [128, 64]][random.integers(3)], float(random.choice([0.0, 0.1, 0.2]))
    activation = ["relu", "relu", "relu", "tanh", "elu", "gelu"][random.integers(6)]
    return {"kind": "mlp", "hidden": hidden, "activation": activation, "dropout": dropout}


def _sound(random: np.random.Generator, family: Family, seed: int) -> Draft:
    """A sound run of a family."""
    kind = "mlp" if family == "unusual" else _kind(random, list(KIND_WEIGHTS))
    entries = [entry for entry in POOL.values() if kind in kinds_for(entry) and _suits(entry, family)]
    if not entries:  # images and sequences are neither weak nor noisy
        kind = "mlp"
        entries = [entry for entry in POOL.values() if _suits(entry, family)]
    entry = entries[random.integers(len(entries))]
    samples = {"small": (150, 350), "noisy": (800, 3000), "imbalanced": (800, 3000)}.get(family, USUAL_SAMPLES)
    draft = sound_draft(random, entry, kind, seed, samples)
    if family == "noisy":
        draft.recipe["input_noise"] = float(random.choice([0.5, 1.0]))
    elif family == "imbalanced" and entry.name != "shuttle":
        draft.recipe["imbalance"] = {"classes": 1, "ratio": float(random.choice([3.0, 5.0])), "thinned": True}
        draft.document["balance"] = "class_weights"
    elif family == "unusual":
        draft.context(UNUSUAL[random.integers(len(UNUSUAL))])
    return draft


def _suits(entry: PoolEntry, family: Family) -> bool:
    if entry.boosting:
        return False
    if family == "low_signal":
        return entry.low_signal
    if family == "imbalanced":
        return entry.name in ("shuttle", "digits", "mnist", "satellite", "breast_cancer")
    if family == "noisy":
        return entry.form == "vector" and entry.available >= 800 and not entry.low_signal
    if family == "small":
        return not entry.least and entry.name not in ("friedman", "weak_linear")
    return not entry.low_signal and (family != "unusual" or entry.form == "vector")


UNUSUAL: tuple[Document, ...] = (
    {"model": {"hidden": [32] * 8, "norm": "batch", "dropout": 0.0}, "optimizer": {"kind": "adam", "lr": 1e-3}},
    {"model": {"hidden": [128, 128], "dropout": 0.4}, "optimizer": {"kind": "adam", "lr": 2e-3}},
    {"model": {"hidden": [64], "activation": "sigmoid"}, "optimizer": {"kind": "adam", "lr": 1e-2}},
    {"optimizer": {"kind": "adamw", "lr": 2e-3}, "regularize": {"weight_decay": 0.1}},
    {"optimizer": {"kind": "adam", "lr": 8e-3}, "train": {"batch_size": 128}},
    {"model": {"hidden": [64, 64], "init": {"kind": "normal", "std": 0.05}}, "optimizer": {"kind": "adam", "lr": 2e-3}},
)
"""Settings that a rule might take for a fault."""
