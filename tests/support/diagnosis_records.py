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
