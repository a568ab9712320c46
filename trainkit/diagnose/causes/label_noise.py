"""Label noise: a part of the labels is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainkit.diagnose.cause import Cause
from trainkit.diagnose.held_out_data import SIGNIFICANT_ERRORS, parts_differ
from trainkit.diagnose.performance import performance
from trainkit.diagnose.record import Record, leading_count
from trainkit.diagnose.spec_changes import Change, early_stop_patch, regularized_patch
from trainkit.diagnose.trends import RISEN, rise_at_end, standard_error, still_gaining
from trainkit.diagnose.verdicts import Verdict, graded_confidence

CONFLICTING_SHARE = 0.01
"""Share of samples with a duplicate under another label that counts as label noise."""
EVEN_ENTROPY = 0.95
"""Entropy of the errors over that of uniformly distributed errors. Similar real classes give 0.6 to 0.85."""
HINT = 0.45
"""Most confidence for signs that noise in the inputs and overlapping classes leave as well."""
MIN_ERRORS = 30
"""Least number of errors, and least share of wrong samples, to judge how even the errors are."""
MIN_ERROR_SHARE = 0.1
MIN_SKILL = 0.1
"""Least validation skill: the errors of a model with less skill say nothing about the labels."""
MIN_EVALUATIONS = 6
"""Least number of evaluations to find a peak and a fall from it."""
UNLEARNABLE_SKILL = 0.3
"""Largest validation skill that wrong labels explain: 20 % wrong labels in two even classes allow about this."""
MEMORISED_GAP = 0.15
"""Least difference of training and validation skill where validation has learnt next to nothing."""


def evidence(record: Record) -> Verdict | None:
    """Label noise, by at least one of (the second and the last are only hints, with a confidence below 0.5):

    - duplicates under different labels: 1 % or more of the samples;
    - errors spread evenly over all pairs of four or more classes, at some skill (similar classes are confused in pairs);
    - memorised noise: the validation accuracy peaks where training is no better, then falls by more than 3 standard
      errors while the training accuracy rises at least as much (clean samples are learnt first: Arpit et al. 2017);
    - memorisation without a validation gain: a validation skill of at most 0.3 and a training skill of twice as much
      and 0.15 more, with a validation accuracy nearer to the share of the largest class than to 1.
    """
    if not record.classification:
        return None
    conflicts = sum(leading_count(found["message"]) for found in record.findings("conflicting_labels"))
    share = conflicts / max(1, record.facts.samples)
    course, evenness, by_heart = (
        _memorised_course(record),
        _error_evenness(record),
        _memorised_without_validation(record),
    )
    reasons: list[tuple[float, str]] = []
    if course is not None:
        message = (
            f"Up to epoch {course['peak_epoch']} training and validation accuracy were equal ({course['peak']:.3f}); then "
            f"training rose to {course['train_last']:.3f} and validation fell to {course['last']:.3f}."
        )
        uneven = 0.15 if evenness is not None and evenness < EVEN_ENTROPY else 0.0
        reasons.append((graded_confidence(course["fall"] / course["noise"], 1, 3, 0.6, 0.85) - uneven, message))
    if evenness is not None and evenness >= EVEN_ENTROPY:
        message = "The errors are spread evenly over all pairs of classes, as for wrong labels."
        reasons.append((graded_confidence(evenness, EVEN_ENTROPY, 1, 0.35, HINT), message))
    if by_heart is not None and (evenness is None or evenness >= EVEN_ENTROPY):
        message = (
            f"Training removed {by_heart['train_skill']:.0%} of the loss of a constant prediction, validation at most "
            f"{by_heart['best_val_skill']:.0%}. The rest may be wrong labels."
        )
        # from a fifth of skill on overlapping classes are as likely: a hint, not a cause
        at_most = by_heart["best_val_skill"] + by_heart["standard_error"]
        reasons.append((graded_confidence(UNLEARNABLE_SKILL - at_most, 0, UNLEARNABLE_SKILL, 0.3, HINT), message))
    if share >= CONFLICTING_SHARE:
        reasons.append(
            (
                graded_confidence(share, CONFLICTING_SHARE, 0.1, 0.7),
                f"{conflicts} samples have duplicates with a different label.",
            )
        )
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
            "by_heart": by_heart,
            "evenness_of_errors": evenness,
            "thresholds": {"evenness": EVEN_ENTROPY, "best_val_skill": UNLEARNABLE_SKILL},
            "cannot_tell": None
            if share >= CONFLICTING_SHARE
            else "Few samples or overlapping classes may look the same. Check the samples with the highest loss.",
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


def _memorised_without_validation(record: Record) -> dict[str, float] | None:
    """Return the skills where training ends at twice the best validation skill and 0.15 more, and that is below 0.3."""
    train, val = record.skill("train"), record.skill("val")
    if len(train) < MIN_EVALUATIONS or len(val) < MIN_EVALUATIONS:
        return None
    best, last = float(val.max()), float(np.median(train[-3:]))
    worse = float(np.median(val[-3:])) < best < UNLEARNABLE_SKILL
    loss = record.get("val_loss")
    unsure = standard_error(record, loss, int(loss.value.argmin())) / (record.scale or 1.0)
    if (
        not worse
        or last < max(best, 0.0) + max(best, MEMORISED_GAP)
        or parts_differ(record)
        or _has_high_accuracy(record)
    ):
        return None
    return {"best_val_skill": best, "standard_error": unsure, "train_skill": last}


def _has_high_accuracy(record: Record) -> bool:
    """Return whether the validation accuracy was ever nearer to 1 than to the share of the largest class.

    Labels that are predicted so well do not explain a loss above the baseline.
    """
    accuracy, classes = record.get("val_accuracy").value, record.classes.values()
    if not len(accuracy) or not sum(classes):
        return False
    chance = max(classes) / sum(classes)
    return float(accuracy.max()) > (1 + chance) / 2


def _error_evenness(record: Record) -> float | None:
    """Return the entropy of the errors over the pairs (true, predicted), over its expectation for uniform errors.

    m errors in P cells: E[H] = ln m - (P / m) E[k ln k] with k binomial(m, 1 / P). None for few errors, at low skill,
    while the model still improves, and where the evaluated part differs from validation.
    """
    if still_gaining(record) is not None:
        return None  # a model that still learns makes all kinds of errors
    matrix = np.asarray((record.evaluation or {}).get("confusion_matrix") or [], np.float64)
    skill = record.skill("val")
    if matrix.ndim != 2 or len(matrix) < 4 or not len(skill) or skill.max() < MIN_SKILL or parts_differ(record):
        return None
    errors = matrix[~np.eye(len(matrix), dtype=bool)]
    m, cells = int(errors.sum()), len(errors)
    if m < max(MIN_ERRORS, MIN_ERROR_SHARE * matrix.sum()):
        return None
    k = np.arange(1, m + 1)
    chances = math.lgamma(m + 1) - np.array([math.lgamma(i + 1) + math.lgamma(m - i + 1) for i in k])
    weights = np.exp(chances - k * math.log(cells) + (m - k) * math.log1p(-1 / cells))
    expected = math.log(m) - cells / m * float((weights * k * np.log(k)).sum())
    p = errors[errors > 0] / m
    return float(-(p * np.log(p)).sum() / expected)


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
    imitates=frozenset({"overfitting"}),
    suspicion=suspicion,
    words="A part of the labels may be wrong: neither this model nor the references explain the rest.",
    lowers_skill=False,
    explains=frozenset({"overfitting", "underfitting_model_bias", "optimization_failure"}),
)
