"""The cheap models that a network has to beat, as specs on the same data, split, preprocessing and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.checks.sklearn_models import MOST_SVM_SAMPLES, svm_share
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.forecasting import cuts_windows, windowed
from trainkit.spec.preprocess import PreprocessStep
from trainkit.spec.resolve import ResolvedSpec, resolve

KEPT = ("labels", "dataset", "task", "split", "balance", "target_scaling", "resources")
"""What a baseline has in common with the spec it is held against; the rest is its own."""
KEPT_OF_TRAIN = ("seed", "threads", "deterministic", "monitor")
SCALING = ("z_score", "min_max", "whiten")
BATCH = 64
STEPS = 3000
"""About so many steps: with Adam at 1e-2 a linear model, at 1e-3 a small network, has settled by then."""
LEAST_EPOCHS, MOST_EPOCHS = 20, 200
PATIENCE = 10

Document = dict[str, Any]


def baselines(document: Mapping[str, Any], facts: DatasetFacts) -> list[tuple[str, Document]]:
    """(name, spec) of each cheap model that can learn the task; all are valid specs of the dataset.

    linear, linear_svm (classes) and small_mlp; sequences of different lengths have small_gru in their place. Tables and
    arrays of vectors also have gradient_boosting and rbf_svm (on a random share of more than 20,000 training samples),
    and z_score where nothing scales. Raises SpecError for a document that is no valid spec.
    """
    resolved = resolve(document, facts)
    spec = resolved.spec
    seen = windowed(spec, facts) if cuts_windows(spec, facts) else facts
    context = CheckContext(spec, seen, spec.task or "classification", resolved.sample, resolved.outputs)
    common = _common(document, resolved, facts)
    trained = {**common, "train": {**common["train"], **_training(context)}, **_stopping(spec.train.monitor)}
    fast = {**trained, "optimizer": {"kind": "adam", "lr": 1e-2}}
    found: dict[str, Document] = {}
    if resolved.sample.form == "sequence" and facts.lengths is not None and facts.lengths[0] != facts.lengths[1]:
        found["small_gru"] = {**trained, "model": {"kind": "gru", "hidden": 32}}
    else:
        found["linear"] = {**fast, "model": {"kind": "linear"}}
        if context.classification:
            found["linear_svm"] = {**fast, "model": {"kind": "linear_svm"}}
        found["small_mlp"] = {**trained, "model": {"kind": "mlp", "hidden": [64]}}
    if _of_vectors(resolved, facts):
        found["gradient_boosting"] = {**common, "model": {"kind": "gradient_boosting"}}
        found["rbf_svm"] = {**common, **_few_enough(context), "model": {"kind": "rbf_svm"}}
    return [(name, {**baseline, "name": f"baseline {name}"}) for name, baseline in found.items()]


def _of_vectors(resolved: ResolvedSpec, facts: DatasetFacts) -> bool:
    return facts.kind in ("table", "arrays") and resolved.sample.form == "vector"


def _common(document: Mapping[str, Any], resolved: ResolvedSpec, facts: DatasetFacts) -> Document:
    train = document.get("train") or {}
    steps = resolved.spec.preprocess or ()
    scales = any(step.kind in SCALING for step in steps) or not _of_vectors(resolved, facts)
    return {
        **{name: document[name] for name in KEPT if name in document},
        "preprocess": [step.model_dump(mode="json") for step in steps] if scales else with_z_score(steps),
        "train": {name: train[name] for name in KEPT_OF_TRAIN if name in train},
    }


def with_z_score(steps: Sequence[PreprocessStep]) -> list[dict[str, Any]]:
    """z_score behind impute, which must come first, and before the steps that look at directions."""
    first = [step for step in steps if step.kind == "impute"]
    rest = [step for step in steps if step.kind not in ("impute", "zero_mean")]
    first_documents, rest_documents = ([step.model_dump(mode="json") for step in part] for part in (first, rest))
    return [*first_documents, {"kind": "z_score"}, *rest_documents]


def _training(context: CheckContext) -> Document:
    epochs = math.ceil(STEPS * BATCH / context.training_samples)
    return {"epochs": min(MOST_EPOCHS, max(LEAST_EPOCHS, epochs)), "batch_size": BATCH}


def _stopping(monitor: str | None) -> Document:
    if monitor is None:
        return {}
    return {"early_stop": [{"kind": "diverged"}, {"kind": "patience", "monitor": monitor, "patience": PATIENCE}]}


def _few_enough(context: CheckContext) -> Document:
    if context.training_samples <= MOST_SVM_SAMPLES:
        return {}
    split = context.spec.split.model_dump(mode="json", exclude_none=True)
    return {"split": {**split, "subsample": svm_share(context.spec, context.training_samples)}}
