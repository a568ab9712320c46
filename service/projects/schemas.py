"""Wire format of projects and their settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from service.projects.service import DEFAULT, PROJECT_NAME, ceilings_of, rules_of
from service.projects.tables import Project
from service.request_model import RequestModel
from service.response_model import ResponseModel
from service.settings import Settings
from service.timestamps import Timestamp

DAYS = (1, 36_500)
JOBS = (1, 1_000_000)
BOUNDS = {
    "checkpoints_days": DAYS,
    "checkpoints_kept": (0, 1000),
    "logs_days": DAYS,
    "metrics_days": DAYS,
    "jobs_days": DAYS,
    "max_queued_jobs": JOBS,
    "max_running_jobs": JOBS,
    "max_storage_bytes": (1, 2**53),
    "max_gpu_hours": (1, 10_000_000),
    "max_requests_per_minute": (1, 10_000_000),
    "max_streams": (1, 1_000_000),
}
NEVER_ENDLESS = frozenset({"checkpoints_kept"})


def setting(name: str) -> Any:
    """A field whose schema says what `SettingsIn.check` takes."""
    least, most = BOUNDS[name]
    forms: list[Any] = [{"type": "integer", "minimum": least, "maximum": most}, {"type": "string", "const": DEFAULT}]
    if name not in NEVER_ENDLESS:
        forms.append({"type": "null"})
    return Field(DEFAULT, json_schema_extra={"anyOf": forms})


class LimitsIn(RequestModel):
    """Limits to change; what is left out stays. null: no limit. "default": what the service has."""

    max_queued_jobs: Any = setting("max_queued_jobs")
    max_running_jobs: Any = setting("max_running_jobs")
    max_storage_bytes: Any = setting("max_storage_bytes")
    max_gpu_hours: Any = setting("max_gpu_hours")
    max_requests_per_minute: Any = setting("max_requests_per_minute")
    max_streams: Any = setting("max_streams")

    @field_validator("*")
    @classmethod
    def check(cls, value: Any, info: ValidationInfo) -> Any:
        """One message for all that is wrong with a value: a union would say it once for each of its parts."""
        name = info.field_name or ""
        least, most = BOUNDS[name]
        endless = name not in NEVER_ENDLESS
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON Schema takes 5.0 for a whole number
        whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        if whole or (value is None and endless) or (isinstance(value, str) and value == DEFAULT):
            return value
        otherwise = f'null (no limit) or "{DEFAULT}"' if endless else f'or "{DEFAULT}"'
        raise ValueError(f"should be a whole number from {least} to {most}, {otherwise}")


class SettingsIn(LimitsIn):
    """What to change; what is left out stays. null: for ever, or no limit. "default": what the service has.

    A limit can be set below the operator's (`limits`), and not above it.
    """

    checkpoints_days: Any = setting("checkpoints_days")
    checkpoints_kept: Any = setting("checkpoints_kept")
    logs_days: Any = setting("logs_days")
    metrics_days: Any = setting("metrics_days")
    jobs_days: Any = setting("jobs_days")


ProjectName = Annotated[str, Field(pattern=PROJECT_NAME.pattern, max_length=100)]


class NewProjectIn(RequestModel):
    """A project to create."""

    name: ProjectName
    settings: SettingsIn = Field(default_factory=SettingsIn)
    limits: LimitsIn = Field(default_factory=LimitsIn)
    """What the project may use instead of the service's limits."""


class ProjectIn(RequestModel):
    """What to change of a project; what is left out or null stays. Only the operator changes `name`, `archived` and
    `limits`.
    """

    name: ProjectName | None = None
    archived: bool | None = None
    """Whether it is only read: no writes, and its jobs end."""
    settings: SettingsIn | None = None
    limits: LimitsIn | None = None
    """What the project may use instead of the service's limits, more or less."""


class LimitsOut(ResponseModel):
    """What a project may use; null: no limit."""

    max_queued_jobs: int | None
    max_running_jobs: int | None
    max_storage_bytes: int | None
    max_gpu_hours: int | None
    """In a calendar month (UTC)."""
    max_requests_per_minute: int | None
    """Of one key, to all API processes together."""
    max_streams: int | None


class SettingsOut(LimitsOut):
    """What holds. Days count from a job's end; null: for ever, or no limit."""

    checkpoints_days: int | None
    checkpoints_kept: int
    """So many of the newest stay, however old."""
    logs_days: int | None
    metrics_days: int | None
    jobs_days: int | None


class ProjectOut(ResponseModel):
    """A project; `overrides` names the settings that are not the service's."""

    id: str
    name: str
    created_at: Timestamp
    archived_at: Timestamp | None
    """Since when it is only read; null: in use."""
    settings: SettingsOut
    overrides: list[str]
    limits: LimitsOut
    """The operator's limits: the most that the project's settings may say."""


def project_out(project: Project, settings: Settings) -> ProjectOut:
    """A row as scripts read it."""
    holds = SettingsOut.model_validate(asdict(rules_of(settings, project.settings, project.limits)))
    overrides = sorted(project.settings or {})
    return ProjectOut(
        id=project.id,
        name=project.name,
        created_at=project.created_at,
        archived_at=project.archived_at,
        settings=holds,
        overrides=overrides,
        limits=LimitsOut.model_validate(asdict(ceilings_of(settings, project.limits))),
    )
