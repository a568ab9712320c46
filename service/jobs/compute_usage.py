"""GPU-hours and CPU-hours: time from the claim of a job to the end of its attempt, counted by calendar month (UTC)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from service.database import db_time
from service.errors import HttpProblem, Quota
from service.jobs import repository
from service.projects.service import rules
from service.settings import Settings

HOUR = 3600.0
ACCELERATED = ("cuda", "mps")


@dataclass(frozen=True, slots=True)
class ComputeTime:
    """What a project has used of a month until `at`, running attempts included."""

    gpu_seconds: float
    cpu_seconds: float
    at: datetime

    @property
    def gpu_hours(self) -> float:
        return self.gpu_seconds / HOUR

    @property
    def cpu_hours(self) -> float:
        return self.cpu_seconds / HOUR

    @property
    def resets_at(self) -> datetime:
        """When the next month begins."""
        return next_month(self.at)


def record(
    session: Session, project_id: str, runtime: Mapping[str, Any] | None, started_at: datetime, ended_at: datetime
) -> None:
    """Count an attempt that has ended. One that ended before its device was known costs nothing."""
    for begin, end in _by_month(started_at, ended_at):
        gpu, cpu = _seconds(runtime, begin, end)
        if gpu or cpu:
            repository.add_compute_seconds(session, project_id, _month(begin), gpu, cpu)


def used(session: Session, project_id: str) -> ComputeTime:
    """What the project has used in this month."""
    now = db_time(session)
    gpu, cpu = repository.compute_seconds(session, project_id, _month(now))
    for started_at, runtime in repository.running_attempts(session, project_id):
        more_gpu, more_cpu = _seconds(runtime, max(started_at, _first_of_month(now)), now)
        gpu, cpu = gpu + more_gpu, cpu + more_cpu
    return ComputeTime(gpu, cpu, now)


def check_gpu_hours(session: Session, project_id: str, most: int | None) -> None:
    """Raise a 429 problem for a job that may train on a GPU, when the project has used its GPU-hours of the month."""
    if most is None or (spent := used(session, project_id)).gpu_hours < most:
        return
    detail = (
        f"The project has used {spent.gpu_hours:.1f} GPU-hours this month, and may use {most}; the next month begins at "
        f"{spent.resets_at:%Y-%m-%d} 00:00 UTC. Set `resources.device` to cpu, wait, or ask the operator for more."
    )
    wait = math.ceil((spent.resets_at - spent.at).total_seconds())
    quota = Quota("gpu_hours", limit=most, used=round(spent.gpu_hours, 3), resets_at=spent.resets_at)
    raise HttpProblem(429, "gpu_hours_used_up", detail, headers={"Retry-After": str(wait)}, quota=quota)


def has_gpu_hours(session: Session, settings: Settings, project_id: str) -> bool:
    """Whether the project has GPU-hours left in this month."""
    most = rules(session, settings, project_id).max_gpu_hours
    return most is None or used(session, project_id).gpu_hours < most


def _seconds(runtime: Mapping[str, Any] | None, begin: datetime, end: datetime) -> tuple[float, float]:
    """(GPU seconds, CPU seconds) of an attempt, or of a part of it. A job has one GPU or none."""
    seconds = max(0.0, (end - begin).total_seconds())
    if not runtime:
        return 0.0, 0.0
    if str(runtime.get("device", "")).startswith(ACCELERATED):
        return seconds, 0.0
    return 0.0, seconds * max(1, int(runtime.get("threads") or 1))


def _by_month(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while (border := next_month(begin)) < end:
        yield begin, border
        begin = border
    yield begin, end


def _first_of_month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(moment: datetime) -> datetime:
    """Return the first moment of the month after this one."""
    return _first_of_month(_first_of_month(moment) + timedelta(days=32))


def _month(moment: datetime) -> str:
    return moment.strftime("%Y-%m")
