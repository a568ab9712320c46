"""Distribution mismatch: the predefined parts of the data differ."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.held_out_data import LEAST_DIFFERENCE, SIGNIFICANT_ERRORS, is_significant, val_against_test
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.verdicts import BY_VALIDATION, Verdict, graded_confidence


def evidence(record: Record) -> Verdict | None:
    """Distribution mismatch between predefined parts; randomly split parts differ by chance only.

    Either test is worse than validation at the kept epoch by more than 3 standard errors and by 0.05, or the dataset
    report finds drift (with a higher confidence where test is 0.05 worse or the validation part drifted).
    """
    if not (record.facts.splits and record.spec.split.use_predefined):
        return None
    drifted = record.findings("drift")
    seen = val_against_test(record)
    worse = is_significant(seen)
    if not worse and not drifted:
        return None
    confidence = 0.0
    if seen is not None and worse:
        sigma = seen["difference"] / max(seen["standard_error"], 1e-12)
        confidence = graded_confidence(sigma, SIGNIFICANT_ERRORS, 6, 0.7)
    elif drifted:
        judged = any(" in validation than " in found["message"] for found in drifted)
        harmed = seen is not None and seen["difference"] > LEAST_DIFFERENCE
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
            "cannot_tell": "A validation part on which many runs were selected gives the same result."
            if worse
            else None,
            "series": ["val_loss", "val_accuracy", "test_loss", "test_accuracy"],
        },
    )


def suspicion(record: Record) -> float:
    """Predefined parts of which test is worse than validation by 2 standard errors, or that were not compared."""
    if not (record.facts.splits and record.spec.split.use_predefined):
        return 0.0
    seen = val_against_test(record)
    if seen is None:
        return 0.1
    sigma = seen["difference"] / max(seen["standard_error"], 1e-12)
    return min(0.5, 0.1 + 0.15 * max(0.0, sigma - 1)) if seen["difference"] > 0 else 0.1


def observable(record: Record) -> bool:
    return val_against_test(record) is not None


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("test_loss", "down", "to the validation loss, within the noise", "this record")
    if record.facts.splits and record.spec.split.use_predefined:
        patch: Patch = {"split": {"use_predefined": False}}
        yield Change(
            patch, "A random split makes all parts alike and shows whether the predefined parts differ.", expected
        )
    if record.resolved and record.resolved.sample.form == "image" and not record.spec.augment:
        patch = {"augment": [{"kind": "brightness"}, {"kind": "contrast"}, {"kind": "translate"}]}
        yield Change(patch, "Augmentation gives training more of the variation that test may have.", expected)
    yield Change(
        {"split": {"seed": (record.spec.split.seed + 1) % 2**31}},
        "Another random split shows whether the difference was chance.",
        expected,
    )


def interventions(record: Record) -> Iterator[Intervention]:
    if record.facts.splits and record.spec.split.use_predefined:
        measure = "val_accuracy" if record.classification else "val_r2"
        patch: Patch = {"split": {"use_predefined": False}}
        why = "A random split makes all parts alike and shows whether the shipped ones differ."
        yield Intervention("random_split", "distribution_mismatch", patch, measure, why)


CAUSE = Cause(
    code="distribution_mismatch",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="The predefined parts of the data may differ.",
    lowers_skill=False,
    explains=BY_VALIDATION,
    needs_training_curve=False,
)
