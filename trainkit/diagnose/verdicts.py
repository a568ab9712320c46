"""Verdicts, suspects, and the groups of symptoms that causes explain."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

Code = str
"""`healthy`, `inconclusive`, or the code of a cause: the name of its module in `trainkit.diagnose.causes`."""
LOW_LEARNING: frozenset[Code] = frozenset(
    {"learning_rate_too_low", "optimization_failure", "underfitting_model_bias", "stopped_too_early", "class_imbalance"}
)
IDLE: frozenset[Code] = frozenset({"dead_units", "saturated_activations", "vanishing_gradients"})
BY_VALIDATION: frozenset[Code] = frozenset({"overfitting", "stopped_too_early"})
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


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that is possible and that the record does not show.

    `suspicion` is between 0 and 1; `settled_by` names the interventions whose runs would tell.
    """

    code: Code
    suspicion: float
    why: str
    settled_by: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def graded_confidence(value: float, at: float, full: float, low: float = 0.5, high: float = 0.95) -> float:
    """Return a confidence that rises linearly from `low` at `value = at` (the threshold) to `high` at `full`."""
    share = (value - at) / (full - at)
    return round(low + (high - low) * min(1.0, max(0.0, share if math.isfinite(share) else 1.0)), 3)
