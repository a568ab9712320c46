"""SQL of experiments' clocks, members and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.jobs.tables import Job
from service.peer_evaluations.tables import EvaluationResult, ExperimentClock, ExperimentMember


def tick(session: Session, project_id: str, experiment: str) -> int:
    """Count a change, and let nobody else change the experiment's evaluations until this transaction ends."""
    first = _insert(session, ExperimentClock).values(project_id=project_id, experiment=experiment, ticks=1)
    key = [ExperimentClock.project_id, ExperimentClock.experiment]
    counted = first.on_conflict_do_update(index_elements=key, set_={"ticks": ExperimentClock.ticks + 1})
    return int(session.execute(counted.returning(ExperimentClock.ticks)).scalar_one())


def join(session: Session, project_id: str, experiment: str, job_id: str) -> None:
    """The job is one of the experiment's; nothing when it is already."""
    member = {"project_id": project_id, "experiment": experiment, "job_id": job_id}
    session.execute(_insert(session, ExperimentMember).values(**member).on_conflict_do_nothing())


def last(session: Session, job_id: str) -> EvaluationResult | None:
    """The job's last evaluation that counts."""
    mine = select(EvaluationResult).where(EvaluationResult.job_id == job_id, EvaluationResult.gone.is_(None))
    return session.scalars(mine.order_by(EvaluationResult.seq.desc()).limit(1)).one_or_none()


def add(session: Session, rows: Sequence[EvaluationResult]) -> None:
    """Store evaluations."""
    session.add_all(rows)
    session.flush()


def withdraw(session: Session, job_id: str, after: int, at: int) -> None:
    """From `at` on the job's evaluations beyond seq `after` do not count; those that did not before stay as they are."""
    session.execute(
        update(EvaluationResult)
        .where(EvaluationResult.job_id == job_id, EvaluationResult.seq > after, EvaluationResult.gone.is_(None))
        .values(gone=at)
        .execution_options(synchronize_session=False)
    )


def standings(session: Session, project_id: str, experiment: str, job_id: str, epoch: int, at: int) -> list[Any]:
    """Of every other job that had reached the epoch at `at`: (job, seq, epoch, tallies) of its last evaluation there."""
    asked = {"project": project_id, "experiment": experiment, "job": job_id, "epoch": epoch, "at": at}
    return list(session.execute(_standings(), asked))


@cache
def _standings() -> Select[Any]:
    """Two look-ups by epoch for each member, however long the histories are. Built once, for it is asked very often."""
    epoch: BindParameter[int] = bindparam("epoch")
    earlier, later = aliased(EvaluationResult), aliased(EvaluationResult)
    newest = (
        select(earlier.seq)
        .where(earlier.job_id == ExperimentMember.job_id, earlier.epoch <= epoch, _known(earlier))
        .order_by(earlier.epoch.desc(), earlier.seq.desc())
        .limit(1)
        .correlate(ExperimentMember)
        .scalar_subquery()
    )
    reached = (
        select(later.seq)
        .where(later.job_id == ExperimentMember.job_id, later.epoch >= epoch, _known(later))
        .correlate(ExperimentMember)
        .exists()
    )
    return (
        select(EvaluationResult.job_id, EvaluationResult.seq, EvaluationResult.epoch, EvaluationResult.tallies)
        .join(ExperimentMember, EvaluationResult.job_id == ExperimentMember.job_id)
        .where(
            ExperimentMember.project_id == bindparam("project"),
            ExperimentMember.experiment == bindparam("experiment"),
            ExperimentMember.job_id != bindparam("job"),
            EvaluationResult.seq == newest,
            reached,
        )
    )


def times(session: Session, job_id: str) -> dict[int, int]:
    """When each evaluation that counts became known, by its step."""
    mine = select(EvaluationResult.step, EvaluationResult.tick).where(
        EvaluationResult.job_id == job_id, EvaluationResult.gone.is_(None)
    )
    return dict(iter(session.execute(mine)))


def members(session: Session, project_id: str, experiment: str) -> int:
    """How many jobs have been evaluated."""
    mine = select(func.count()).where(
        ExperimentMember.project_id == project_id, ExperimentMember.experiment == experiment
    )
    return session.scalar(mine) or 0


def has_others(session: Session, project_id: str, experiment: str, job_id: str) -> bool:
    """Whether the experiment has jobs beside that one, evaluated or not."""
    beside = select(Job.id).where(Job.project_id == project_id, Job.experiment == experiment, Job.id != job_id)
    return session.scalar(beside.limit(1)) is not None


def forget(session: Session, project_id: str, experiment: str) -> None:
    """Remove all that is known of an experiment."""
    mine = [ExperimentMember.project_id == project_id, ExperimentMember.experiment == experiment]
    session.execute(
        delete(EvaluationResult).where(EvaluationResult.job_id.in_(select(ExperimentMember.job_id).where(*mine)))
    )
    session.execute(delete(ExperimentMember).where(*mine))
    session.execute(
        delete(ExperimentClock).where(
            ExperimentClock.project_id == project_id, ExperimentClock.experiment == experiment
        )
    )


def _known(row: type[EvaluationResult]) -> ColumnElement[bool]:
    """Whether the row counted at the time `at`."""
    at: BindParameter[int] = bindparam("at")
    gone: InstrumentedAttribute[int | None] = row.gone
    return (row.tick < at) & or_(gone.is_(None), gone > at)


def _insert(session: Session, table: Any) -> Any:
    """Both databases know ON CONFLICT; each has a word of its own for it."""
    dialect = session.get_bind().dialect.name
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
