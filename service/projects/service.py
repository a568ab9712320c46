"""What a project keeps and may use: its own settings over the service's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from service.keys.tables import Project
from service.projects import repository
from service.settings import Settings

DEFAULT = "default"
"""Sent instead of a value: what the service has."""
CEILINGS = frozenset({"max_queued_jobs", "max_running_jobs", "quota_bytes"})
"""Where the service's value is the most that a project can set."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Days count from a job's end. None: for ever, or no limit."""

    checkpoints_days: int | None
    checkpoints_kept: int
    logs_days: int | None
    metrics_days: int | None
    jobs_days: int | None
    max_queued_jobs: int | None
    max_running_jobs: int | None
    quota_bytes: int | None


def rules_of(settings: Settings, overrides: Mapping[str, Any] | None) -> Rules:
    """The service's settings, and over them those of the project."""
    rules = Rules(
        checkpoints_days=settings.checkpoints_days,
        checkpoints_kept=settings.checkpoints_kept,
        logs_days=settings.logs_days,
        metrics_days=settings.metrics_days,
        jobs_days=settings.jobs_days,
        max_queued_jobs=settings.max_queued_jobs or None,
        max_running_jobs=settings.max_running_jobs or None,
        quota_bytes=settings.project_quota_bytes,
    )
    known = asdict(rules)
    # a stored 0 stands for no limit, but none kept is none kept
    changes: dict[str, Any] = {
        name: value if name == "checkpoints_kept" else value or None
        for name, value in (overrides or {}).items()
        if name in known
    }
    # who runs the service has the last word on what a project may use: its own admins can only ask for less
    for name in CEILINGS & changes.keys():
        most = known[name]
        changes[name] = most if changes[name] is None else min(changes[name], most or changes[name])
    return replace(rules, **changes)


def rules(session: Session, settings: Settings, project_id: str) -> Rules:
    """What holds for the project."""
    return rules_of(settings, repository.setting_overrides(session, project_id))


def change(session: Session, project_id: str, wished: Mapping[str, int | str | None]) -> Project:
    """Set what is wished; `default` takes back what was set before. The row is locked until the transaction ends."""
    project = repository.locked(session, project_id)
    overrides = dict(project.settings or {})
    for name, value in wished.items():
        overrides.pop(name, None)
        if value != DEFAULT:
            overrides[name] = value or 0
    project.settings = overrides or None
    session.flush()
    return project
