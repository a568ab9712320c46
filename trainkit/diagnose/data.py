"""What is wrong with the data or with how it is given: scales, labels, classes, parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.record import Record, leading_number
from trainkit.diagnose.trends import standard_error, still_gaining
from trainkit.diagnose.verdicts import Verdict, graded
from trainkit.spec.shapes import IMAGE_KINDS, feature_columns

SCALING = ("z_score", "min_max", "whiten")
LARGE = 30.0
"""Root mean square of an input: He and Xavier assume 1, and pre-activations grow in proportion."""
UNEVEN = 100.0
"""Largest over median root mean square: the condition number of the first layer's problem is its square (LeCun 1998)."""
UNBALANCED = 5.0
"""Largest over smallest class, as the dataset's report warns."""
IGNORED = 0.2
"""Recall of the smallest class below that of the largest."""
CONFLICTS = 0.01
"""Share of samples with copies under another label: so much noise is proven, and copies are only a part of it."""
SURE_DIFFERENCE = 3.0
"""Standard errors between validation and test: the best of many epochs was chosen by validation, which flatters it."""
DIFFERENT = 0.05
"""Of accuracy, or of the baseline's loss."""
UNSURE = 0.1
"""Between the validation accuracy and the far end of its 95 % interval: two models ten points apart look the same."""
UNSURE_OF_A_SHARE = 0.15
"""Half-width of that interval where validation has its usual share: then the data are few, and no cut changes that."""
UNSURE_LOSS = 0.5
"""Two standard errors of a regression's validation loss over the loss, where validation has less than its usual share."""
SMALL_SHARE = 0.05
"""Of all samples: half of what an ordinary cut keeps for validation."""
EVEN = 0.95
"""Entropy of the errors over that of as many even ones. Real classes are mistaken in pairs: 0.6 to 0.85."""
FEWEST_ERRORS = 30
"""Errors from which on their evenness says anything, and their least share of the samples."""
LEAST_WRONG = 0.1
LEAST_LEARNT = 0.1
"""Of the baseline's loss, on validation: errors of a model that knows less tell nothing of the labels."""
FEWEST_OF_A_COURSE = 6
"""Evaluations in which a peak and a fall from it can be told."""
UNLEARNABLE = 0.3
"""Of the baseline's loss, the most that validation ever lost: in two even classes 20 % wrong labels leave so much."""
BY_HEART = 0.15
"""Of the baseline's loss: what training must have learnt beyond validation where that has learnt next to nothing."""
GOOD = 0.8
"""An accuracy whose interval tells the size of a part: that of a model that knows nothing is wide for another reason."""


def unscaled_inputs(record: Record) -> Verdict | None:
    """No z_score, min_max or whiten among the steps, and the largest root mean square of a feature is >= 30, or >= 100
    times the median one. Pixels are scaled to [0, 1] in any case."""
    if any(step.kind in SCALING for step in record.spec.preprocess):
        return None
    sizes = _root_mean_squares(record)
    if not sizes:
        return None
    largest, typical = max(sizes.values()), float(np.median(list(sizes.values())))
    uneven = largest / typical if typical > 0 else 1.0
    if largest < LARGE and uneven < UNEVEN:
        return None
    strength = max(math.log10(largest / LARGE), math.log10(uneven / UNEVEN))
    learnt, loss, scale = record.learnt, record.get("train_loss"), record.scale
    first = float(loss.value[0]) / scale if scale and len(loss) else None
    # a network that has learnt most of it all the same was not hurt much
    harmless = learnt is not None and learnt > 0.8 and first is not None and first < 1
    top = sorted(sizes, key=lambda name: -sizes[name])[:5]
    return Verdict(
        "unscaled_inputs",
        0.4 if harmless else graded(strength, 0, 1.5, 0.65),
        1 if len(loss) else None,
        f"Inputs go in as they are: the largest ({top[0]}) has an RMS of {largest:.3g}, the median {typical:.3g}.",
        {
            "largest_rms": largest,
            "median_rms": typical,
            "thresholds": {"rms": LARGE, "largest_over_median": UNEVEN},
            "largest_features": {name: sizes[name] for name in top},
            "first_loss_over_baseline": first,
            "skill": learnt,
            "series": ["train_batch_loss", "train_loss", "train_grad_norm"],
        },
    )


def label_noise(record: Record) -> Verdict | None:
    """One of: copies under different labels in 1 % of the samples; errors that spread evenly over all pairs of four or
    more classes, though something is learnt (hard classes are mistaken in pairs, wrong labels are not); the course that
    memorised noise takes, a peak of the validation accuracy where training is no better, then a fall of more than 3
    standard errors while the training accuracy climbs by as much or more (clean samples are learnt first: Arpit et al.
    2017); or training that learns by heart what was never more than 0.3 learnt on validation: twice as much, and 0.15
    of the baseline's loss more, while validation's accuracy stays nearer to the largest class's share than to 1."""
    if not record.classification:
        return None
    conflicts = sum(leading_number(found["message"]) for found in record.findings("conflicting_labels"))
    share = conflicts / max(1, record.facts.samples)
    course, evenness, by_heart = _memorised(record), _evenness(record), _by_heart(record)
    reasons: list[tuple[float, str]] = []
    if course is not None:
        message = (
            f"Up to epoch {course['peak_epoch']} training and validation agreed (accuracy {course['peak']:.3f}); since "
            f"then training climbs to {course['train_last']:.3f} and validation falls to {course['last']:.3f}."
        )
        uneven = 0.15 if evenness is not None and evenness < EVEN else 0.0
        reasons.append((graded(course["fall"] / course["noise"], 1, 3, 0.6, 0.85) - uneven, message))
    if evenness is not None and evenness >= EVEN:
        message = "The errors spread evenly over all pairs of classes, as wrong labels do."
        reasons.append((graded(evenness, EVEN, 1, 0.65, 0.8), message))
    if by_heart is not None and (evenness is None or evenness >= EVEN):
        message = (
            f"Training has learnt {by_heart['train_skill']:.0%} of what a constant leaves, validation never more than "
            f"{by_heart['best_val_skill']:.0%}: what is left may be labels that nothing explains."
        )
        # that classes overlap is as good a reason where a fifth and more was learnt: a hint, no cause
        at_most = by_heart["best_val_skill"] + by_heart["standard_error"]
        reasons.append((graded(UNLEARNABLE - at_most, 0, UNLEARNABLE, 0.4, 0.7), message))
    if share >= CONFLICTS:
        reasons.append((graded(share, CONFLICTS, 0.1, 0.7), f"{conflicts} samples stand under two or more labels."))
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
            "thresholds": {"evenness": EVEN, "best_val_skill": UNLEARNABLE},
            "cannot_tell": None
            if share >= CONFLICTS
            else "Few samples, and classes that overlap, may look alike: see samples of high loss.",
            "series": ["train_accuracy", "val_accuracy", "val_accuracy_se", "train_loss", "val_loss"],
        },
    )


def class_imbalance(record: Record) -> Verdict | None:
    """Classes of sizes 5 to 1 or more, nothing done about it, and the small ones suffer: the recall of those with a fifth
    of the largest one's samples or less, all together, is 0.2 (and 2 standard errors) below that of the others; while
    training, macro recall 0.1 below accuracy or accuracy at the largest class's share."""
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
        if high - low <= max(IGNORED, 2 * error):
            return None
        confidence = graded(high - low, IGNORED, 0.8, 0.6)
    elif len(accuracy) and len(recall):
        at, macro = float(np.median(accuracy.value[-3:])), float(np.median(recall.value[-3:]))
        seen = {"val_accuracy": at, "val_macro_recall": macro}
        if at - macro < IGNORED / 2:
            return None
        confidence = graded(at - macro, IGNORED / 2, 0.4, 0.5, 0.8)
    else:
        return None
    return Verdict(
        "class_imbalance",
        confidence,
        int(accuracy.epoch[0]) if len(accuracy) else None,
        f"Class {most!r} has {ratio:.3g} times the samples of {least!r}, nothing balances them, and the small are missed.",
        {
            "samples": counts if len(counts) <= 20 else {most: counts[most], least: counts[least]},
            "ratio": ratio,
            "share_of_largest": share,
            **seen,
            "series": ["val_accuracy", "val_recall", "val_f1"],
        },
    )


def distribution_mismatch(record: Record) -> Verdict | None:
    """Of shipped parts: test is worse than validation at the kept epoch by more than 3 standard errors of both and by
    0.05, or the report finds that they are distributed otherwise (without harm, with less confidence; more where test is
    0.05 worse, if not surely, or where it is validation that differs from training). Parts cut at random differ by
    chance alone."""
    if not (record.facts.splits and record.spec.split.keeps_shipped):
        return None
    drifted = record.findings("drift")
    seen = _val_against_test(record)
    worse = _is_worse(seen)
    if not worse and not drifted:
        return None
    confidence = 0.0
    if seen is not None and worse:
        sigma = seen["difference"] / max(seen["standard_error"], 1e-12)
        confidence = graded(sigma, SURE_DIFFERENCE, 6, 0.7)
    elif drifted:
        judged = any(" in validation than " in found["message"] for found in drifted)
        harmed = seen is not None and seen["difference"] > DIFFERENT
        confidence = 0.55 if harmed else 0.5 if judged or seen is None else 0.35
    message = (
        f"{seen['metric']} is {seen['validation']:.4g} on validation and {seen['test']:.4g} on test. " if seen else ""
    )
    message += " ".join(found["message"] + "." for found in drifted[:3])
    return Verdict(
        "distribution_mismatch",
        confidence,
        None,
        message.strip(),
        {
            **(seen or {}),
            "drift": [found["message"] for found in drifted[:10]],
            "cannot_tell": "A validation part that many runs were chosen by gives the same picture." if worse else None,
            "series": ["val_loss", "val_accuracy", "test_loss", "test_accuracy"],
        },
    )


def validation_too_small(record: Record) -> Verdict | None:
    """No validation part; or, with less than 5 % of the samples, the far end of Wilson's 95 % interval is 0.1 from the
    accuracy; with more, the interval of that accuracy, or of 0.8, is +-0.15 or wider. Of a regression 2 standard errors
    of the loss are half of it, with more samples three quarters; they are at least those of squared normal residuals,
    sqrt(2 / n): a handful does not tell its own spread."""
    size = record.parts[1]
    accuracy, loss, errors = (record.get(f"val_{name}") for name in ("accuracy", "loss", "loss_se"))
    if record.resolved is None or record.spec.model.kind == "ensemble":
        return None
    share = size / max(1, sum(record.parts))
    evidence: dict[str, Any] = {
        "samples": size,
        "share": share,
        "series": ["val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se"],
    }
    if size == 0:
        message = (
            "There is no validation part: nothing tells over-fitting, and the last weights are kept, not the best."
        )
        return Verdict("validation_too_small", 0.6, None, message, evidence)
    if record.classification and len(accuracy):
        best = float(accuracy.value.max())
        small = share < SMALL_SHARE
        low, high = wilson_interval(best if small else max(best, GOOD), size)
        wide = max(best - low, high - best) if small else (high - low) / 2
        limit = UNSURE if small else UNSURE_OF_A_SHARE
        what = f"An accuracy on {size} samples is known to +-{wide:.2f} only."
    elif not record.classification and len(loss) and len(errors):
        at = int(loss.value.argmin())
        seen = float(errors.value[min(at, len(errors) - 1)]) / max(abs(float(loss.value[at])), 1e-12)
        wide = 2 * max(seen, math.sqrt(2 / size))
        limit = UNSURE_LOSS * (1.0 if share < SMALL_SHARE else UNSURE_OF_A_SHARE / UNSURE)
        what = f"The loss on {size} samples is known to +-{wide:.0%} only."
    else:
        return None
    if wide < limit:
        return None
    evidence |= {"width": wide, "threshold": limit}
    return Verdict("validation_too_small", graded(wide, limit, 2 * limit, 0.5, 0.9), None, what, evidence)


def _recall(rows: Sequence[Mapping[str, Any]]) -> float:
    """Of all samples of these classes together."""
    return float(sum(row["recall"] * row["support"] for row in rows) / sum(row["support"] for row in rows))


def _root_mean_squares(record: Record) -> dict[str, float]:
    """Of each input by its name: sqrt(mean^2 + std^2), as the report has it."""
    told = record.report.get("column_statistics") or {}
    if record.facts.input_dtype == "uint8" or record.facts.kind in IMAGE_KINDS:
        return {}  # bytes reach the network in [0, 1]
    if told:
        names = [column.name for column in feature_columns(record.spec, record.facts) if column.type == "numeric"]
        made = {n: math.hypot(told[n].get("mean", 0), told[n].get("std", 0)) for n in names if n in told}
    else:
        listed = record.report.get("feature_statistics") or {}
        made = {
            f"feature {i}": float(rms) for i, rms in zip(listed.get("index", ()), listed.get("rms", ()), strict=True)
        }
    return {name: value for name, value in made.items() if value > 0 and math.isfinite(value)}


def _memorised(record: Record) -> dict[str, Any] | None:
    """The course of memorised noise in the accuracies (smoothed over 3 evaluations), or None."""
    train, val, errors = record.get("train_accuracy"), record.get("val_accuracy"), record.get("val_accuracy_se")
    if min(len(val), len(train)) < FEWEST_OF_A_COURSE or not len(errors):
        return None
    smooth = np.convolve(val.value, np.ones(3) / 3, "valid")
    peak = int(smooth.argmax()) + 1
    at_peak = float(np.interp(val.step[peak], train.step, train.value))
    last, train_last = float(smooth[-1]), float(np.median(train.value[-3:]))
    fall, noise = float(smooth.max()) - last, SURE_DIFFERENCE * float(errors.value[-1])
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


def _by_heart(record: Record) -> dict[str, float] | None:
    """Training skills of the end and validation's best, where the one is twice the other, and 0.15 more, and that below
    0.3."""
    train, val = record.skill("train"), record.skill("val")
    if len(train) < FEWEST_OF_A_COURSE or len(val) < FEWEST_OF_A_COURSE:
        return None
    best, last = float(val.max()), float(np.median(train[-3:]))
    worse = float(np.median(val[-3:])) < best < UNLEARNABLE
    loss = record.get("val_loss")
    unsure = standard_error(record, loss, int(loss.value.argmin())) / (record.scale or 1.0)
    if not worse or last < max(best, 0.0) + max(best, BY_HEART) or _differs(record) or _answers_well(record):
        return None
    return {"best_val_skill": best, "standard_error": unsure, "train_skill": last}


def _answers_well(record: Record) -> bool:
    """Whether validation ever closed half of the gap from the largest class's share to an accuracy of 1: labels that can
    be told so often explain no loss above the baseline."""
    accuracy, classes = record.get("val_accuracy").value, record.classes.values()
    if not len(accuracy) or not sum(classes):
        return False
    chance = max(classes) / sum(classes)
    return float(accuracy.max()) > (1 + chance) / 2


def _evenness(record: Record) -> float | None:
    """Entropy of the errors over the pairs (true, predicted), over what as many errors drawn evenly have on average.

    m errors over P cells: E[H] = ln m - (P / m) E[k ln k], k of a binomial of m and 1 / P. None for few errors, where
    next to nothing is learnt (any answer is wrong then), and where the part that they are of differs from validation.
    """
    if still_gaining(record) is not None:
        return None  # who is still learning errs in all ways
    matrix = np.asarray((record.evaluation or {}).get("confusion_matrix") or [], np.float64)
    skill = record.skill("val")
    if matrix.ndim != 2 or len(matrix) < 4 or not len(skill) or skill.max() < LEAST_LEARNT or _differs(record):
        return None
    errors = matrix[~np.eye(len(matrix), dtype=bool)]
    m, cells = int(errors.sum()), len(errors)
    if m < max(FEWEST_ERRORS, LEAST_WRONG * matrix.sum()):
        return None
    k = np.arange(1, m + 1)
    chances = math.lgamma(m + 1) - np.array([math.lgamma(i + 1) + math.lgamma(m - i + 1) for i in k])
    weights = np.exp(chances - k * math.log(cells) + (m - k) * math.log1p(-1 / cells))
    expected = math.log(m) - cells / m * float((weights * k * np.log(k)).sum())
    p = errors[errors > 0] / m
    return float(-(p * np.log(p)).sum() / expected)


def _val_against_test(record: Record) -> dict[str, Any] | None:
    """How much worse test is than validation at its best, and the standard error of that difference."""
    told, (_, n_val, n_test) = record.evaluation or {}, record.parts
    if told.get("split") != "test" or not n_val:
        return None
    metrics, n_test = told.get("metrics") or {}, int(told.get("samples") or n_test)
    loss, errors = record.get("val_loss"), record.get("val_loss_se")
    if not len(loss) or n_test < 1:
        return None
    at = loss.step[loss.value.argmin()]
    accuracy = record.get("val_accuracy")
    if record.classification and "accuracy" in metrics and (accuracy.step == at).any():
        own, other = float(accuracy.value[accuracy.step == at][0]), float(metrics["accuracy"])
        # (hits + 1) / (n + 2): a share of 1 is not without error
        error = sum(_variance(p, n) for p, n in ((own, n_val), (other, n_test)))
        return _compared("accuracy", own, other, own - other, math.sqrt(error))
    if "loss" in metrics and (errors.step == at).any() and record.scale:
        own, other, error = float(loss.value.min()), float(metrics["loss"]), float(errors.value[errors.step == at][0])
        spread = error * math.sqrt(1 + n_val / n_test) / record.scale
        return _compared("loss", own, other, (other - own) / record.scale, spread)
    return None


def _is_worse(seen: dict[str, Any] | None) -> bool:
    return seen is not None and seen["difference"] > max(SURE_DIFFERENCE * seen["standard_error"], DIFFERENT)


def _differs(record: Record) -> bool:
    """Whether the parts are not alike, by the report or by the harm."""
    return bool(record.findings("drift")) or _is_worse(_val_against_test(record))


def _variance(share: float, n: int) -> float:
    p = (share * n + 1) / (n + 2)
    return p * (1 - p) / n


def _compared(metric: str, own: float, other: float, difference: float, error: float) -> dict[str, Any]:
    return {"metric": metric, "validation": own, "test": other, "difference": difference, "standard_error": error}
