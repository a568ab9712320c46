"""Verdicts, the closed list of their codes, and which cause explains which symptom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Code = Literal[
    "healthy",
    "overfitting",
    "underfitting_model_bias",
    "optimization_failure",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "vanishing_gradients",
    "exploding_gradients",
    "dead_units",
    "symmetric_initialization",
    "saturated_activations",
    "unscaled_inputs",
    "label_noise",
    "class_imbalance",
    "distribution_mismatch",
    "leakage",
    "validation_too_small",
    "stopped_too_early",
    "wrong_loss",
]
CODES: tuple[Code, ...] = get_args(Code)
LOW_LEARNING: frozenset[Code] = frozenset(
    {"learning_rate_too_low", "optimization_failure", "underfitting_model_bias", "stopped_too_early", "class_imbalance"}
)
IDLE: frozenset[Code] = frozenset({"dead_units", "saturated_activations", "vanishing_gradients"})
BY_VALIDATION: frozenset[Code] = frozenset({"overfitting", "stopped_too_early"})
EXPLAINS: dict[Code, frozenset[Code]] = {
    "symmetric_initialization": LOW_LEARNING | IDLE | {"learning_rate_too_high"},
    "unscaled_inputs": LOW_LEARNING | IDLE | {"exploding_gradients", "learning_rate_too_high", "wrong_loss"},
    "exploding_gradients": LOW_LEARNING
    | {"dead_units", "vanishing_gradients", "learning_rate_too_high", "overfitting"},
    "learning_rate_too_high": LOW_LEARNING | IDLE | {"overfitting"},
    "dead_units": LOW_LEARNING | {"vanishing_gradients"},
    "saturated_activations": LOW_LEARNING | {"vanishing_gradients", "exploding_gradients", "overfitting"},
    "vanishing_gradients": LOW_LEARNING,
    "learning_rate_too_low": LOW_LEARNING - {"learning_rate_too_low"},
    "wrong_loss": LOW_LEARNING | {"validation_too_small", "overfitting"},
    "label_noise": frozenset({"overfitting", "underfitting_model_bias", "optimization_failure"}),
    "class_imbalance": frozenset({"underfitting_model_bias", "optimization_failure", "overfitting"}),
    "stopped_too_early": frozenset({"underfitting_model_bias", "optimization_failure"}),
    "distribution_mismatch": BY_VALIDATION,
    "leakage": BY_VALIDATION,
    "validation_too_small": BY_VALIDATION | {"underfitting_model_bias", "optimization_failure"},
}
"""Cause -> the verdicts that it may produce as symptoms; these are listed after it."""
EXPLAINS_FROM_CONFIDENCE = 0.5
"""The least confidence with which a verdict explains others."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One problem of a run: its code, confidence in [0, 1], first epoch, and the numbers that show it."""

    code: Code
    confidence: float
    since_epoch: int | None
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def graded_confidence(value: float, at: float, full: float, low: float = 0.5, high: float = 0.95) -> float:
    """Return a confidence that rises linearly from `low` at `value = at` (the threshold) to `high` at `full`."""
    share = (value - at) / (full - at)
    return round(low + (high - low) * min(1.0, max(0.0, share if math.isfinite(share) else 1.0)), 3)


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
