"""Experiments and their trials. A plan's memory is these rows alone: whoever reads them knows what comes next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, Name, UtcDateTime


class Experiment(Base):
    """Many jobs as one. Jobs of it have its id as their spec's `group`."""

    __tablename__ = "experiments"
    audited = Audited("experiment", omitted=frozenset({"actor", "has_pending"}))
    __table_args__ = (
        Index("experiments_by_project", "project_id", "id"),
        Index("experiments_by_state", "state"),
        Index("experiments_by_name", "project_id", "name", "id"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    actor: Mapped[str] = mapped_column(String(64))
    """Who asked for it, in whose name its jobs are made and stopped."""
    name: Mapped[str] = mapped_column(Name)
    kind: Mapped[str] = mapped_column(String(20))
    labels: Mapped[dict[str, Any]] = mapped_column(Json)
    plan: Mapped[dict[str, Any]] = mapped_column(JSON)
    """As it was submitted, its fields in their order: the order of trials hangs on it, and JSONB does not keep it."""
    reference_names: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """JSON pointer into `plan` -> the reference by name that the client wrote there; the plan itself has the id."""
    dataset_id: Mapped[str] = mapped_column(String(64))
    """Which may be deleted before the experiment."""
    state: Mapped[str] = mapped_column(String(20))
    has_pending: Mapped[bool] = mapped_column(default=True)
    """Whether there may be more to make though no trial has ended since: a full queue, a dataset that is being checked."""
    requested_action: Mapped[str | None] = mapped_column(String(20))
    """What a stop does with jobs that have begun: stop, cancel or finish."""
    reason: Mapped[str | None] = mapped_column(String(500))
    """Why it ended as it did, in words."""
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Trial(Base):
    """One of an experiment's jobs, by number from 0 on. It outlives its job: plan and statistics rest on it."""

    __tablename__ = "experiment_trials"
    __table_args__ = (Index("experiment_trials_by_job", "job_id"),)
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[str | None] = mapped_column(String(40))
    """None where the service refused the spec that the plan had come to."""
    params: Mapped[dict[str, Any]] = mapped_column(Json)
    """What tells it from the others: `{fold: 0}`, `{"/optimizer/lr": 0.1}`."""
    rationale: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Autopilot: what was seen, and what is expected of this step."""
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    outcome: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`{state, stop_reason, error, metrics, ...}` from the moment on when its end was seen; never changed again."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
