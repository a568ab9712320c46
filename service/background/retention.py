"""What a project keeps no longer is taken from jobs that have ended: checkpoints, logs, metrics, at last the job.

Each job is one transaction that holds its row; files go after the commit, and what a death in between leaves is found
again (strays.py). What was taken stands in the job (`purged`) and in one event, so that every answer can say so. Safe
to run twice, at any moment, and from several hosts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, true
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.database import db_now, reading
from service.jobs import checkpoints, repository
from service.jobs.retention_status import Part
from service.jobs.states import ENDED
from service.jobs.tables import Artifact, Checkpoint, Job, JobEvent
from service.logs.tables import LogChunk
from service.metrics.tables import MetricChunk, MetricSuperseded
from service.projects.repository import all_settings
from service.projects.service import Rules, rules_of
from service.recommendations.service import freeze
from service.settings import Settings
from service.storage import Storage

log = logging.getLogger(__name__)
BATCH = 200
DAY = 86400.0
LOG_FILE = "log.txt"


@dataclass(frozen=True, slots=True)
class Taken:
    """What one part gave up: how many of `what`, the files to remove, and why."""

    count: int
    what: str
    keys: list[str]
    reason: str

    def __str__(self) -> str:
        return f"{self.count} {self.what}{'' if self.count == 1 else 's'}"


def retain(sessions: sessionmaker[Session], storage: Storage, settings: Settings) -> None:
    """Go through all projects. For every few minutes."""
    with reading(sessions) as session:
        projects = all_settings(session)
    for project_id, own in projects:
        rules = rules_of(settings, own)
        if rules.jobs_days is not None:
            _each(sessions, project_id, rules.jobs_days, true(), partial(_remove_job, sessions, storage))
        for part, days in _days(rules).items():
            _each(sessions, project_id, days, _LEFT[part](rules), partial(_trim, sessions, storage, rules))


def _days(rules: Rules) -> dict[Part, int]:
    named: dict[Part, int | None] = {
        "checkpoints": rules.checkpoints_days,
        "logs": rules.logs_days,
        "metrics": rules.metrics_days,
    }
    return {part: days for part, days in named.items() if days is not None}


def _each(
    sessions: sessionmaker[Session],
    project_id: str,
    days: int,
    left: ColumnElement[bool],
    work: Callable[[str], None],
) -> None:
    """`work` for every job that ended so long ago and has something left; one that fails does not stop the others."""
    before = db_now(plus=-days * DAY)
    ended = [Job.project_id == project_id, Job.state.in_(ENDED), Job.finished_at < before]
    after = ""
    while True:
        with reading(sessions) as session:
            due = select(Job.id).where(*ended, left, Job.id > after).order_by(Job.id).limit(BATCH)
            found = session.scalars(due).all()
        for job_id in found:
            try:
                work(job_id)
            except OperationalError:
                raise  # the database is away
            except Exception:
                log.exception("job=%s retention failed", job_id)
        if len(found) < BATCH:
            return
        after = found[-1]


def _trim(sessions: sessionmaker[Session], storage: Storage, rules: Rules, job_id: str) -> None:
    """Take from one job all that is due, with one event."""
    with sessions.begin() as session:
        job = _locked(session, job_id)
        now = session.scalar(select(db_now()))
        assert now is not None
        if job is None or job.finished_at is None:
            return
        taken: dict[Part, Taken] = {}
        for part, days in _days(rules).items():
            if job.finished_at < now - timedelta(days=days):
                one = _TAKERS[part](session, job_id, rules)
                if one.count:
                    taken[part] = one
        if not taken:
            return
        _say(session, job, now, taken)
    _delete(storage, [key for one in taken.values() for key in one.keys])
    log.info("job=%s removed: %s", job_id, ", ".join(map(str, taken.values())))


def _say(session: Session, job: Job, now: datetime, taken: dict[Part, Taken]) -> None:
    gone: dict[str, Any] = {part: {"at": now.isoformat(), "reason": one.reason} for part, one in taken.items()}
    job.purged = {**(job.purged or {}), **gone}
    job.updated_at = now
    session.add(
        JobEvent(
            job_id=job.id,
            seq=job.next_event_seq,
            at=now,
            kind="retention",
            actor="housekeeping",
            reason="removed " + ", ".join(map(str, taken.values())),
            data={part: one.count for part, one in taken.items()},
        )
    )
    job.next_event_seq += 1
    session.flush()


def _remove_job(sessions: sessionmaker[Session], storage: Storage, job_id: str) -> None:
    """As a client's DELETE does: its models stay."""
    with sessions.begin() as session:
        job = _locked(session, job_id)
        if job is None:
            return
        keys = repository.stored_keys(session, job_id)
        repository.delete_job(session, job)
    _delete(storage, keys)
    log.info("job=%s removed, for it ended long ago", job_id)


def _locked(session: Session, job_id: str) -> Job | None:
    mine = select(Job).where(Job.id == job_id, Job.state.in_(ENDED)).with_for_update()
    return session.scalars(mine).one_or_none()


def _delete(storage: Storage, keys: list[str]) -> None:
    for key in keys:
        try:
            storage.delete(key)
        except OSError as error:  # the sweep finds it again
            log.warning("%s cannot be removed: %s", key, error)


def _take_checkpoints(session: Session, job_id: str, rules: Rules) -> Taken:
    older = checkpoints.latest(session, job_id)[rules.checkpoints_kept :]
    for checkpoint in older:
        session.delete(checkpoint)
    kept = f"only the newest {rules.checkpoints_kept} are kept" if rules.checkpoints_kept else "none is kept"
    reason = f"{rules.checkpoints_days} days after a job's end {kept} (checkpoints_days, checkpoints_kept)"
    return Taken(len(older), "checkpoint", [checkpoint.storage_key for checkpoint in older], reason)


def _take_logs(session: Session, job_id: str, rules: Rules) -> Taken:
    lines = select(func.sum(LogChunk.last_seq - LogChunk.first_seq + 1)).where(LogChunk.job_id == job_id)
    count = int(session.scalar(lines) or 0)
    session.execute(delete(LogChunk).where(LogChunk.job_id == job_id))
    file = repository.artifact(session, job_id, LOG_FILE)
    if file is not None:
        session.delete(file)
    reason = f"logs are kept for {rules.logs_days} days after a job's end (logs_days)"
    keys = [file.storage_key] if file is not None else []
    return Taken(count or len(keys), "log line" if count else "log file", keys, reason)


def _take_metrics(session: Session, job_id: str, rules: Rules) -> Taken:
    rows = select(func.sum(MetricChunk.last_seq - MetricChunk.first_seq + 1)).where(MetricChunk.job_id == job_id)
    count = int(session.scalar(rows) or 0)
    freeze(session, session.get_one(Job, job_id))
    for table in (MetricChunk, MetricSuperseded):
        session.execute(delete(table).where(table.job_id == job_id))
    reason = f"metrics are kept for {rules.metrics_days} days after a job's end (metrics_days)"
    return Taken(count, "metric row", [], reason)


def _has_more_checkpoints(rules: Rules) -> ColumnElement[bool]:
    count = select(func.count()).where(Checkpoint.job_id == Job.id).correlate(Job).scalar_subquery()
    return count > rules.checkpoints_kept


def _has_logs(_: Rules) -> ColumnElement[bool]:
    lines = select(LogChunk.job_id).where(LogChunk.job_id == Job.id).exists()
    return or_(lines, select(Artifact.job_id).where(Artifact.job_id == Job.id, Artifact.name == LOG_FILE).exists())


def _has_metrics(_: Rules) -> ColumnElement[bool]:
    return select(MetricChunk.job_id).where(MetricChunk.job_id == Job.id).exists()


_LEFT: dict[Part, Callable[[Rules], ColumnElement[bool]]] = {
    "checkpoints": _has_more_checkpoints,
    "logs": _has_logs,
    "metrics": _has_metrics,
}
_TAKERS: dict[Part, Callable[[Session, str, Rules], Taken]] = {
    "checkpoints": _take_checkpoints,
    "logs": _take_logs,
    "metrics": _take_metrics,
}
