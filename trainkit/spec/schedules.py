"""Learning-rate schedules, as in `torch.optim.lr_scheduler`, each with an optional linear warm-up before it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainkit.spec.base import Fraction, NonNegative, ShortForm, SpecModel


class WarmUp(SpecModel):
    """Fields every schedule shares."""

    warmup_epochs: NonNegative = 0.0
    """Epochs of linear rise from near 0 to the full rate; fractions are allowed."""


class Constant(WarmUp):
    """The rate stays."""

    kind: Literal["constant"] = "constant"


class Step(WarmUp):
    """Multiply by `gamma` every `every_epochs` epochs."""

    kind: Literal["step"] = "step"
    every_epochs: Annotated[int, Field(ge=1)] = 10
    """Epochs between drops."""
    gamma: Fraction = 0.1
    """The factor."""


class MultiStep(WarmUp):
    """Multiply by `gamma` at each milestone."""

    kind: Literal["multi_step"] = "multi_step"
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (10, 15)
    """Epochs (counted from the start) after which the rate drops."""
    gamma: Fraction = 0.1
    """The factor."""

    @field_validator("milestones")
    @classmethod
    def rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("milestones are one or more epochs in rising order")
        return value


class Exponential(WarmUp):
    """Multiply by `gamma` after every epoch."""

    kind: Literal["exponential"] = "exponential"
    gamma: Fraction = 0.95
    """The factor."""


class Cosine(WarmUp):
    """Half a cosine from the full rate to `floor` times it (Loshchilov and Hutter 2017), step by step."""

    kind: Literal["cosine"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last rate as a fraction of the first."""


class OneCycle(WarmUp):
    """Rise from lr/div to lr over `rise` of the steps, then fall to lr/div/final_div, both by cosine (Smith 2018)."""

    kind: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps spent rising."""
    div: Annotated[float, Field(ge=1)] = 25.0
    """Peak rate over first rate."""
    final_div: Annotated[float, Field(ge=1)] = 1e4
    """First rate over last rate."""


class ReduceOnPlateau(WarmUp):
    """Multiply by `factor` when `monitor` has not improved for `patience` evaluations."""

    kind: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    monitor: str = "val_loss"
    """The metric to watch, such as val_loss or train_loss."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether smaller or larger is better; auto follows the metric's own direction."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The factor."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Evaluations without improvement before the rate drops."""
    min_delta: NonNegative = 0.0
    """Improvement must exceed this."""
    min_lr: NonNegative = 0.0
    """The rate never falls below this."""


ScheduleSpec = Annotated[
    Constant | Step | MultiStep | Exponential | Cosine | OneCycle | ReduceOnPlateau,
    Field(discriminator="kind"),
    ShortForm(),
]
