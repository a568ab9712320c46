"""Retention: after a project's periods, checkpoints, logs and metrics of ended jobs are deleted, then the job itself.

Each job is one transaction that holds its row; files are deleted after the commit, and what a death in between leaves
is found by orphans.py. What was deleted is kept in the job's row and in one event, so that every answer can say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.background import repository
from service.database import db_time, reading
from service.deletion.service import remove_job
from service.jobs import repository as jobs
from service.jobs.retention_status import Part
from service.jobs.tables import Job
from service.projects.repository import all_settings
from service.projects.service import Rules, rules_of
from service.recommendations.service import freeze
from service.settings import Settings
from service.storage import Storage
from service.timestamps import rfc3339

log = logging.getLogger(__name__)
BATCH = 200


@dataclass(frozen=True, slots=True)
class Deletion:
    """What was deleted of one part of a job: the rows (`count` of `noun`), files still to delete, and the reason."""

    count: int
    noun: str
    keys: list[str]
    reason: str

    def __str__(self) -> str:
        return f"{self.count} {self.noun}{'' if self.count == 1 else 's'}"


def apply_retention(sessions: sessionmaker[Session], storage: Storage, settings: Settings) -> None:
    """Apply every project's rules to its ended jobs."""
    with reading(sessions) as session:
        projects = all_settings(session)
    for project_id, overrides in projects:
        rules = rules_of(settings, overrides)
        if rules.jobs_days is not None:
            _for_each(sessions, project_id, rules, rules.jobs_days, None, partial(_delete_job, sessions, storage))
        trim = partial(_trim, sessions, storage, rules)
        for part, days in _periods(rules).items():
            _for_each(sessions, project_id, rules, days, part, trim)


def _periods(rules: Rules) -> dict[Part, int]:
    """Return the days after which each part is deleted, without the parts that are kept for ever."""
    periods: dict[Part, int | None] = {
        "checkpoints": rules.checkpoints_days,
        "logs": rules.logs_days,
        "metrics": rules.metrics_days,
    }
    return {part: days for part, days in periods.items() if days is not None}


def _for_each(
    sessions: sessionmaker[Session],
    project_id: str,
    rules: Rules,
    days: int,
    part: Part | None,
    apply: Callable[[str], None],
) -> None:
    """Call `apply` for every job that ended more than `days` ago and has that part; a failure skips one job only."""
    after = None
    while True:
        with reading(sessions) as session:
            ended = repository.ended_jobs(session, project_id, days, after, BATCH)
            found = repository.with_part(session, [row.id for row in ended], part, rules.checkpoints_kept)
        for job_id in found:
            try:
                apply(job_id)
            except OperationalError:
                raise  # the database does not answer
            except Exception:
                log.exception("job=%s retention failed", job_id)
        if len(ended) < BATCH:
            return
        after = (ended[-1].finished_at, ended[-1].id)


def _trim(sessions: sessionmaker[Session], storage: Storage, rules: Rules, job_id: str) -> None:
    """Delete all parts of one job whose period is over, and write one event."""
    with sessions.begin() as session:
        job = repository.lock_ended(session, job_id)
        now = db_time(session)
        if job is None or job.finished_at is None:
            return
        deletions: dict[Part, Deletion] = {}
        for part, days in _periods(rules).items():
            if job.finished_at < now - timedelta(days=days):
                deletion = _delete_part(session, job, part, rules)
                if deletion.count:
                    deletions[part] = deletion
        if not deletions:
            return
        summary = ", ".join(map(str, deletions.values()))
        status: dict[str, Any] = {part: {"at": rfc3339(now), "reason": one.reason} for part, one in deletions.items()}
        job.purged = {**(job.purged or {}), **status}
        job.updated_at = now
        counts: dict[str, int] = {part: one.count for part, one in deletions.items()}
        repository.add_retention_event(session, job, now, f"removed {summary}", counts)
    _delete_files(storage, [key for one in deletions.values() for key in one.keys])
    log.info("job=%s retention deleted %s", job_id, summary)


def _delete_part(session: Session, job: Job, part: Part, rules: Rules) -> Deletion:
    if part == "checkpoints":
        keys = repository.delete_checkpoints(session, job.id, rules.checkpoints_kept)
        kept = f"only the newest {rules.checkpoints_kept} are kept" if rules.checkpoints_kept else "none is kept"
        reason = f"{rules.checkpoints_days} days after a job's end {kept} (checkpoints_days, checkpoints_kept)"
        return Deletion(len(keys), "checkpoint", keys, reason)
    if part == "logs":
        lines, keys = repository.delete_logs(session, job)
        reason = f"logs are kept for {rules.logs_days} days after a job's end (logs_days)"
        return Deletion(lines or len(keys), "log line" if lines else "log file", keys, reason)
    freeze(session, job)
    rows = repository.delete_metrics(session, job)
    reason = f"metrics are kept for {rules.metrics_days} days after a job's end (metrics_days)"
    return Deletion(rows, "metric row", [], reason)


def _delete_job(sessions: sessionmaker[Session], storage: Storage, job_id: str) -> None:
    """Delete the job as a client's DELETE does: its models stay."""
    with sessions.begin() as session:
        job = repository.lock_ended(session, job_id)
        if job is None:
            return
        keys = jobs.stored_keys(session, job_id)
        remove_job(session, job)
    _delete_files(storage, keys)
    log.info("job=%s deleted: its retention period (jobs_days) is over", job_id)


def _delete_files(storage: Storage, keys: list[str]) -> None:
    for key in keys:
        try:
            storage.delete(key)
        except OSError as error:  # orphans.py finds it again
            log.warning("%s cannot be deleted: %s", key, error)
