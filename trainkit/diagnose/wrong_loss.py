"""A loss that does not fit its task: what it asks for is not what is wanted."""

from __future__ import annotations

import numpy as np

from trainkit.diagnose.rates import LITTLE_LEARNT
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict, graded
from trainkit.spec.shapes import FEW_VALUES, target_column

HEAVY_TAILS = 5.0
"""mse / mae^2 of the residuals: pi/2 = 1.57 for normal ones, 2 for Laplace's; from 5 on a few outliers make the loss."""


def wrong_loss(record: Record) -> Verdict | None:
    """Squared error on classes; numbers predicted that are a few whole ones; squared error where mse / mae^2 of the
    validation residuals is >= 5."""
    kind = record.spec.loss.kind if record.spec.loss else None
    if record.classification:
        return _on_classes(record) if kind == "mse" else None
    return _few_values(record) or (_outliers(record) if kind == "mse" else None)


def _on_classes(record: Record) -> Verdict:
    learnt = record.learnt
    poor = learnt is not None and learnt < LITTLE_LEARNT
    return Verdict(
        "wrong_loss",
        0.8 if poor else 0.5,
        1 if len(record.get("train_loss")) else None,
        "Squared error on classes: its gradient fades where an output is far off, and outputs are no probabilities.",
        {"loss": "mse", "task": record.spec.task, "skill": learnt, "series": ["train_loss", "val_accuracy"]},
    )


def _few_values(record: Record) -> Verdict | None:
    column = target_column(record.spec, record.facts) if record.facts.kind == "table" else None
    if column is None or not column.integer or column.unique > FEW_VALUES:
        return None
    return Verdict(
        "wrong_loss",
        0.4,
        None,
        f'The target "{column.name}" has {column.unique} whole values and is predicted as a number: if they are names '
        "of classes, their distances mean nothing.",
        {
            "values": column.unique,
            "cannot_tell": "Whole numbers may be counts or grades, whose distances mean something.",
            "series": ["val_mse", "val_mae"],
        },
    )


def _outliers(record: Record) -> Verdict | None:
    mse, mae = record.get("val_mse"), record.get("val_mae")
    if len(mse) < 3 or len(mse) != len(mae) or record.facts.target_width > 1:
        return None
    ratio = float(np.median(mse.value[-3:] / np.maximum(mae.value[-3:] ** 2, 1e-300)))
    if ratio < HEAVY_TAILS or record.parts[1] < 30:
        return None
    return Verdict(
        "wrong_loss",
        graded(ratio, HEAVY_TAILS, 4 * HEAVY_TAILS, 0.5, 0.8),
        int(mse.epoch[0]),
        f"Few large residuals make most of the squared error: mse / mae^2 is {ratio:.3g}, of normal ones 1.57.",
        {"mse_over_mae_squared": ratio, "threshold": HEAVY_TAILS, "series": ["val_mse", "val_mae"]},
    )
