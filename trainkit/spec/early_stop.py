"""Early-stop rules (techniques, section 9). Each is checked after every evaluation and leaves a decision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainkit.spec.base import NonNegative, Positive, SpecModel

Mode = Literal["auto", "min", "max"]


class Patience(SpecModel):
    """Stop when `monitor` has not improved by more than `min_delta` over the best for `patience` evaluations."""

    kind: Literal["patience"] = "patience"
    monitor: str = "val_loss"
    """The metric to watch, such as val_loss or val_accuracy."""
    mode: Mode = "auto"
    """Whether smaller (min) or larger (max) is better; auto follows the metric's own direction."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Evaluations in a row without improvement."""
    min_delta: NonNegative = 0.0
    """Improvement must exceed this, absolute; a tie keeps the earlier one."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Evaluations up to and including this epoch never count as misses; the best is tracked all the same."""


class Target(SpecModel):
    """Stop as soon as `monitor` reaches `value`."""

    kind: Literal["target"] = "target"
    monitor: str = "val_accuracy"
    """The metric to watch."""
    mode: Mode = "auto"
    """Whether smaller or larger is better; auto follows the metric's own direction."""
    value: float
    """The value that is good enough."""


class Diverged(SpecModel):
    """Stop when a loss is not finite, or exceeds `factor` times the first training loss."""

    kind: Literal["diverged"] = "diverged"
    factor: Annotated[float, Field(gt=1)] | None = None
    """Left out: only non-finite losses count."""


class TimeBudget(SpecModel):
    """Stop at the first evaluation after `seconds` of training time, summed over all attempts."""

    kind: Literal["time_budget"] = "time_budget"
    seconds: Positive
    """Training seconds."""


class NoProgress(SpecModel):
    """Stop when train and validation loss both moved less than `min_delta` over the last `evaluations`."""

    kind: Literal["no_progress"] = "no_progress"
    evaluations: Annotated[int, Field(ge=2)] = 5
    """How many evaluations are looked back on."""
    min_delta: NonNegative = 1e-4
    """Both losses' ranges (max - min) must stay within this."""


class Gap(SpecModel):
    """Stop when val_loss - train_loss has grown for `patience` evaluations in a row and exceeds `min_gap`."""

    kind: Literal["gap"] = "gap"
    patience: Annotated[int, Field(ge=1)] = 5
    """Evaluations of growth in a row."""
    min_gap: NonNegative = 0.0
    """Gaps up to this are never stopped for."""


EarlyStopRule = Annotated[Patience | Target | Diverged | TimeBudget | NoProgress | Gap, Field(discriminator="kind")]
