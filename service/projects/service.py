"""Projects: created, renamed and archived by the operator; what one keeps and may use.

That is the service's settings, over them the limits that the operator has set for the project, and within these the
project's own settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from service.database import db_time, new_id
from service.errors import HttpProblem
from service.principal import Principal
from service.projects import repository
from service.projects.tables import Project
from service.settings import Settings

PROJECT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
"""Names of new projects: they fit a header and an address."""
DEFAULT = "default"
"""Sent instead of a value: what the service has."""
LIMITS = (
    "max_queued_jobs",
    "max_running_jobs",
    "max_storage_bytes",
    "max_gpu_hours",
    "max_requests_per_minute",
    "max_streams",
)
"""What a project may use. The operator's value is the most that its own admins can set."""


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
    max_storage_bytes: int | None
    max_gpu_hours: int | None
    """In a calendar month."""
    max_requests_per_minute: int | None
    """Of one key, to all API processes together."""
    max_streams: int | None
    """Of one key to one API process."""


def service_rules(settings: Settings) -> Rules:
    """What holds for a project of which nothing else is said."""
    return Rules(
        checkpoints_days=settings.checkpoints_days,
        checkpoints_kept=settings.checkpoints_kept,
        logs_days=settings.logs_days,
        metrics_days=settings.metrics_days,
        jobs_days=settings.jobs_days,
        max_queued_jobs=settings.max_queued_jobs or None,
        max_running_jobs=settings.max_running_jobs or None,
        max_storage_bytes=settings.max_storage_bytes or None,
        max_gpu_hours=settings.max_gpu_hours or None,
        max_requests_per_minute=settings.max_requests_per_minute or None,
        max_streams=settings.max_streams_per_key or None,
    )


def ceilings_of(settings: Settings, limits: Mapping[str, Any] | None) -> Rules:
    """The service's settings, and over them what the operator has set for the project: more, less, or no limit."""
    changes: dict[str, Any] = {name: value or None for name, value in _limits(limits).items()}  # 0 stands for no limit
    return replace(service_rules(settings), **changes)


def rules_of(settings: Settings, overrides: Mapping[str, Any] | None, limits: Mapping[str, Any] | None = None) -> Rules:
    """What holds: the operator's limits, and over them what the project's admins have set."""
    rules = ceilings_of(settings, limits)
    known = asdict(rules)
    changes: dict[str, Any] = {
        name: value if name == "checkpoints_kept" else value or None  # none kept is none kept
        for name, value in (overrides or {}).items()
        if name in known
    }
    # limits may have been lowered since: the lower one holds
    for name, value in _limits(changes).items():
        most = known[name]
        changes[name] = most if value is None else min(value, most or value)
    return replace(rules, **changes)


def _limits(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if name in LIMITS}


def rules(session: Session, settings: Settings, project_id: str) -> Rules:
    """What holds for the project."""
    return rules_of(settings, *repository.setting_overrides(session, project_id))


def find(session: Session, who: Principal, project_id: str) -> Project:
    """Return a project that the principal may enter; for the operator any. Raises a 404 problem."""
    visible = who.operator or project_id == who.project_id or project_id in who.project_ids
    project = repository.find(session, project_id) if visible else None
    if project is None:
        raise unknown_project(project_id)
    return project


def unknown_project(shown: str) -> HttpProblem:
    """404: there is no such project, or it is none of the caller's."""
    return HttpProblem(404, "not_found", f"There is no project {shown[:80]!r} that you may see.")


CHOOSE_PROJECT = "Choose it with the header Trainkit-Project; a link to read, with ?trainkit-project=NAME."


def no_project(who: Principal) -> HttpProblem:
    """422: the operation is about one project, and none is chosen."""
    which = f"You are in several projects: {', '.join(who.choices)}" if who.choices else "This is about one project"
    return HttpProblem(422, "no_project", f"{which}. {CHOOSE_PROJECT}")


def create(
    session: Session,
    settings: Settings,
    name: str,
    overrides: Mapping[str, int | str | None],
    limits: Mapping[str, int | str | None],
) -> Project:
    """Create a project. Raises a 409 problem when the name is taken, 422 for a setting above the operator's limit."""
    _check_name_free(session, name)
    project = Project(id=new_id("prj"), name=name, created_at=db_time(session))
    _set(project, settings, overrides, limits)
    repository.add(session, project)
    return project


def change(
    session: Session,
    settings: Settings,
    project_id: str,
    overrides: Mapping[str, int | str | None],
    limits: Mapping[str, int | str | None],
    name: str | None = None,
    archived: bool | None = None,
) -> Project:
    """Set what is given; `default` takes back a value that was set before. The row is locked until the transaction ends.

    Of an archived project housekeeping ends the jobs and experiments (`background/archived_projects.py`).

    Args:
        overrides: The project's own settings.
        limits: The operator's, over the service's.

    Raises a 409 problem when the new name is taken, 422 for a setting above the operator's limit.
    """
    project = repository.locked(session, project_id)
    if name is not None and name != project.name:
        _check_name_free(session, name)
        project.name = name
    if archived is not None and archived != (project.archived_at is not None):
        project.archived_at = db_time(session) if archived else None
    _set(project, settings, overrides, limits)
    session.flush()
    return project


def _set(
    project: Project,
    settings: Settings,
    overrides: Mapping[str, int | str | None],
    limits: Mapping[str, int | str | None],
) -> None:
    project.limits = _merged(project.limits, limits)
    ceilings = asdict(ceilings_of(settings, project.limits))
    errors = [_beyond(name, value, ceilings[name]) for name, value in overrides.items() if name in LIMITS]
    if beyond := [error for error in errors if error is not None]:
        raise HttpProblem(422, "above_ceiling", "; ".join(error["message"] for error in beyond), errors=beyond)
    project.settings = _merged(project.settings, overrides)


def _check_name_free(session: Session, name: str) -> None:
    if repository.named(session, name) is not None:
        raise HttpProblem(409, "name_taken", f"There is a project {name!r} already. Choose another name.")


def _merged(stored: Mapping[str, Any] | None, wished: Mapping[str, int | str | None]) -> dict[str, Any] | None:
    merged = dict(stored or {})
    for name, value in wished.items():
        merged.pop(name, None)
        if value != DEFAULT:
            merged[name] = value or 0
    return merged or None


def _beyond(name: str, value: int | str | None, ceiling: int | None) -> dict[str, str] | None:
    """What is wrong with a limit; None where the project may set it."""
    if ceiling is None or value == DEFAULT or (isinstance(value, int) and value <= ceiling):
        return None
    shown = "no limit" if value is None else value
    return {
        "pointer": f"/settings/{name}",
        "code": "above_ceiling",
        "message": f"{name} may be at most {ceiling}, the operator's limit for this project; got {shown}",
        "hint": f'Set {ceiling} or less, or "{DEFAULT}" for the most there is. The operator can raise it (`limits`).',
    }
