"""The input of a diagnosis: the spec of a run, its dataset's facts and report, and its logged series."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.attainable import Attainable
from trainkit.spec import DatasetFacts, JobSpec, ResolvedSpec, SpecError, resolve
from trainkit.spec.checks.context import CheckContext
from trainkit.spec.estimate import estimate
from trainkit.spec.facts import class_counts, is_classification
from trainkit.spec.forecasting import cuts_windows, windowed

Floats = NDArray[np.float64]
MEAN_PREDICTION_LOSS = {"mse": 1.0, "mae": math.sqrt(2 / math.pi), "huber": 0.5}
"""Loss of predicting the mean of z-scored targets: exact for mse, of a normal for mae, an upper bound for huber."""
LOW_SKILL = 0.5
"""A skill below this counts as little learnt: the model removes less than half of the baseline loss."""
HIGH_SKILL = 0.9
"""From this skill on the training itself has no fault that is worth a verdict."""
VERY_LOW_SKILL = 0.25
"""Skill above which the data may hold no more: in many tables half of the variance is noise."""
NO_SKILL = 0.1
"""A skill below this at the end counts as a plateau, whatever the last epochs gained."""


@dataclass(frozen=True, slots=True)
class Series:
    """One logged series without superseded rows, in order."""

    step: NDArray[np.int64]
    epoch: NDArray[np.int64]
    value: Floats

    def __len__(self) -> int:
        return len(self.value)

    @property
    def finite(self) -> Series:
        """The series without NaN and infinite values."""
        good = np.isfinite(self.value)
        return Series(self.step[good], self.epoch[good], self.value[good])


EMPTY = Series(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Record:
    """A run: its log, dataset, evaluation and final state. `spec` is resolved, `document` is the spec as submitted."""

    spec: JobSpec
    facts: DatasetFacts
    series: Mapping[str, Series] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    state: str = "running"
    stop_reason: str | None = None
    document: Mapping[str, Any] | None = None
    attainable: Attainable | None = None
    """What reference models reach on the same dataset and split; None where it has not been measured."""

    @property
    def reference(self) -> Attainable | None:
        """What is attainable, where that is known."""
        return self.attainable if self.attainable is not None and self.attainable.is_known else None

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.state in ("succeeded", "stopped", "cancelled", "failed")

    def get(self, name: str) -> Series:
        """Return the finite values of a series; empty when it was not logged."""
        return self.series[name].finite if name in self.series else EMPTY

    def layers(self, name: str) -> dict[str, Series]:
        """Return path -> series of each layer, from the input to the output."""
        prefix = f"layers_{name}."
        paths = sorted((key[len(prefix) :] for key in self.series if key.startswith(prefix)), key=_layer_order)
        return {path: self.get(prefix + path) for path in paths}

    @cached_property
    def resolved(self) -> ResolvedSpec | None:
        """The spec with shapes; None where it does not fit the facts."""
        try:
            return resolve(self.spec, self.facts)
        except SpecError:
            return None

    @property
    def classification(self) -> bool:
        return self.spec.task is not None and is_classification(self.spec.task)

    @cached_property
    def parts(self) -> tuple[int, int, int]:
        """Numbers of samples in (train, validation, test)."""
        if self.resolved is None:
            return self.facts.samples, 0, 0
        spec, facts = self.spec, self.facts
        if cuts_windows(spec, facts):
            facts = windowed(spec, facts)
        context = CheckContext(spec, facts, spec.task or "classification", self.resolved.sample, self.resolved.outputs)
        return context.training_samples, context.parts[1], context.parts[2]

    @cached_property
    def parameters(self) -> int | None:
        """Number of weights and biases, estimated from shapes."""
        if self.resolved is None or self.spec.model.kind == "ensemble":
            return None
        return int(estimate(self.resolved, self.facts)["parameters"]) or None

    @cached_property
    def classes(self) -> dict[str, int]:
        """Class -> number of samples in the dataset; empty for regression."""
        return dict(class_counts(self.spec, self.facts) or {}) if self.classification else {}

    @cached_property
    def baseline(self) -> float | None:
        """Loss of the best constant prediction.

        Cross entropy: the classes' entropy -sum p ln p (balanced: ln K); binary cross entropy: the sum of each class's;
        mse on one-hot targets: mean p(1-p); hinge: the margin. Regression: the loss of predicting the mean of z-scored
        targets; None for unscaled targets.
        """
        kind = self.spec.loss.kind if self.spec.loss else "cross_entropy"
        if not self.classification:
            return MEAN_PREDICTION_LOSS.get(kind) if self.spec.target_scaling in ("auto", "z_score") else None
        shares = self.shares
        if kind in ("cross_entropy", "focal"):
            return _entropy(shares)
        if kind == "binary_cross_entropy":
            return float(sum(_entropy(np.array([p, 1 - p])) for p in shares))
        if kind == "mse":
            return float((shares * (1 - shares)).mean())
        return float(getattr(self.spec.loss, "margin", 1.0))

    @property
    def shares(self) -> Floats:
        """Share of each class in the training loss: equal where `balance` is used, by n_k w_k with weights by hand."""
        counts = np.array([max(count, 0) for count in self.classes.values()], np.float64)
        if isinstance(self.spec.balance, dict):
            counts *= [self.spec.balance.get(name, 1.0) for name in self.classes]
        elif self.spec.balance != "none":
            return np.full(len(counts), 1.0 / max(len(counts), 1))
        shares: Floats = counts / (counts.sum() or 1.0)
        return shares

    @property
    def floor(self) -> float:
        """The minimum of the loss: above 0 for a cross entropy with label smoothing."""
        share, kind = self.spec.regularize.label_smoothing, self.spec.loss.kind if self.spec.loss else ""
        if not share or kind != "cross_entropy" or len(self.classes) < 2:
            return 0.0
        rest = share / len(self.classes)
        return _entropy(np.array([1 - share + rest, *[rest] * (len(self.classes) - 1)]))

    def skill(self, split: str) -> Floats:
        """Return the skill at each evaluation: 1 - (loss - floor) / (baseline - floor); 0 is a constant prediction.

        Regression: R^2; for training 1 - mse / variance with the variance of validation, mse / (1 - R^2).
        """
        if not self.classification and len(self.get("val_r2")):
            if split == "val":
                return self.get("val_r2").value
            mse, r2 = self.get("val_mse"), self.get("val_r2")  # of which one may be finite where the other is not
            _, of_mse, of_r2 = np.intersect1d(mse.step, r2.step, return_indices=True)
            variance = mse.value[of_mse] / np.maximum(1 - r2.value[of_r2], 1e-12)
            usual = float(np.median(variance)) if len(variance) else 0.0
            return 1 - self.get("train_mse").value / usual if usual > 0 else np.empty(0)
        if self.baseline is None or self.baseline <= self.floor:
            return np.empty(0)
        return 1 - (self.get(f"{split}_loss").value - self.floor) / (self.baseline - self.floor)

    @property
    def final_skill(self) -> float | None:
        """Skill at the end: the larger of training's and validation's median over the last three evaluations.

        Dropout and augmentation raise the training loss, so that validation may show the higher skill.
        """
        found = [float(np.median(values[-3:])) for split in ("train", "val") if len(values := self.skill(split))]
        return max(found) if found else None

    @property
    def scale(self) -> float | None:
        """Unit for differences of losses: the baseline, else the first logged batch loss."""
        if self.baseline:
            return self.baseline
        first = self.get("train_batch_loss").value[:1]
        return float(first[0]) if len(first) and first[0] > 0 else None

    def findings(self, *codes: str) -> list[dict[str, Any]]:
        """Return the findings of the dataset report that have one of these codes."""
        return [found for found in self.report.get("findings") or () if found.get("code") in codes]


def leading_count(text: str) -> int:
    """Return the number at the beginning of a finding's message, else 0."""
    found = re.match(r"\d+", text)
    return int(found.group()) if found else 0


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _layer_order(path: str) -> tuple[int, list[tuple[int, str]]]:
    """Sort key of a layer's path: body before head, numbers by value."""
    pieces = re.split(r"(\d+)", path)
    return int(path.startswith("head")), [(int(p), "") if p.isdigit() else (0, p) for p in pieces]
