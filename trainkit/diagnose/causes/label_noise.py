"""Label noise: a part of the labels is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainkit.diagnose.cause import Cause
from trainkit.diagnose.held_out_data import SIGNIFICANT_ERRORS
from trainkit.diagnose.performance import performance
from trainkit.diagnose.record import Record, leading_count
from trainkit.diagnose.spec_changes import Change, early_stop_patch, regularized_patch
from trainkit.diagnose.trends import RISEN, rise_at_end
from trainkit.diagnose.verdicts import Verdict, graded_confidence

CONFLICTING_SHARE = 0.01
"""Share of samples with a duplicate under another label that counts as label noise."""
MIN_EVALUATIONS = 6
"""Least number of evaluations to find a peak and a fall from it."""
MEMORISED_GAP = 0.15
"""Skill by which training is ahead of the best validation from which on it may have learnt wrong labels by heart."""


def evidence(record: Record) -> Verdict | None:
    """Label noise, by at least one of:

    - duplicates under different labels: 1 % or more of the samples;
    - memorised noise: the validation accuracy peaks where training is no better, then falls by more than 3 standard
      errors while the training accuracy rises at least as much (clean samples are learnt first: Arpit et al. 2017).

    What else a record could show, overlapping classes and noise in the inputs show as well; the votes of an investigation
    tell them apart (`label_votes`).
    """
    if not record.classification:
        return None
    conflicts = sum(leading_count(found["message"]) for found in record.findings("conflicting_labels"))
    share = conflicts / max(1, record.facts.samples)
    course = _memorised_course(record)
    reasons: list[tuple[float, str]] = []
    if course is not None:
        message = (
            f"Up to epoch {course['peak_epoch']} training and validation accuracy were equal ({course['peak']:.3f}); then "
            f"training rose to {course['train_last']:.3f} and validation fell to {course['last']:.3f}."
        )
        reasons.append((graded_confidence(course["fall"] / course["noise"], 1, 3, 0.6, 0.85), message))
    if share >= CONFLICTING_SHARE:
        message = f"{conflicts} samples have duplicates with a different label."
        reasons.append((graded_confidence(share, CONFLICTING_SHARE, 0.1, 0.7), message))
    if not reasons:
        return None
    return Verdict(
        "label_noise",
        round(min(0.95, max(confidence for confidence, _ in reasons) + 0.05 * (len(reasons) - 1)), 3),
        course["peak_epoch"] if course is not None else None,
        " ".join(message for _, message in sorted(reasons, reverse=True)),
        {
            "conflicting_samples": conflicts,
            "course": course,
            "cannot_tell": None
            if share >= CONFLICTING_SHARE
            else "Few samples or overlapping classes may look the same. An investigation asks models that have not seen the "
            "labels.",
            "series": ["train_accuracy", "val_accuracy", "val_accuracy_se", "train_loss", "val_loss"],
        },
    )


def _memorised_course(record: Record) -> dict[str, Any] | None:
    """Return the numbers of memorised noise in the accuracies (smoothed over 3 evaluations), or None."""
    train, val, errors = record.get("train_accuracy"), record.get("val_accuracy"), record.get("val_accuracy_se")
    if min(len(val), len(train)) < MIN_EVALUATIONS or not len(errors):
        return None
    smooth = np.convolve(val.value, np.ones(3) / 3, "valid")
    peak = int(smooth.argmax()) + 1
    at_peak = float(np.interp(val.step[peak], train.step, train.value))
    last, train_last = float(smooth[-1]), float(np.median(train.value[-3:]))
    # an accuracy of 0 or 1 has a logged error of 0, and is not without error
    least = 1 / (record.parts[1] + 2)
    fall, noise = float(smooth.max()) - last, SIGNIFICANT_ERRORS * max(float(errors.value[-1]), least)
    ahead = at_peak - float(smooth.max())
    if fall <= noise or ahead > noise or train_last - at_peak < fall:
        return None
    return {
        "peak_epoch": int(val.epoch[peak]),
        "peak": float(smooth.max()),
        "last": last,
        "fall": fall,
        "noise": noise,
        "train_at_peak": at_peak,
        "train_last": train_last,
    }


def suspicion(record: Record) -> float:
    """Classes of which training learns far more than validation, or references that explain only a part."""
    if not record.classification:
        return 0.0
    if record.findings("conflicting_labels"):
        return 0.4
    train, val = record.skill("train"), record.skill("val")
    memorised = (
        len(train) > 0 and len(val) > 0 and float(np.median(train[-3:])) - max(0.0, float(val.max())) > MEMORISED_GAP
    )
    found = performance(record)
    reference = found.attainable if found is not None else None
    unexplained = 1 - max(found.value, reference.value if reference else found.value) if found is not None else 0.0
    return min(0.6, (0.2 if memorised else 0.0) + 2 * max(0.0, unexplained - 0.05))


def recommendations(record: Record) -> Iterator[Change]:
    yield Change(
        regularized_patch(record),
        "Correctly labelled samples are learnt first; regularization keeps the network from memorising the others.",
        ("val_loss", "down", "a little below its minimum in this run, without a later rise", "Arpit et al. 2017"),
    )
    kind = record.spec.loss.kind if record.spec.loss else ""
    if kind == "cross_entropy":
        yield Change(
            {"regularize": {"label_smoothing": 0.1}},
            "Label smoothing lowers the loss of contradicting a wrong label.",
            ("val_accuracy", "up", "a little", "Lukasik et al. 2020"),
        )
    if rise_at_end(record) > RISEN:
        yield Change(
            early_stop_patch(record),
            "Correctly labelled samples are learnt first: stop before the others are memorised.",
            ("seconds", "down", "the epochs behind the best one; the model stays the same", "Arpit et al. 2017"),
        )


CAUSE = Cause(
    code="label_noise",
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="A part of the labels may be wrong: neither this model nor the references explain the rest.",
    lowers_skill=False,
    explains=frozenset({"overfitting", "underfitting_model_bias", "optimization_failure"}),
)
