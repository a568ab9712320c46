"""The tasks of housekeeping and how often each runs. A worker provides the process, the rounds and the turn.

Every task consists of short transactions and is safe to run twice, at any moment, and from several hosts at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.audit.trail import acting, housekeeping
from service.background import repository
from service.background.archived_projects import stop_archived_work
from service.background.dispatch import admit_waiting_jobs, redispatch
from service.background.file_hashes import hash_stored_files
from service.background.garbage_collection import collect_garbage, finish_uploads
from service.background.lease_expiry import expire_leases, repair_clock_skew
from service.background.orphans import remove_orphans
from service.background.retention import apply_retention
from service.context import Context
from service.database import truncate_wal
from service.experiments import scheduler
from service.inference_requests.repository import delete_old
from service.metrics.compaction import compact
from service.operation_ids import camel_case
from service.users.repository import delete_ended_sessions
from service.webhooks.service import delete_old_deliveries
from service.workers.repository import remove_silent

log = logging.getLogger(__name__)
EVERY_ROUND, EVERY_TEN_SECONDS, EVERY_MINUTE, EVERY_TEN_MINUTES = 0.0, 10.0, 60.0, 600.0
RING_AGAIN_SECONDS = 3.0
"""How long work whose message was lost may wait for the next one."""
ANSWERS_KEPT_SECONDS = 600.0
IDEMPOTENCY_KEYS_KEPT_SECONDS = 3 * 86400.0
ROWS_A_DELETION = 100
"""Rows deleted in one transaction: on SQLite all other writers wait for it."""


@dataclass(frozen=True, slots=True)
class HousekeepingTask:
    """One piece of housekeeping and the seconds between two runs of it."""

    name: str
    interval_seconds: float
    run: Callable[[Context], object]
    audited: bool = False
    """Whether what it changes is shown in the audit log: where people lose something."""


def delete_old_rows(context: Context) -> None:
    """Delete inference requests, workers, browser sessions and idempotency keys that nobody asks for any more."""
    deletions: tuple[Callable[[Session], int], ...] = (
        lambda session: delete_old(session, ANSWERS_KEPT_SECONDS, ROWS_A_DELETION),
        lambda session: remove_silent(session, ROWS_A_DELETION),
        lambda session: delete_ended_sessions(session, ROWS_A_DELETION),
        lambda session: repository.delete_idempotency_keys(session, IDEMPOTENCY_KEYS_KEPT_SECONDS, ROWS_A_DELETION),
    )
    for delete_some in deletions:
        deleted = ROWS_A_DELETION
        while deleted == ROWS_A_DELETION:
            with context.sessions.begin() as session:
                deleted = delete_some(session)


TASKS = (
    HousekeepingTask(
        "repair_clock_skew", EVERY_ROUND, lambda c: repair_clock_skew(c.sessions, c.settings.lease_seconds)
    ),
    HousekeepingTask(
        "expire_leases",
        EVERY_ROUND,
        lambda c: expire_leases(c.sessions, c.settings.max_interruptions, c.doorbell.ring),
    ),
    HousekeepingTask(
        "admit_waiting_jobs", EVERY_ROUND, lambda c: admit_waiting_jobs(c.sessions, c.doorbell.ring, c.settings)
    ),
    HousekeepingTask("redispatch", RING_AGAIN_SECONDS, lambda c: redispatch(c.sessions, c.doorbell.ring)),
    HousekeepingTask(
        "finish_uploads", EVERY_ROUND, lambda c: finish_uploads(c.sessions, c.storage, c.doorbell.ring), audited=True
    ),
    HousekeepingTask("seal_audit_log", EVERY_ROUND, lambda c: audit.seal(c.sessions)),
    HousekeepingTask("schedule_experiments", EVERY_ROUND, scheduler.tick),
    HousekeepingTask("stop_archived_work", EVERY_ROUND, stop_archived_work),
    HousekeepingTask("truncate_wal", EVERY_TEN_SECONDS, lambda c: truncate_wal(c.engine)),
    HousekeepingTask("hash_stored_files", EVERY_TEN_SECONDS, lambda c: hash_stored_files(c.sessions, c.storage)),
    HousekeepingTask("delete_old_rows", EVERY_MINUTE, delete_old_rows),
    HousekeepingTask("compact_metrics", EVERY_MINUTE, lambda c: compact(c.sessions)),
    HousekeepingTask(
        "apply_retention",
        EVERY_TEN_MINUTES,
        lambda c: apply_retention(c.sessions, c.storage, c.settings),
        audited=True,
    ),
    HousekeepingTask("cut_audit_log", EVERY_TEN_MINUTES, lambda c: audit.cut(c.sessions, c.settings.audit_days)),
    HousekeepingTask("collect_garbage", EVERY_TEN_MINUTES, lambda c: collect_garbage(c.sessions, c.storage)),
    HousekeepingTask("remove_orphans", EVERY_TEN_MINUTES, lambda c: remove_orphans(c.sessions, c.storage)),
    HousekeepingTask("delete_old_deliveries", EVERY_TEN_MINUTES, lambda c: delete_old_deliveries(c.sessions)),
)


class TaskRunner:
    """Runs the tasks that are due; one process does so at a time (`claim_housekeeping`), though more would do no harm."""

    def __init__(self, context: Context, tasks: Sequence[HousekeepingTask] = TASKS) -> None:
        self._context = context
        self._tasks = tasks
        self._due_at = dict.fromkeys((task.name for task in tasks), float("-inf"))

    def run_due(self) -> int:
        """Run every task whose interval is over; returns how many failed.

        A task that fails is logged and does not stop the others; it runs again after its interval.

        Raises:
            OperationalError, InterfaceError: the database does not answer.
        """
        failed = 0
        for task in self._tasks:
            if time.monotonic() < self._due_at[task.name]:
                continue
            self._due_at[task.name] = time.monotonic() + task.interval_seconds
            try:
                with acting(housekeeping(camel_case(task.name)) if task.audited else None):
                    task.run(self._context)
            except (OperationalError, InterfaceError):
                raise
            except Exception:
                log.exception("housekeeping task %s failed", task.name)
                failed += 1
        return failed
