"""The diagnosis of a run: all rules applied to its record, the verdicts ordered, and recommendations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainkit.diagnose.generalisation import (
    optimization_failure,
    overfitting,
    stopped_too_early,
    underfitting_model_bias,
)
from trainkit.diagnose.gradients import dead_units, saturated_activations, symmetric_initialization, vanishing_gradients
from trainkit.diagnose.held_out_data import distribution_mismatch, leakage, validation_too_small
from trainkit.diagnose.label_noise import label_noise
from trainkit.diagnose.rates import exploding_gradients, learning_rate_too_high, learning_rate_too_low
from trainkit.diagnose.recommendations import RecommendedSpec, recommend
from trainkit.diagnose.record import Record
from trainkit.diagnose.training_data import class_imbalance, unscaled_inputs
from trainkit.diagnose.verdicts import Verdict, order_by_cause
from trainkit.diagnose.wrong_loss import wrong_loss
from trainkit.spec.models import is_sklearn_model

Rule = Callable[[Record], Verdict | None]
RULES: tuple[Rule, ...] = (
    symmetric_initialization,
    unscaled_inputs,
    exploding_gradients,
    learning_rate_too_high,
    learning_rate_too_low,
    dead_units,
    saturated_activations,
    vanishing_gradients,
    wrong_loss,
    class_imbalance,
    label_noise,
    leakage,
    distribution_mismatch,
    overfitting,
    underfitting_model_bias,
    stopped_too_early,
    optimization_failure,
    validation_too_small,
)
DATA_RULES: tuple[Rule, ...] = (class_imbalance, leakage, distribution_mismatch, validation_too_small)
"""Rules that need no training curve: the only ones for models that scikit-learn fits."""
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
    """Apply the rules to the record of a run; `healthy` is the only verdict when none of them applies."""
    with np.errstate(all="ignore"):  # a diverged run's numbers overflow, and comparisons with them come out right
        found = [verdict for rule in applicable_rules(record) if (verdict := rule(record)) is not None]
    verdicts = order_by_cause(found) or [healthy(record)]
    return Diagnosis(record.final, verdicts, recommend(record, verdicts))


def applicable_rules(record: Record) -> tuple[Rule, ...]:
    """Return the rules that apply to the kind of model."""
    return DATA_RULES if is_sklearn_model(record.spec.model) else RULES


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
        "rules_asked": [rule.__name__ for rule in applicable_rules(record)],
        "explained_by": [],
        "series": ["train_loss", "val_loss"],
    }
    return Verdict("healthy", round(confidence, 3), int(train.epoch[0]) if len(train) else None, message, evidence)
