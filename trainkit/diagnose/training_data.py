"""Rules about the training data: unscaled inputs, class imbalance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec.facts import IMAGE_KINDS, column_steps, feature_columns

SCALING = ("z_score", "min_max", "whiten")
LARGE_RMS = 30.0
"""Root mean square (RMS) of an input: He and Xavier initialization assume 1."""
UNEVEN_RMS = 100.0
"""Largest over median RMS of the inputs; its square is the condition number of the first layer (LeCun 1998)."""
UNBALANCED = 5.0
"""Size of the largest class over the smallest; the dataset report uses the same limit."""
RECALL_GAP = 0.2
"""Difference of the recalls of large and small classes that counts."""


def unscaled_inputs(record: Record) -> Verdict | None:
    """Unscaled inputs: no z_score, min_max or whiten, and the largest RMS of a feature is >= 30 or >= 100 times the median.

    Pixels are always scaled to [0, 1]; of a multimodal model the columns are looked at.
    """
    if any(step.kind in SCALING for step in column_steps(record.spec)):
        return None
    sizes = _root_mean_squares(record)
    if not sizes:
        return None
    largest, typical = max(sizes.values()), float(np.median(list(sizes.values())))
    uneven = largest / typical if typical > 0 else 1.0
    if largest < LARGE_RMS and uneven < UNEVEN_RMS:
        return None
    strength = max(math.log10(largest / LARGE_RMS), math.log10(uneven / UNEVEN_RMS))
    learnt, loss, scale = record.final_skill, record.get("train_loss"), record.scale
    first = float(loss.value[0]) / scale if scale and len(loss) else None
    # a network with high skill was not hurt much
    harmless = learnt is not None and learnt > 0.8 and first is not None and first < 1
    top = sorted(sizes, key=lambda name: -sizes[name])[:5]
    return Verdict(
        "unscaled_inputs",
        0.4 if harmless else graded_confidence(strength, 0, 1.5, 0.65),
        1 if len(loss) else None,
        f"The inputs are not scaled: the largest ({top[0]}) has an RMS of {largest:.3g}, the median is {typical:.3g}.",
        {
            "largest_rms": largest,
            "median_rms": typical,
            "thresholds": {"rms": LARGE_RMS, "largest_over_median": UNEVEN_RMS},
            "largest_features": {name: sizes[name] for name in top},
            "first_loss_over_baseline": first,
            "skill": learnt,
            "series": ["train_batch_loss", "train_loss", "train_grad_norm"],
        },
    )


def class_imbalance(record: Record) -> Verdict | None:
    """Class imbalance: class sizes of 5 to 1 or more, `balance: none`, and a low recall of the small classes.

    Small classes have at most a fifth of the samples of the largest. Their common recall is 0.2 and 2 standard errors
    below that of the others; during training: macro recall is 0.1 below accuracy.
    """
    counts = {name: n for name, n in record.classes.items() if n}
    if len(counts) < 2 or record.spec.balance != "none":
        return None
    most, least = max(counts, key=lambda c: counts[c]), min(counts, key=lambda c: counts[c])
    ratio, share = counts[most] / counts[least], counts[most] / sum(counts.values())
    if ratio < UNBALANCED:
        return None
    rows = {row["class"]: row for row in (record.evaluation or {}).get("per_class") or ()}
    accuracy, recall = record.get("val_accuracy"), record.get("val_recall")
    seen: dict[str, Any] = {}
    small = [name for name, n in counts.items() if n * UNBALANCED <= counts[most] and name in rows]
    large = [name for name in counts if name in rows and name not in small]
    n = sum(rows[name]["support"] for name in small)
    if n and any(rows[name]["support"] for name in large):
        low, high = (_recall([rows[name] for name in names]) for names in (small, large))
        error = math.sqrt(max(low * (1 - low), 1 / (n + 2)) / n)
        seen = {"small": small[:20], "recall_of_small": low, "recall_of_others": high, "noise": 2 * error}
        if high - low <= max(RECALL_GAP, 2 * error):
            return None
        confidence = graded_confidence(high - low, RECALL_GAP, 0.8, 0.6)
    elif len(accuracy) and len(recall):
        at, macro = float(np.median(accuracy.value[-3:])), float(np.median(recall.value[-3:]))
        seen = {"val_accuracy": at, "val_macro_recall": macro}
        if at - macro < RECALL_GAP / 2:
            return None
        confidence = graded_confidence(at - macro, RECALL_GAP / 2, 0.4, 0.5, 0.8)
    else:
        return None
    return Verdict(
        "class_imbalance",
        confidence,
        int(accuracy.epoch[0]) if len(accuracy) else None,
        f"Class {most!r} has {ratio:.3g} times the samples of class {least!r}, and small classes have a low recall.",
        {
            "samples": counts if len(counts) <= 20 else {most: counts[most], least: counts[least]},
            "ratio": ratio,
            "share_of_largest": share,
            **seen,
            "series": ["val_accuracy", "val_recall", "val_f1"],
        },
    )


def _recall(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the recall of all samples of these classes together."""
    return float(sum(row["recall"] * row["support"] for row in rows) / sum(row["support"] for row in rows))


def _root_mean_squares(record: Record) -> dict[str, float]:
    """Return the RMS of each input by name, sqrt(mean^2 + std^2), from the dataset report."""
    statistics = record.report.get("column_statistics") or {}
    of_images = record.facts.input_dtype == "uint8" or record.facts.kind in IMAGE_KINDS
    if of_images and record.spec.model.kind != "multimodal":
        return {}  # pixels are scaled to [0, 1]
    if statistics:
        names = [column.name for column in feature_columns(record.spec, record.facts) if column.type == "numeric"]
        sizes = {
            n: math.hypot(statistics[n].get("mean", 0), statistics[n].get("std", 0)) for n in names if n in statistics
        }
    else:
        listed = record.report.get("feature_statistics") or {}
        sizes = {
            f"feature {i}": float(rms) for i, rms in zip(listed.get("index", ()), listed.get("rms", ()), strict=True)
        }
    return {name: value for name, value in sizes.items() if value > 0 and math.isfinite(value)}
