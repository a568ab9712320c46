"""Records of runs that never were: series by formula, for the tests of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainkit.diagnose.record import Record, Series
from trainkit.spec import DatasetFacts, JobSpec, resolve

STEPS = 10
"""Steps of an epoch."""
TEN = {"kind": "images", "samples": 2000, "input_shape": (1, 8, 8), "input_dtype": "uint8", "target_type": "class"}


def facts(**changes: Any) -> DatasetFacts:
    """2000 pictures of ten even classes: the baseline is ln 10 = 2.303."""
    return DatasetFacts.model_validate({**TEN, "classes": {str(k): 200 for k in range(10)}, **changes})


def table(**changes: Any) -> DatasetFacts:
    """300 rows of two measurements and a number to predict."""
    columns = [{"name": name, "type": "numeric", "unique": 300} for name in ("a", "b", "y")]
    return DatasetFacts.model_validate({"kind": "table", "samples": 300, "target": "y", "columns": columns, **changes})


def series(values: Sequence[float]) -> Series:
    """One value an epoch."""
    epochs = np.arange(1, len(values) + 1)
    return Series(epochs * STEPS, epochs, np.array(values, np.float64))


def record(
    spec: dict[str, Any] | None = None, about: DatasetFacts | None = None, *, ended: str = "completed", **given: Any
) -> Record:
    """An ended MLP on `facts()`. Lists are series by name, in which `__` stands for a dot; the rest is the record's."""
    document = {"dataset": "ds_1", "model": {"kind": "mlp"}, **(spec or {})}
    about = about or facts()
    named = {name.replace("__", "."): series(value) for name, value in given.items() if isinstance(value, list)}
    rest = {name: value for name, value in given.items() if not isinstance(value, list)}
    return Record(
        **{
            "spec": resolve(JobSpec.model_validate(document), about).spec,
            "facts": about,
            "series": named,
            "state": "succeeded",
            "stop_reason": ended,
            "document": document,
            **rest,
        }
    )


def falling(start: float, end: float, epochs: int = 12, half: float = 2.0) -> list[float]:
    """From `start` towards `end`, half of the way every `half` epochs."""
    return [end + (start - end) * 0.5 ** (k / half) for k in range(epochs)]


def well(**changes: Any) -> dict[str, Any]:
    """The series of a run in which all is well: 2.3 -> 0.1, validation a little behind, usual norms and no idle units."""
    n = 12
    return {
        "train_loss": falling(2.0, 0.1),
        "val_loss": falling(1.9, 0.15),
        "val_loss_se": [0.03] * n,
        "train_accuracy": [1 - loss / 2.3 for loss in falling(2.0, 0.1)],
        "val_accuracy": [1 - loss / 2.3 for loss in falling(1.9, 0.15)],
        "val_accuracy_se": [0.02] * n,
        "train_lr": [1e-3] * n,
        "train_grad_norm": [1.0] * n,
        "train_weight_norm": [15.0] * n,
        "train_dead_units": [0.05] * n,
        **changes,
    }


def found(*findings: tuple[str, str]) -> dict[str, Any]:
    return {
        "report": {"findings": [{"severity": "warning", "code": c, "message": m, "where": ""} for c, m in findings]}
    }


def columns(a: float, b: float) -> dict[str, Any]:
    return {
        "report": {
            "column_statistics": {"a": {"mean": a, "std": 0.0}, "b": {"mean": 0.0, "std": b}, "y": {"mean": 1e9}}
        }
    }


def noisy(**changes: Any) -> dict[str, Any]:
    """Up to epoch 4 both at 0.7; then training climbs to 1 and validation falls to 0.5."""
    train = [0.5, 0.65, 0.7, 0.72, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0, 1.0]
    val = [0.55, 0.66, 0.7, 0.72, 0.7, 0.66, 0.62, 0.58, 0.54, 0.52, 0.5, 0.5]
    return well(train_accuracy=train, val_accuracy=val, **changes)


def rows(small: float, support: int, large: float = 0.99) -> dict[str, Any]:
    recalls = [("a", large, 180), ("b", small, support)]
    return {"evaluation": {"per_class": [{"class": c, "recall": r, "support": n} for c, r, n in recalls]}}


def on_test(accuracy: float, samples: int = 200) -> dict[str, Any]:
    return {"evaluation": {"split": "test", "samples": samples, "metrics": {"accuracy": accuracy, "loss": 0.5}}}


SHIPPED = {"splits": {"train": 1600, "validation": 200, "test": 200}}


STUCK = {"train_loss": [1.9, 1.82, *[1.8] * 10], "val_loss": [1.9, 1.85, *[1.83] * 10]}


RISING = [1.5, 1.0, 0.8, 0.75, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
