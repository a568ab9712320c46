"""Wire format of investigations: the budget that is asked for, and what was measured."""

from __future__ import annotations

from service.request_model import RequestModel
from service.response_model import JsonObject, ResponseModel
from service.timestamps import Timestamp
from trainkit.spec.investigation import Seconds, Variants


class InvestigateIn(RequestModel):
    """The budget of an investigation: time, a number of runs, or both."""

    seconds: Seconds | None = None
    """Time for all runs together. A run is begun only if it is expected to end within it."""
    jobs: Variants | None = None
    """Number of runs."""


class EffectOut(ResponseModel):
    """What a change does, measured against the run without it: same data, seed and epochs, paired by validation sample.

    `gain` is above 0 where the metric got better; `low` and `high` are its 95 % interval.
    """

    metric: str | None = None
    """`skill` is the accuracy or R^2 as a share of what a constant prediction leaves to be gained."""
    before: float | None = None
    after: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    samples: int | None = None
    """Pairs of validation samples."""
    confirmed: bool = False
    """Whether the figures are those of runs with another seed, which took no part in choosing the change."""
    variant: str | None = None
    """The run of the investigation that shows it. Its series are `variant_{variant}.val_loss` ... in that job's log."""
    artifact: str | None = None
    """Where the trained weights of that run are, if they were kept."""
    start_from: JsonObject | None = None
    """The section `start_from` of a spec that goes on from these weights."""


class HarmfulOut(ResponseModel):
    """A change that made the run worse beyond noise."""

    patch: JsonObject
    why: str
    measured: EffectOut | None


class TriedOut(ResponseModel):
    """A change that was tried, and what it did."""

    change: str
    causes: list[str] = []
    """The verdicts that it would have answered."""
    variant: str | None = None
    state: str | None = None
    outcome: str | None = None
    metric: str | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None


class InvestigationOut(ResponseModel):
    """The newest investigation that has ended with findings."""

    job: str
    state: str
    stop_reason: str | None
    started_at: Timestamp | None
    finished_at: Timestamp | None
    message: str
    """What was found, in words."""
    refuted: list[str]
    """Verdicts of the record that the runs contradict."""
    tried: list[TriedOut]
