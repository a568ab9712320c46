"""A loss that does not fit its task: what it asks for is not what is wanted."""

from __future__ import annotations

import numpy as np

from trainkit.diagnose.capacity import throttled
from trainkit.diagnose.rates import LITTLE_LEARNT
from trainkit.diagnose.record import Record, leading_number
from trainkit.diagnose.verdicts import Verdict, graded
from trainkit.spec.shapes import FEW_VALUES, target_column

HEAVY_TAILS = 4.0
"""mse / mae^2 of the residuals: pi/2 = 1.57 for normal ones, 2 for Laplace's; from twice that a few outliers make the
loss."""
HEAVY_KURTOSIS = 12.0
"""m4 / m2^2 of the residuals: 3 for normal ones, 6 for Laplace's; twice that."""
FEWEST = 30
"""Residuals in which the few large ones can be told from chance."""


def wrong_loss(record: Record) -> Verdict | None:
    """Squared error on classes; numbers predicted that are a few whole ones; squared error where mse / mae^2 of the
    residuals, of training or validation, is >= 4, or the kurtosis of validation's >= 12."""
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
    values = column.unique if column is not None and column.integer else 0
    if column is None:
        values = sum(leading_number(found["message"]) for found in record.findings("whole_number_targets"))
    if not 0 < values <= FEW_VALUES:
        return None
    return Verdict(
        "wrong_loss",
        0.4,
        None,
        f"The target has {values} different whole values and is predicted as a number: if they are names of classes, "
        "their distances mean nothing.",
        {
            "values": values,
            "cannot_tell": "Whole numbers may be counts or grades, whose distances mean something.",
            "series": ["val_mse", "val_mae"],
        },
    )


def _outliers(record: Record) -> Verdict | None:
    if record.facts.target_width > 1:
        return None
    # strong dropout makes large residuals of its own
    sizes = zip(("train", "val"), (0 if throttled(record) else record.parts[0], record.parts[1]), strict=True)
    ratio = max((_heaviness(record, split) for split, size in sizes if size >= FEWEST), default=0.0)
    peaked = _kurtosis(record)
    if ratio < HEAVY_TAILS and peaked < HEAVY_KURTOSIS:
        return None
    return Verdict(
        "wrong_loss",
        graded(max(ratio / HEAVY_TAILS, peaked / HEAVY_KURTOSIS), 1, 4, 0.5, 0.8),
        int(record.get("train_loss").epoch[0]),
        f"Few large residuals make most of the squared error: mse / mae^2 is {ratio:.3g} (of normal ones "
        f"1.57), their kurtosis {peaked:.3g} (3).",
        {
            "mse_over_mae_squared": ratio,
            "threshold": HEAVY_TAILS,
            "kurtosis": peaked,
            "kurtosis_threshold": HEAVY_KURTOSIS,
            "series": ["val_mse", "val_mae", "val_loss", "val_loss_se"],
        },
    )


def _kurtosis(record: Record) -> float:
    """1 + n (se / mse)^2, the standard error being that of the squared residuals: m4 / m2^2 of the validation part."""
    loss, errors, n = record.get("val_loss"), record.get("val_loss_se"), record.parts[1]
    if n < FEWEST or len(loss) < 3 or len(loss) != len(errors):
        return 0.0
    at = _about_best(record)
    return float(1 + n * np.median(errors.value[at] / np.maximum(loss.value[at], 1e-300)) ** 2)


def _heaviness(record: Record, split: str) -> float:
    """mse / mae^2 of the part's residuals, median of three evaluations about the best: by heart, few are large later."""
    mse, mae = record.get(f"{split}_mse").value, record.get(f"{split}_mae").value
    if len(mse) < 3 or len(mse) != len(mae):
        return 0.0
    at = _about_best(record)
    return float(np.median(mse[at] / np.maximum(mae[at] ** 2, 1e-300)))


def _about_best(record: Record) -> slice:
    """Three evaluations, the one of the least validation loss in their middle where it can be."""
    loss = record.get("val_loss").value
    first = min(max(int(loss.argmin()) - 1, 0), len(loss) - 3) if len(loss) > 2 else -3
    return slice(first, first + 3 or None)
