"""Wire format of the history of a group or an experiment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.request_model import RequestModel
from service.response_model import JsonObject, ResponseModel
from service.timestamps import Timestamp

MOST_CHARACTERS = 4000
Source = Literal["submitted", "plan", "autopilot", "recommendation", "fork", "retry", "resume", "investigation"]


class NoteIn(RequestModel):
    """A note of a person or an agent."""

    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    """What was thought, planned or concluded. It cannot be changed later: write another one."""


class NoteOut(ResponseModel):
    """A note, with its author and time."""

    id: str
    at: Timestamp
    actor: str
    """`key:...` or `user:...`."""
    text: str


class HistoryReason(ResponseModel):
    """Why a run was tried."""

    source: Source
    """`autopilot`: a step of it; `recommendation`: of a diagnosis; `plan`: values that the experiment's plan gives."""
    text: str
    """In words."""
    code: str | None
    """Of an autopilot's step and a recommendation: the verdict, the code of the error, or the name of the heuristic."""
    job: str | None
    """The job that it starts from or answers."""
    patch: JsonObject | None
    """What differs from that job, as a JSON merge patch of its spec; null where nothing is known of it."""


class HistoryResult(ResponseModel):
    """What a run gave: the metric of the weights that it kept."""

    value: float
    se: float | None
    """Standard error by the samples of the part; null where none is logged."""
    low: float | None
    """95 % interval: 1.96 standard errors on both sides, within the metric's bounds."""
    high: float | None
    improved: bool | None
    """Whether it is better than the best run before it by more than the noise; null where `plateau` is."""


class HistoryRun(ResponseModel):
    """One run: a trial of an experiment, or a job of a group."""

    index: int
    """Place in the order of submission, from 1."""
    job: str | None
    """Null where the service refused the spec that a plan had come to."""
    name: str
    state: str
    at: Timestamp | None
    """When it was submitted."""
    finished_at: Timestamp | None
    params: JsonObject
    """Values that tell a trial of a plan from the others."""
    why: HistoryReason
    note: str | None
    """The job's notes."""
    result: HistoryResult | None
    stop_reason: str | None
    error: str | None
    """Code of the job's error."""


class HistoryPlateau(ResponseModel):
    """Whether further runs have stopped to help."""

    reached: bool
    runs: int
    """Ended runs with a value since the last improvement."""
    since: int | None
    """Index of the run that improved last."""
    rule: str
    """By which it is told."""


class HistoryOut(ResponseModel):
    """What was tried, in which order, why, and what it gave; fields may be added, never renamed."""

    group: str
    """Of an experiment, its id."""
    experiment: str | None
    name: str
    kind: str | None
    """Of the experiment."""
    state: str | None
    reason: str | None
    """Why the experiment ended as it did."""
    metric: str
    """By which runs are compared."""
    direction: Literal["min", "max"]
    total: int
    """Runs in all."""
    states: dict[str, int]
    """State -> runs in it."""
    best: int | None
    """Index of the best run."""
    plateau: HistoryPlateau | None
    """Null where runs do not follow one another: folds, draws, baselines and the members of an ensemble."""
    data: list[HistoryRun]
    has_more: bool
    next: str | None
    """The `after` of the next page; null on the last one."""
    notes: list[NoteOut]
    """The newest notes, the oldest of them first."""
    notes_total: int
