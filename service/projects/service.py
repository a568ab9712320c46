"""Projects: made, renamed and archived by the operator; what one keeps and may use, its own settings over the service's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from service.database import db_time, new_id
from service.errors import HttpProblem
from service.keys.service import Principal
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


def find(session: Session, who: Principal, project_id: str) -> Project:
    """Return a project that the principal may see: the one it is in; for the operator any. Raises a 404 problem."""
    project = repository.find(session, project_id) if who.operator or project_id == who.project_id else None
    if project is None:
        raise unknown_project(project_id)
    return project


def unknown_project(shown: str) -> HttpProblem:
    """404: there is no such project, or it is none of the caller's."""
    return HttpProblem(404, "not_found", f"There is no project {shown[:80]!r} that you may see.")


def create(session: Session, name: str, settings: Mapping[str, int | str | None]) -> Project:
    """Create a project. Raises a 409 problem when the name is taken."""
    _check_name_free(session, name)
    project = Project(id=new_id("prj"), name=name, created_at=db_time(session), settings=_overrides(None, settings))
    repository.add(session, project)
    return project


def change(
    session: Session,
    project_id: str,
    settings: Mapping[str, int | str | None],
    name: str | None = None,
    archived: bool | None = None,
) -> Project:
    """Set what is given; `default` takes back a setting that was set before. The row is locked until the transaction ends.

    Of an archived project housekeeping ends the jobs and experiments (`background/archived_projects.py`).
    Raises a 409 problem when the new name is taken.
    """
    project = repository.locked(session, project_id)
    if name is not None and name != project.name:
        _check_name_free(session, name)
        project.name = name
    if archived is not None and archived != (project.archived_at is not None):
        project.archived_at = db_time(session) if archived else None
    project.settings = _overrides(project.settings, settings)
    session.flush()
    return project


def _check_name_free(session: Session, name: str) -> None:
    if repository.named(session, name) is not None:
        raise HttpProblem(409, "name_taken", f"There is a project {name!r} already. Choose another name.")


def _overrides(before: Mapping[str, Any] | None, settings: Mapping[str, int | str | None]) -> dict[str, Any] | None:
    overrides = dict(before or {})
    for name, value in settings.items():
        overrides.pop(name, None)
        if value != DEFAULT:
            overrides[name] = value or 0
    return overrides or None
