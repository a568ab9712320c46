"""Underfitting: the model, or its penalties, cannot fit what the data hold."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.capacity import bottleneck, parameters_to_memorise, strong_penalties
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import wider
from trainkit.diagnose.performance import performance
from trainkit.diagnose.plateau import SANITY_CHECK_SERIES, held_back_by_dropout, low_skill_plateau
from trainkit.diagnose.record import HIGH_SKILL, LOW_SKILL, VERY_LOW_SKILL, Record
from trainkit.diagnose.sanity_checks import interpret_sanity_checks
from trainkit.diagnose.spec_changes import Change, Patch, longer_patch, model_patch, sanity_check_changes, wider_patch
from trainkit.diagnose.trends import generalisation_gap
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec.patch import replacing

CLEARLY_LESS = 0.8
"""Share of what is attainable beyond chance below which penalties or a narrow layer are blamed."""
NO_GAP = 0.1
"""Gap between validation and training loss, as a share of the baseline loss, below which a model does not overfit."""


def evidence(record: Record) -> Verdict | None:
    """Underfitting: training is on a plateau of low skill, and the model or its penalties explain it.

    With a skill below 0.5: strong penalties, or a layer narrower than K - 1 for K classes (Fisher 1936; Rao 1948), or
    sanity checks that show it. With a skill below 0.25: fewer than 2 n + d parameters (Zhang et al. 2017).
    Where a reference model attains clearly more, and training is not ahead of validation, such penalties and layers count
    below a skill of 0.9 and without a plateau.
    Dropout that keeps the training loss 0.15 of the baseline above the validation loss counts without a plateau.
    """
    plateau = low_skill_plateau(record)
    low_skill = plateau or held_back_by_dropout(record)
    penalties, narrow, checks = strong_penalties(record), bottleneck(record), interpret_sanity_checks(record)
    learnable = (penalties or narrow) and _leaves_learnable(record)
    if low_skill is None and learnable and record.final_skill is not None:
        low_skill = record.final_skill, int(record.get("train_loss").epoch[0])
    if low_skill is None:
        return None
    capacity, needed = record.parameters, parameters_to_memorise(record)
    small = capacity is not None and needed is not None and capacity < needed
    confirmed = checks is not None and checks.code == "underfitting_model_bias"
    if checks is not None and checks.code is not None:
        small = confirmed
    limit = LOW_SKILL if penalties or narrow or confirmed else VERY_LOW_SKILL
    limit = HIGH_SKILL if learnable else limit
    if not (small or penalties or learnable) or low_skill[0] >= limit:
        return None
    (learnt, since), samples = low_skill, record.parts[0]
    why = (
        f"{capacity} parameters are too few to memorise {samples} samples"
        if small
        else f"strong penalties ({', '.join(penalties)}) keep the loss high"
    )
    why = f"a layer of width {narrow} is too narrow for {len(record.classes)} classes" if narrow else why
    why = checks.message if confirmed and checks is not None else why
    sure = graded_confidence(limit - learnt, 0, limit, 0.5, 0.7)
    return Verdict(
        "underfitting_model_bias",
        max(sure, checks.confidence) if confirmed and checks is not None else sure,
        since,
        f"Training {'reached a plateau' if plateau else 'ended'} with {learnt:.0%} of the loss of a constant prediction "
        f"removed: {why}.",
        {
            "skill": learnt,
            "threshold": limit,
            "parameters": capacity,
            "parameters_that_fit_anything": needed,
            "narrowest_layer": narrow,
            "penalties": penalties,
            "sanity_checks": checks.evidence if checks is not None else None,
            "cannot_tell": "Noise in the data looks the same. If a larger model ends with no lower loss, it is noise.",
            "series": ["train_loss", "val_loss", *SANITY_CHECK_SERIES],
        },
    )


def _leaves_learnable(record: Record) -> bool:
    """Return whether the run reaches less than 0.8 of what is attainable, and training is not ahead of validation."""
    reached, gap = performance(record), generalisation_gap(record)
    if reached is None or reached.share is None or gap is None or reached.attainment != "short":
        return False
    return reached.share < CLEARLY_LESS and gap < NO_GAP


def suspicion(record: Record) -> float:
    """Few parameters, penalties or a linear model, without a gap between training and validation."""
    model = record.spec.model
    if (record.final_skill or 0.0) >= HIGH_SKILL:
        return 0.0
    capacity, needed, regularize = record.parameters, parameters_to_memorise(record), record.spec.regularize
    penalised = regularize.l1 or regularize.l2 or regularize.weight_decay or getattr(model, "dropout", 0)
    sure = 0.2
    if capacity is not None and needed is not None and capacity < needed:
        sure = 0.5
    if model.kind in ("linear", "linear_svm") or penalised:
        sure = max(sure, 0.4)
    if strong_penalties(record) or bottleneck(record) is not None:
        sure = 0.7
    return sure / 2 if (generalisation_gap(record) or 0.0) > 0.15 else sure


def recommendations(record: Record) -> Iterator[Change]:
    regularize = record.spec.regularize
    if regularize.l2 or regularize.l1 or regularize.weight_decay or getattr(record.spec.model, "dropout", 0):
        patch: Patch = {"regularize": {"l1": 0, "l2": 0, "weight_decay": 0}}
        if getattr(record.spec.model, "dropout", 0):
            patch |= model_patch(record, dropout=0)
        expected = ("train_loss", "down", "clearly, if the penalties kept the loss high", "this record")
        yield Change(patch, "The model does not overfit, so its penalties only keep the training loss high.", expected)
    expected = (
        "train_loss",
        "down",
        "below the loss of this run, unless the noise of the data is reached",
        "bias and variance",
    )
    if record.spec.model.kind in ("linear", "linear_svm"):
        old = record.spec.model.model_dump(mode="json")
        patch = {"model": replacing(old, {"kind": "mlp", "hidden": [128, 64]})}
        if record.spec.model.kind == "linear_svm" and record.spec.loss is not None and record.spec.loss.kind == "hinge":
            patch["loss"] = replacing(record.spec.loss.model_dump(), {"kind": "cross_entropy"})
        yield Change(patch, "A linear model cannot fit a non-linear relation; hidden layers can.", expected)
    if (wider := wider_patch(record)) is not None:
        yield Change(wider, "A network of twice the width can fit more.", expected)
        yield Change(
            {**wider, **longer_patch(record, 2)}, "Twice the width and twice the epochs to train it.", expected
        )
    yield from sanity_check_changes(record)


def interventions(record: Record) -> Iterator[Intervention]:
    code, regularize = "underfitting_model_bias", record.spec.regularize
    dropout = getattr(record.spec.model, "dropout", 0) or 0
    if regularize.l2 or regularize.l1 or regularize.weight_decay or dropout or regularize.max_norm:
        patch: Patch = {"regularize": {"l1": 0, "l2": 0, "weight_decay": 0, "max_norm": None}}
        if dropout:
            patch |= model_patch(record, dropout=0)
        strong = dropout >= 0.6 or bool(regularize.l1 or regularize.l2 >= 5 or regularize.weight_decay >= 0.1)
        why = "Without penalties and dropout the model can follow the training samples."
        yield Intervention("no_penalties", code, patch, "val_loss", why, 0.9, strong)
    yield from wider(record, code, 0.85)


CAUSE = Cause(
    code="underfitting_model_bias",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="The model, or its penalties, may keep it from fitting what the data hold.",
    explains=frozenset(),
)
