"""All rules over one record: verdicts, the main one first, and what to try next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainkit.diagnose.data import (
    class_imbalance,
    distribution_mismatch,
    label_noise,
    unscaled_inputs,
    validation_too_small,
)
from trainkit.diagnose.generalisation import (
    optimization_failure,
    overfitting,
    stopped_too_early,
    underfitting_model_bias,
)
from trainkit.diagnose.gradients import dead_units, saturated_activations, symmetric_initialization, vanishing_gradients
from trainkit.diagnose.leaks import leakage
from trainkit.diagnose.rates import exploding_gradients, learning_rate_too_high, learning_rate_too_low
from trainkit.diagnose.recommendations import NextSpec, next_specs
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict, ordered
from trainkit.diagnose.wrong_loss import wrong_loss
from trainkit.spec.sklearn_checks import is_yardstick

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
OF_DATA: tuple[Rule, ...] = (class_imbalance, leakage, distribution_mismatch, validation_too_small)
"""What a single evaluation of a model without a training loop can tell."""
EDITION = 4
"""Counts on when a rule, a threshold or a remedy changes: who has read a diagnosis asks for the new one then."""
ENOUGH = 10
"""Evaluations after which a course without a complaint is taken at its word."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Verdicts, the main one first, and what to try next. `final` when nothing can change any more."""

    final: bool
    verdicts: list[Verdict]
    next_specs: list[NextSpec]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, but for values that are not finite."""
        return {
            "final": self.final,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "next_specs": [spec.as_dict() for spec in self.next_specs],
        }


def diagnose(record: Record) -> Diagnosis:
    """Ask every rule, of what scikit-learn has fitted those about the data. With no complaint the verdict is `healthy`,
    as sure as there is evidence."""
    with np.errstate(all="ignore"):  # a diverged run's numbers overflow, and comparisons with them come out right
        found = [verdict for rule in rules_of(record) if (verdict := rule(record)) is not None]
    verdicts = ordered(found) or [healthy(record)]
    return Diagnosis(record.final, verdicts, next_specs(record, verdicts))


def rules_of(record: Record) -> tuple[Rule, ...]:
    """The rules that have something to look at."""
    return OF_DATA if is_yardstick(record.spec.model) else RULES


def healthy(record: Record) -> Verdict:
    """No rule found anything. Confidence: min(1, evaluations / 10) x (0.5 + skill / 2), 0 before the first evaluation."""
    train, val = record.get("train_loss"), record.get("val_loss")
    skill = min(1.0, max(0.0, record.learnt or 0.0))
    confidence = min(1.0, len(train) / ENOUGH) * (0.5 + skill / 2)
    message = (
        f"Nothing speaks against it after {len(train)} evaluations; {skill:.0%} of what a constant leaves is learnt."
        if len(train)
        else "Nothing has been measured yet; spec and dataset give no cause for concern."
    )
    if is_yardstick(record.spec.model):
        message += f" {record.spec.model.kind} is fitted by scikit-learn: only what concerns the data was asked."
    evidence = {
        "evaluations": len(train),
        "skill": record.learnt,
        "baseline_loss": record.baseline,
        "last_train_loss": float(train.value[-1]) if len(train) else None,
        "best_val_loss": float(val.value.min()) if len(val) else None,
        "rules_asked": [rule.__name__ for rule in rules_of(record)],
        "explained_by": [],
        "series": ["train_loss", "val_loss"],
    }
    return Verdict("healthy", round(confidence, 3), int(train.epoch[0]) if len(train) else None, message, evidence)
