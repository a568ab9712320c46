"""SQL of peer groups, their members and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.jobs.tables import Job
from service.peer_evaluations.tables import PeerEvaluation, PeerGroup, PeerGroupMember


def next_version(session: Session, project_id: str, group: str) -> int:
    """Increment the group's version and return it. The row stays locked until this transaction ends."""
    first = _insert(session, PeerGroup).values(project_id=project_id, group_name=group, version=1)
    key = [PeerGroup.project_id, PeerGroup.group_name]
    counted = first.on_conflict_do_update(index_elements=key, set_={"version": PeerGroup.version + 1})
    return int(session.execute(counted.returning(PeerGroup.version)).scalar_one())


def join(session: Session, project_id: str, group: str, job_id: str) -> None:
    """Add the job to the group unless it is a member."""
    member = {"project_id": project_id, "group_name": group, "job_id": job_id}
    session.execute(_insert(session, PeerGroupMember).values(**member).on_conflict_do_nothing())


def last(session: Session, job_id: str) -> PeerEvaluation | None:
    """Return the job's last live evaluation."""
    statement = select(PeerEvaluation).where(PeerEvaluation.job_id == job_id, PeerEvaluation.superseded_at.is_(None))
    return session.scalars(statement.order_by(PeerEvaluation.seq.desc()).limit(1)).one_or_none()


def add(session: Session, rows: Sequence[PeerEvaluation]) -> None:
    """Store evaluations."""
    session.add_all(rows)
    session.flush()


def supersede(session: Session, job_id: str, after: int, at: int) -> None:
    """Mark the job's live evaluations with seq > `after` as superseded at version `at`."""
    session.execute(
        update(PeerEvaluation)
        .where(PeerEvaluation.job_id == job_id, PeerEvaluation.seq > after, PeerEvaluation.superseded_at.is_(None))
        .values(superseded_at=at)
        .execution_options(synchronize_session=False)
    )


def standings(session: Session, project_id: str, group: str, job_id: str, epoch: int, at: int) -> list[Any]:
    """Return (job, seq, epoch, running_stats) of the last evaluation up to `epoch` of every other member.

    A member counts when it had reached the epoch at version `at`.
    """
    parameters = {"project": project_id, "group_name": group, "job": job_id, "epoch": epoch, "at": at}
    return list(session.execute(_standings(), parameters))


@cache
def _standings() -> Select[Any]:
    """Build the statement once: two index look-ups by epoch for each member, however long the histories are."""
    epoch: BindParameter[int] = bindparam("epoch")
    earlier, later = aliased(PeerEvaluation), aliased(PeerEvaluation)
    newest = (
        select(earlier.seq)
        .where(earlier.job_id == PeerGroupMember.job_id, earlier.epoch <= epoch, _valid(earlier))
        .order_by(earlier.epoch.desc(), earlier.seq.desc())
        .limit(1)
        .correlate(PeerGroupMember)
        .scalar_subquery()
    )
    reached = (
        select(later.seq)
        .where(later.job_id == PeerGroupMember.job_id, later.epoch >= epoch, _valid(later))
        .correlate(PeerGroupMember)
        .exists()
    )
    return (
        select(PeerEvaluation.job_id, PeerEvaluation.seq, PeerEvaluation.epoch, PeerEvaluation.running_stats)
        .join(PeerGroupMember, PeerEvaluation.job_id == PeerGroupMember.job_id)
        .where(
            PeerGroupMember.project_id == bindparam("project"),
            PeerGroupMember.group_name == bindparam("group_name"),
            PeerGroupMember.job_id != bindparam("job"),
            PeerEvaluation.seq == newest,
            reached,
        )
    )


def versions_by_step(session: Session, job_id: str) -> dict[int, int]:
    """Return the version at which each live evaluation became valid, by its step."""
    statement = select(PeerEvaluation.step, PeerEvaluation.valid_from).where(
        PeerEvaluation.job_id == job_id, PeerEvaluation.superseded_at.is_(None)
    )
    return dict(iter(session.execute(statement)))


def count_members(session: Session, project_id: str, group: str) -> int:
    """Count the jobs of the group that have been evaluated."""
    statement = select(func.count()).where(
        PeerGroupMember.project_id == project_id, PeerGroupMember.group_name == group
    )
    return session.scalar(statement) or 0


def has_others(session: Session, project_id: str, group: str, job_id: str) -> bool:
    """Whether the group has other jobs, evaluated or not."""
    beside = select(Job.id).where(Job.project_id == project_id, Job.group_name == group, Job.id != job_id)
    return session.scalar(beside.limit(1)) is not None


def delete_group(session: Session, project_id: str, group: str) -> None:
    """Delete the group with its members and evaluations."""
    in_group = [PeerGroupMember.project_id == project_id, PeerGroupMember.group_name == group]
    session.execute(
        delete(PeerEvaluation).where(PeerEvaluation.job_id.in_(select(PeerGroupMember.job_id).where(*in_group)))
    )
    session.execute(delete(PeerGroupMember).where(*in_group))
    session.execute(delete(PeerGroup).where(PeerGroup.project_id == project_id, PeerGroup.group_name == group))


def _valid(row: type[PeerEvaluation]) -> ColumnElement[bool]:
    """Whether the row was valid at version `at`."""
    at: BindParameter[int] = bindparam("at")
    superseded_at: InstrumentedAttribute[int | None] = row.superseded_at
    return (row.valid_from < at) & or_(superseded_at.is_(None), superseded_at > at)


def _insert(session: Session, table: Any) -> Any:
    """Return the dialect's own insert(), for ON CONFLICT."""
    dialect = session.get_bind().dialect.name
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
