"""Class imbalance: small classes are given up for large ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trainkit.diagnose.cause import Cause
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec.patch import replacing

UNBALANCED = 5.0
"""Size of the largest class over the smallest; the dataset report uses the same limit."""
RECALL_GAP = 0.2
"""Difference of the recalls of large and small classes that counts."""


def evidence(record: Record) -> Verdict | None:
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


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("val_recall", "up", "most for the small classes; the accuracy may fall a little", "He and Garcia 2009")
    yield Change(
        {"balance": "class_weights", "train": {"monitor": "val_recall"}},
        "Every class gets the same total weight in the loss.",
        expected,
    )
    yield Change({"balance": "oversample"}, "Samples of small classes are repeated in training.", expected)
    if record.spec.loss is not None and record.spec.loss.kind == "cross_entropy":
        patch = {"loss": replacing(record.spec.loss.model_dump(), {"kind": "focal"})}
        yield Change(
            patch, "The focal loss gives less weight to easy samples, most of which are of the large class.", expected
        )


CAUSE = Cause(
    code="class_imbalance",
    evidence=evidence,
    recommendations=recommendations,
    explains=frozenset({"underfitting_model_bias", "optimization_failure", "overfitting"}),
    needs_training_curve=False,
)
