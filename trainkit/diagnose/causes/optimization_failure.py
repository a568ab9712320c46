"""Optimization failure: training does not find the weights that the model has room for."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.capacity import parameters_to_memorise, strong_penalties, too_deep
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import batch_norm, fewer_layers
from trainkit.diagnose.plateau import SANITY_CHECK_SERIES, is_plateau, lost_in_depth, low_skill_plateau
from trainkit.diagnose.record import HIGH_SKILL, VERY_LOW_SKILL, Record
from trainkit.diagnose.sanity_checks import interpret_sanity_checks
from trainkit.diagnose.spec_changes import (
    DEEP_HIDDEN_LAYERS,
    Change,
    hidden_widths,
    model_patch,
    rate_patch,
    sanity_check_changes,
    shallower,
)
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec.patch import replacing


def evidence(record: Record) -> Verdict | None:
    """Optimization failure: a plateau of low skill that neither capacity nor penalties explain.

    One of: a skill below 0.25 with 2 n + d parameters or more and no strong penalty; sanity checks that show it, with a
    skill below 0.5; 20 or more plain layers that learnt next to nothing (`lost_in_depth`).
    """
    deep, checks = lost_in_depth(record), interpret_sanity_checks(record)
    low_skill = low_skill_plateau(record) or ((record.final_skill or 0.0, 1) if deep else None)
    capacity, needed = record.parameters, parameters_to_memorise(record)
    if low_skill is None or strong_penalties(record) or capacity is None or needed is None:
        return None
    confirmed = checks is not None and checks.code == "optimization_failure"
    if capacity < needed if checks is None or checks.code is None else not confirmed:
        return None
    learnt, since = low_skill
    if learnt >= VERY_LOW_SKILL and not deep and not confirmed:
        return None
    why = f"although {capacity} parameters are enough to memorise {record.parts[0]} samples"
    why += ". So many layers without skip connections pass on hardly any signal" if deep else ""
    sure = 0.8 if deep else graded_confidence(VERY_LOW_SKILL - learnt, 0, VERY_LOW_SKILL, 0.5, 0.8)
    return Verdict(
        "optimization_failure",
        max(sure, checks.confidence) if confirmed and checks is not None else sure,
        since,
        f"Training ended with {learnt:.0%} of the loss of a constant prediction removed, "
        f"{f'and {checks.message}' if confirmed and checks is not None else why}.",
        {
            "skill": learnt,
            "threshold": VERY_LOW_SKILL,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "sanity_checks": checks.evidence if checks is not None else None,
            "cannot_tell": None
            if confirmed
            else "Only a smaller model with a lower final loss would prove it. Run the sanity checks to compare.",
            "series": ["train_loss", "train_grad_norm", "train_lr", *SANITY_CHECK_SERIES],
        },
    )


def suspicion(record: Record) -> float:
    """Many layers without skip connections, or a plateau of training at a skill below 0.9."""
    if (record.final_skill or 0.0) >= HIGH_SKILL or record.spec.model.kind in ("linear", "linear_svm"):
        return 0.0
    deep = len(hidden_widths(record)) >= DEEP_HIDDEN_LAYERS and getattr(record.spec.model, "norm", None) == "none"
    return 0.7 if too_deep(record) else 0.5 if deep else 0.25 if is_plateau(record) else 0.1


def recommendations(record: Record) -> Iterator[Change]:
    expected = (
        "train_loss",
        "down",
        "below the loss of a constant prediction within a few epochs",
        "this record's baseline",
    )
    plain = getattr(record.spec.model, "norm", None) == "none"
    yield from shallower(record, expected)
    if record.spec.optimizer.kind != "adam":
        old = record.spec.optimizer.model_dump(mode="json")
        yield Change(
            {"optimizer": replacing(old, {"kind": "adam", "lr": 1e-3})},
            "Adam scales the step of each weight by the size of its gradient.",
            expected,
        )
    if plain:
        yield Change(
            model_patch(record, norm="batch"), "Batch norm keeps activations and gradients in range.", expected
        )
    for factor in (0.1, 10.0):
        yield Change(
            rate_patch(record, factor),
            f"A learning rate {factor:g} times as large: a wrong rate is the most common cause.",
            expected,
        )
    yield from sanity_check_changes(record)


def interventions(record: Record) -> Iterator[Intervention]:
    code = "optimization_failure"
    yield from fewer_layers(record, code, 0.9)
    yield from batch_norm(record, code, 0.4)
    if record.spec.optimizer.kind != "adam":
        old = record.spec.optimizer.model_dump(mode="json")
        patch = {"optimizer": replacing(old, {"kind": "adam", "lr": 1e-3})}
        why = "Adam scales the step of each weight by the size of its gradient."
        yield Intervention("adam", code, patch, "val_loss", why, 0.4)


CAUSE = Cause(
    code="optimization_failure",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="Training may have stopped at weights that are worse than what the model has room for.",
    explains=frozenset({"overfitting"}),
)
