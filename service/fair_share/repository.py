"""SQL of the fair share: the order in which projects are served, whatever kind of work waits.

First the project with the fewest pieces of work in progress, then the one that was served longest ago. A project's
priorities, and how much of its work waits, order its own work only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, column, func, select, table, union_all
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.database import UtcDateTime, db_now
from service.fair_share.tables import QueueShare
from service.projects.tables import Project

MOST_PROJECTS = 64
"""Projects that one claim tries before it gives up."""
LEASED_STATES = ("uploading", "validating", "queued")
"""States of datasets and inference requests in which a worker may hold their lease."""


def questions_in_progress() -> Subquery:
    """`(project_id, running)` of the datasets and inference requests that workers have leased, counted together.

    A project whose uploads are being checked stands behind one without any, also for its predictions.
    """
    tables = [
        table(name, column("project_id"), column("state"), column("lease_expires_at", UtcDateTime()))
        for name in ("datasets", "inference_requests")
    ]
    leased = [
        select(one.c.project_id.label("project_id")).where(
            one.c.state.in_(LEASED_STATES), one.c.lease_expires_at >= db_now()
        )
        for one in tables
    ]
    return _counted(union_all(*leased))


def jobs_in_progress(jobs: Any, with_worker: ColumnElement[bool]) -> Subquery:
    """`(project_id, running)` of the jobs that satisfy the condition."""
    return _counted(select(jobs.project_id.label("project_id")).where(with_worker))


def _counted(rows: Any) -> Subquery:
    found = rows.subquery()
    return select(found.c.project_id, func.count().label("running")).group_by(found.c.project_id).subquery()


def order(
    session: Session,
    queue: str,
    waiting: Select[Any],
    in_progress: Subquery,
    most_running: ColumnElement[int] | None = None,
) -> Sequence[str]:
    """Return the ids of projects with waiting work, in the order in which they are to be served.

    Args:
        waiting: Statement of the waiting rows, correlated with `Project`.
        in_progress: `(project_id, running)`.
        most_running: Projects that run as many, or more, are passed over; 0: no limit.
    """
    running = func.coalesce(in_progress.c.running, 0)
    statement = (
        select(Project.id)
        .outerjoin(in_progress, in_progress.c.project_id == Project.id)
        .outerjoin(QueueShare, (QueueShare.project_id == Project.id) & (QueueShare.queue == queue))
        .where(waiting.correlate(Project).exists())
    )
    if most_running is not None:
        statement = statement.where((most_running == 0) | (running < most_running))
    served_at = QueueShare.served_at
    # a project that was never served comes first: false sorts before true on both databases
    by = (running, served_at.is_not(None), served_at, Project.created_at, Project.id)
    return session.scalars(statement.order_by(*by).limit(MOST_PROJECTS)).all()


def record_served(session: Session, project_id: str, queue: str) -> None:
    """Note that a piece of the project's work was claimed now."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    values = {"project_id": project_id, "queue": queue, "served_at": db_now()}
    key = [QueueShare.project_id, QueueShare.queue]
    session.execute(insert(QueueShare).values(values).on_conflict_do_update(index_elements=key, set_=values))
