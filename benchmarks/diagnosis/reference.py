"""Is a run that is meant to be sound as good as its data allow? Quick references on the same training part say so.

Gradient boosting, and logistic or ridge regression on standardised inputs, of scikit-learn. They are independent of the
library, so that neither its rules nor its own references decide what a sound run is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.diagnosis.effects import MeasuredEffect, paired, paired_recall
from benchmarks.diagnosis.planted_data import CaseData
from benchmarks.diagnosis.trial import Trial, cached_json, data_of
from trainkit.data import split_indices
from trainkit.data.dataset import ImageInputs, SequenceInputs, TableInputs
from trainkit.diagnose.record import Record

MATERIAL = 0.03
"""A run is not as good as its data allow if a reference is better by this much, and by more than noise."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The best of the references on the samples aside, and its gain over the run."""

    name: str
    effect: MeasuredEffect

    @property
    def better(self) -> bool:
        return self.effect.outcome == "better" and self.effect.gain > MATERIAL

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"name": self.name, "better": self.better, **asdict(self.effect)}


def reference_gain(recipe: Mapping[str, Any], run: Trial) -> Reference | None:
    """Return the best reference against a run, by accuracy and by mean recall, or by R^2.

    None for sequences of different lengths, which none of them reads.
    """
    data = data_of(recipe)
    key = ["reference", recipe, run.record.spec.split.model_dump(mode="json")]
    scores = cached_json(key, lambda: _scores(data, run.record))
    found = [Reference(name, paired("score", run.aside.score, np.array(score))) for name, score in scores.items()]
    if run.record.classification:  # a class that is given up costs little accuracy where it is small
        recall = (paired_recall(run.aside.score, np.array(score), run.aside.targets) for score in scores.values())
        found += [Reference(name, effect) for name, effect in zip(scores, recall, strict=True)]
    return max(found, key=lambda one: (one.better, one.effect.gain), default=None)


def _scores(data: CaseData, record: Record) -> dict[str, list[float]]:
    """`Aside.score` of each reference."""
    matrices, targets = _matrices(data), np.asarray(data.dataset.targets)
    if matrices is None:
        return {}
    inputs, aside = matrices
    labels = targets if record.classification else None
    rows = split_indices(record.spec.split, len(targets), labels, data.dataset.split).train
    scores = {}
    for name, model in _models(record.classification).items():
        answers = model.fit(inputs[rows], targets[rows]).predict(aside)
        scores[name] = np.round(_score(answers, data.aside_targets), 5).tolist()
    return scores


def _models(classification: bool) -> dict[str, Any]:
    if classification:
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
        return {"gradient boosting": HistGradientBoostingClassifier(random_state=0), "logistic regression": linear}
    linear = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 3, 9)))
    return {"gradient boosting": HistGradientBoostingRegressor(random_state=0), "ridge": linear}


def _score(answers: Any, truth: Any) -> Any:
    return (
        (answers == truth).astype(np.float64) if truth.dtype.kind == "i" else 1 - ((answers - truth) / truth.std()) ** 2
    )


def _matrices(data: CaseData) -> tuple[Any, Any] | None:
    """Inputs of the run and aside, flat; None where sequences have different lengths."""
    inputs = data.dataset.inputs
    if isinstance(inputs, TableInputs):
        names = [name for name in inputs.columns if name != data.dataset.facts.target]
        aside = np.array([[row[name] for name in names] for row in data.aside_inputs])
        return np.column_stack([inputs.columns[name].values for name in names]), aside
    if isinstance(inputs, SequenceInputs):
        lengths = {*np.diff(inputs.offsets).tolist(), *map(len, data.aside_inputs)}
        if len(lengths) > 1:
            return None
    assert not isinstance(inputs, ImageInputs)
    values, aside = np.asarray(inputs.values), np.asarray(data.aside_inputs)
    return values.reshape(data.dataset.facts.samples, -1), aside.reshape(len(aside), -1)
