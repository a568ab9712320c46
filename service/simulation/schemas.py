"""Wire format of replayed decisions."""

from __future__ import annotations

from service.response_model import JsonObject, ResponseModel, RuleDocument


class SimulatedDecision(ResponseModel):
    """What a rule would have decided. `seq` counts from 1; a value that JSON cannot hold is null, as in decisions."""

    seq: int
    rule: RuleDocument
    step: int
    epoch: int
    inputs: JsonObject
    action: str
    reason: str


class SimulatedStop(ResponseModel):
    """Where training would have ended, and by which rule."""

    step: int
    epoch: int
    rule: RuleDocument
    reason: str
    stop_reason: str


class SavedTraining(ResponseModel):
    """Training that lies behind the stop; 0 without one."""

    epochs: int
    steps: int
    seconds: float


class Cost(ResponseModel):
    """The best value up to the stop and of the whole history; `regret` >= 0 is how much worse the first is."""

    metric: str
    best_if_stopped: float | None
    best_seen: float | None
    regret: float | None


class SimulationOut(ResponseModel):
    """A replay of early-stop rules on a job's history."""

    decisions: list[SimulatedDecision]
    """One page, from seq `after` + 1 on."""
    next: int
    """The `after` of the next page."""
    total: int
    evaluations: int
    """How many evaluations of the history were looked at."""
    stop: SimulatedStop | None
    saved: SavedTraining
    cost: Cost
    matches_recorded: bool | None
    """Of the job's own rules: whether the replay gives the decisions that were taken; null for other rules."""
