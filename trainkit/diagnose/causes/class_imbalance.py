"""Class imbalance: small classes are given up for large ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec.patch import replacing

UNBALANCED = 5.0
"""Size of the largest class over the smallest; the dataset report uses the same limit."""
NEVER_RATIO = 2.0
"""Size of the largest class over that of a class whose absence from the predictions is blamed on its size."""
REFERENCE_GAIN = 0.05
"""Mean recall by which a reference model must be better to show that the class can be told."""
WITHOUT_REFERENCE = 0.45
"""Confidence below 5 to 1 where no reference shows that the class can be told."""
UNSEEN = 0.3
"""Suspicion of small classes of which too few samples are held out to tell."""
RECALL_GAP = 0.2
"""Difference of the recalls of large and small classes that counts."""


def evidence(record: Record) -> Verdict | None:
    """Class imbalance: without balancing, a small class is never predicted, or its recall is low.

    Never predicted: a class of at most half of the largest one's samples, while all classes of more than that are
    predicted. Below 5 to 1 it counts where a reference model has a higher mean recall.

    Low recall: class sizes of 5 to 1 or more. Small classes have at most a fifth of the samples of the largest. Their
    common recall is 0.2 and 2 standard errors below that of the others; during training: macro recall is 0.1 below
    accuracy.
    """
    counts = {name: n for name, n in record.classes.items() if n}
    if len(counts) < 2 or record.spec.balance != "none":
        return None
    most, least = max(counts, key=lambda c: counts[c]), min(counts, key=lambda c: counts[c])
    ratio, share = counts[most] / counts[least], counts[most] / sum(counts.values())
    missing = _never_predicted(record)
    if missing:
        return _missing_verdict(record, counts, missing)
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


def _never_predicted(record: Record) -> list[str]:
    """Return the small classes of the evaluated part that are never predicted; empty where a large one is not either."""
    found = record.evaluation or {}
    matrix, names = np.asarray(found.get("confusion_matrix") or [], np.float64), list(found.get("classes") or ())
    counts = record.classes
    if matrix.ndim != 2 or len(matrix) != len(names) or not counts:
        return []
    most = max(counts.values())
    missing = [str(name) for name, column in zip(names, matrix.T, strict=True) if not column.sum()]
    return missing if all(0 < counts.get(name, 0) * NEVER_RATIO <= most for name in missing) else []


def _missing_verdict(record: Record, counts: Mapping[str, int], missing: Sequence[str]) -> Verdict:
    """Return the verdict on classes that are never predicted."""
    most = max(counts, key=lambda name: counts[name])
    least = min(missing, key=lambda name: counts[name])
    ratio = counts[most] / counts[least]
    accuracy, recall = record.get("val_accuracy"), record.get("val_recall")
    reference = _reference_recall(record)
    macro = float(recall.value.max()) if len(recall) else 0.0
    learnable = reference is not None and reference > macro + REFERENCE_GAIN
    confidence = 0.9 if learnable else 0.7 if ratio >= UNBALANCED else WITHOUT_REFERENCE
    names = ", ".join(repr(name) for name in missing[:5])
    return Verdict(
        "class_imbalance",
        confidence,
        int(accuracy.epoch[0]) if len(accuracy) else None,
        f"{names} {'is' if len(missing) == 1 else 'are'} never predicted; class {most!r} has {ratio:.3g} times the samples "
        f"of class {least!r}.",
        {
            "samples": dict(counts) if len(counts) <= 20 else {most: counts[most], least: counts[least]},
            "ratio": ratio,
            "never_predicted": list(missing[:20]),
            "val_macro_recall": macro,
            "reference_recall": reference,
            "share_of_largest": counts[most] / sum(counts.values()),
            "series": ["val_accuracy", "val_recall", "val_f1"],
        },
    )


def _reference_recall(record: Record) -> float | None:
    """Return the highest mean recall of the reference models; None where it was not measured."""
    rows = record.attainable.references if record.attainable is not None else ()
    return max((float(row["recall"]) for row in rows if row.get("recall") is not None), default=None)


def _recall(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the recall of all samples of these classes together."""
    return float(sum(row["recall"] * row["support"] for row in rows) / sum(row["support"] for row in rows))


def suspicion(record: Record) -> float:
    """Class sizes of 3 to 1 or more without balancing, and a mean recall 0.05 below the accuracy.

    Or of 5 to 1, with so few held-out samples of the small classes that a recall 0.2 below the others' is not excluded.
    """
    counts = {name: n for name, n in record.classes.items() if n}
    if len(counts) < 2 or record.spec.balance != "none" or max(counts.values()) < 3 * min(counts.values()):
        return 0.0
    accuracy, recall = record.get("val_accuracy").value, record.get("val_recall").value
    if not len(accuracy) or not len(recall):
        return 0.1
    gap = float(np.median(accuracy[-3:]) - np.median(recall[-3:]))
    unseen = UNSEEN if _may_hide(record, counts) else 0.0
    return max(unseen, min(0.6, 0.1 + 4 * max(0.0, gap - 0.03)))


def _may_hide(record: Record, counts: Mapping[str, int]) -> bool:
    """Return whether the recall of small classes may be 0.2 below the others', by the lower end of its 95 % interval."""
    rows = {row["class"]: row for row in (record.evaluation or {}).get("per_class") or () if row["support"]}
    small = [rows[name] for name, n in counts.items() if n * UNBALANCED <= max(counts.values()) and name in rows]
    large = [row for row in rows.values() if row not in small]
    if not small or not large:
        return False
    low, _ = wilson_interval(_recall(small), sum(row["support"] for row in small))
    return _recall(large) - low > RECALL_GAP


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


def interventions(record: Record) -> Iterator[Intervention]:
    counts = [count for count in record.classes.values() if count > 0]
    if record.spec.balance != "none" or not counts or max(counts) < 2 * min(counts):
        return
    patch: Patch = {"balance": "class_weights", "train": {"monitor": "val_recall"}}
    why = "Every class gets the same total weight in the loss."
    yield Intervention("balanced_weights", "class_imbalance", patch, "val_recall", why)
    patch = {"balance": "oversample", "train": {"monitor": "val_recall"}}
    why = "Samples of small classes are repeated in training."
    yield Intervention("oversampling", "class_imbalance", patch, "val_recall", why)


CAUSE = Cause(
    code="class_imbalance",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="Small classes may be given up for large ones.",
    lowers_skill=False,
    explains=frozenset({"underfitting_model_bias", "optimization_failure", "overfitting"}),
    needs_training_curve=False,
)
