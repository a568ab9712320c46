"""EncodedTargets: class indices, or numbers scaled for training and scaled back in every metric and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import Dataset, TableInputs
from trainkit.data.dataset import number_classes
from trainkit.data.errors import data_error
from trainkit.spec import JobSpec
from trainkit.spec.facts import is_classification, target_column


@dataclass(frozen=True, slots=True)
class EncodedTargets:
    """All samples' targets: class indices (n,) int64 with `classes`, or numbers (n, k) float64 without."""

    values: NDArray[Any]
    """-1 or NaN for a sample without a target."""
    classes: tuple[str, ...] | None
    labelled: NDArray[np.int64] | None = None
    """The samples with a target; None: all have one."""


def read_targets(spec: JobSpec, data: Dataset) -> EncodedTargets:
    """The dataset's targets; a table's come from its target column. `spec` is a resolved one."""
    classification = spec.task is not None and is_classification(spec.task)
    if isinstance(data.inputs, TableInputs):
        return _from_column(spec, data, classification)
    if data.targets is None:
        raise ValueError("the dataset has no targets to learn")
    values = np.asarray(data.targets)
    if classification:
        return EncodedTargets(
            _within(values.astype(np.int64), len(data.facts.classes or ())), tuple(data.facts.classes or ())
        )
    return EncodedTargets(values.astype(np.float64).reshape(len(values), -1), None)


def _from_column(spec: JobSpec, data: Dataset, classification: bool) -> EncodedTargets:
    facts = target_column(spec, data.facts)
    assert facts is not None  # resolve() has refused a spec without a target column
    assert isinstance(data.inputs, TableInputs)
    column = data.inputs.columns[facts.name]
    values = np.asarray(column.values)
    gaps = values < 0 if column.categories is not None else np.isnan(values)
    labelled = np.flatnonzero(~gaps) if gaps.any() else None
    if not classification:
        return EncodedTargets(values.astype(np.float64).reshape(-1, 1), None, labelled)
    classes = tuple(facts.categories or ())
    labels = np.full(len(values), -1, np.int64)
    if facts.type == "categorical":
        place = {name: position for position, name in enumerate(classes)}
        codes = np.array([place[name] for name in column.categories or ()], np.int64)
        labels[~gaps] = codes[_within(values[~gaps], len(codes))]
    else:
        labels[~gaps] = number_classes(column, values[~gaps].astype(np.float64))[0]
    return EncodedTargets(labels, classes, labelled)


def _within(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """The labels; the intake has checked them, but what is on a disk may change. Raises DataError."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        message = f"the label {int(labels[bad[0]])} is outside 0..{classes - 1}"
        raise data_error("class_out_of_range", message, f"sample {int(bad[0])}", "Upload the dataset again.")
    return labels


@dataclass(frozen=True, slots=True)
class TargetScaler:
    """scaled = (y - shift) / scale, per target; fitted on the training part."""

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, kind: str, train: NDArray[np.float64]) -> TargetScaler:
        """`z_score` (population deviation), `min_max` to [0, 1], or `none`. A constant target is only shifted."""
        width = train.shape[1]
        if kind == "z_score":
            shift, scale = train.mean(0), train.std(0)
        elif kind == "min_max":
            shift, scale = train.min(0), train.max(0) - train.min(0)
        else:
            shift, scale = np.zeros(width), np.ones(width)
        return cls(shift, np.where(scale > 0, scale, 1.0))

    def apply(self, y: NDArray[np.float64]) -> NDArray[np.float32]:
        """To the scale that the model is trained on."""
        return ((y - self.shift) / self.scale).astype(np.float32)

    def invert(self, z: NDArray[Any]) -> NDArray[np.float64]:
        """Back to the targets' own units."""
        return z.astype(np.float64) * self.scale + self.shift

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"shift": self.shift.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TargetScaler:
        """What `state` gave."""
        return cls(np.array(state["shift"], np.float64), np.array(state["scale"], np.float64))
