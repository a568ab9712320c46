"""How a run ends: `TrainingOutcome` of the training loop, `FitResult` of `fit`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainkit.fit.models.trained_model import EnsembleModel, TrainedModel
from trainkit.spec import JobSpec

Outcome = Literal["finished", "handed_back", "paused", "cancelled"]


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """Why and where training ended."""

    outcome: Outcome
    stop_reason: str
    epoch: int
    step: int
    keep: Literal["best", "last"] = "best"
    checkpoint: Path | None = None


@dataclass
class FitResult:
    """What `fit` returns."""

    model: TrainedModel | EnsembleModel | None
    """None after `cancel`, `pause` and `hand_back`, and for a model that scikit-learn has fitted."""
    history: list[dict[str, Any]]
    """Metric rows `{step, epoch, split, name, value}` of every epoch, those before a resume included."""
    evaluation: dict[str, Any] | None
    stop_reason: str
    best_epoch: int | None
    stopped_epoch: int
    runtime: dict[str, Any]
    """What `auto` chose (the `resolved` event); pass it as `runtime` to resume on the same terms."""
    outcome: Outcome = "finished"
    checkpoint: Path | None = None
    """The checkpoint written on `pause` and `hand_back`."""
    spec: JobSpec | None = field(default=None, repr=False)
    """The resolved spec."""
