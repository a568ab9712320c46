"""The diagnosis of a run: the evidence of every cause in its record, the verdicts ordered, and recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainkit.diagnose.cause import Cause
from trainkit.diagnose.causes import CAUSES, CODES, EXPLAINS
from trainkit.diagnose.recommendations import RecommendedSpec, recommend
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import EXPLAINS_FROM_CONFIDENCE, Code, Verdict
from trainkit.spec.models import is_sklearn_model

RULESET_VERSION = 4
"""Increment when a rule, a threshold or a recommendation changes: it is part of the ETag of a diagnosis."""
HEALTHY_AFTER_EVALUATIONS = 10
"""Number of evaluations from which on `healthy` has its full confidence."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Verdicts, the main one first, and recommended specs. `final` once the run has ended."""

    final: bool
    verdicts: list[Verdict]
    recommendations: list[RecommendedSpec]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; floats may be NaN or infinite."""
        return {
            "final": self.final,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "recommendations": [spec.as_dict() for spec in self.recommendations],
        }


def diagnose(record: Record) -> Diagnosis:
    """Look for the evidence of every cause in the record of a run; `healthy` is the only verdict where there is none."""
    with np.errstate(all="ignore"):  # a diverged run's numbers overflow, and comparisons with them come out right
        found = [verdict for cause in possible_causes(record) if (verdict := cause.evidence(record)) is not None]
    verdicts = order_by_cause(found) or [healthy(record)]
    return Diagnosis(record.final, verdicts, recommend(record, verdicts))


def possible_causes(record: Record) -> list[Cause]:
    """Return the causes that a run of this kind of model can have."""
    fitted_by_sklearn = is_sklearn_model(record.spec.model)
    return [cause for cause in CAUSES.values() if not (fitted_by_sklearn and cause.needs_training_curve)]


def order_by_cause(found: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts, causes before symptoms and then by falling confidence, each with its `explained_by`.

    The depth of a verdict is the longest chain of causes of at least 0.5 confidence that leads to it.
    """
    sure = {one.code for one in found if one.confidence >= EXPLAINS_FROM_CONFIDENCE}

    def causes(code: Code) -> list[Code]:
        return [cause for cause in EXPLAINS if cause in sure and code in EXPLAINS[cause]]

    def depth(code: Code) -> int:
        return 1 + max((depth(cause) for cause in causes(code)), default=-1)

    annotated = [
        Verdict(v.code, v.confidence, v.since_epoch, v.message, {**v.evidence, "explained_by": causes(v.code)})
        for v in found
    ]
    return sorted(annotated, key=lambda v: (depth(v.code), -v.confidence, CODES.index(v.code)))


def healthy(record: Record) -> Verdict:
    """Return the verdict `healthy` with confidence min(1, evaluations / 10) x (0.5 + skill / 2)."""
    train, val = record.get("train_loss"), record.get("val_loss")
    skill = min(1.0, max(0.0, record.final_skill or 0.0))
    confidence = min(1.0, len(train) / HEALTHY_AFTER_EVALUATIONS) * (0.5 + skill / 2)
    message = (
        f"No problem was found in {len(train)} evaluations. The model removes {skill:.0%} of the loss of a constant "
        "prediction."
        if len(train)
        else "Nothing has been measured yet. The spec and the dataset show no problem."
    )
    if is_sklearn_model(record.spec.model):
        message += f" scikit-learn fits {record.spec.model.kind}, so only the rules about the data were applied."
    evidence = {
        "evaluations": len(train),
        "skill": record.final_skill,
        "baseline_loss": record.baseline,
        "last_train_loss": float(train.value[-1]) if len(train) else None,
        "best_val_loss": float(val.value.min()) if len(val) else None,
        "rules_asked": [cause.code for cause in possible_causes(record)],
        "explained_by": [],
        "series": ["train_loss", "val_loss"],
    }
    return Verdict("healthy", round(confidence, 3), int(train.epoch[0]) if len(train) else None, message, evidence)
