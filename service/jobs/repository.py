"""SQL of jobs and of what belongs to them: events, attempts, checkpoints, decisions, artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, String, case, cast, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.database import db_now, json_bytes
from service.datasets.references import DATASETS
from service.datasets.tables import DatasetVersion
from service.fair_share import repository as fair_share
from service.jobs.states import ACTIVE, ENDED, WITH_WORKER
from service.jobs.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    ComputeUsage,
    Decision,
    IdempotencyKey,
    Job,
    JobBestMetric,
    JobEvent,
    JobLabel,
    label_digest,
)
from service.leases import Claim
from service.listing.filters import Condition
from service.listing.in_memory import page_of
from service.listing.query import ListQuery, RowPage
from service.listing.repository import cut, expression, expressions, keyed_rows, sorted_rows
from service.models.tables import Model
from service.projects.tables import Project
from service.registry import service as registry

NO_SYNC = {"synchronize_session": False}
EVERY_ROW = 2**31 - 1
"""A limit that cuts nothing off."""
MAX_NAMED = 500
"""Versions of a dataset that a filter by its name looks at, the newest ones."""


def get(session: Session, project_id: str, job_id: str) -> Job | None:
    """The project's job of that id."""
    return session.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()


def locked(session: Session, project_id: str, job_id: str) -> Job | None:
    """The same, locked until the transaction ends."""
    statement = select(Job).where(Job.id == job_id, Job.project_id == project_id)
    return session.scalars(statement.with_for_update().execution_options(populate_existing=True)).one_or_none()


def summary(session: Session, job_id: str) -> Row[Any]:
    """Return the columns of a job that messages hold, as the transaction has them now."""
    columns = select(Job.id, Job.name, Job.state, Job.stop_reason, Job.labels, Job.error)
    return session.execute(columns.where(Job.id == job_id)).one()


RANGES = {"name": Job.name, "started_at": Job.started_at, "finished_at": Job.finished_at}
"""Filters by a range of an index, which finds the ids without the rows."""
ID_CONDITIONS = frozenset({"state", "label", "dataset", "updated_at", "metric", *RANGES})
"""Filters of jobs that are not plain conditions of a column."""


def listing(session: Session, project_id: str, query: ListQuery, columns: Sequence[Any]) -> RowPage[Row[Any]]:
    """Return a page of the project's jobs, with these columns beside `id` and the sort's.

    An index leads to the ids of one page; only then are rows read. Each filter alone costs a page however many jobs
    there are; of several filters one leads, and the others are applied to what it finds.
    """
    ids = listed_ids(session, project_id, query)
    return cut(query, jobs_with(session, ids, [query.sort.column, *columns]))


def jobs_with(session: Session, ids: Sequence[str], columns: Sequence[Any]) -> list[Row[Any]]:
    """Return these columns beside `id` of jobs, in the order of their ids."""
    statement = select(*dict.fromkeys((Job.id, *columns))).where(Job.id.in_(ids))
    rows = {row.id: row for row in session.execute(statement)}
    return [rows[one] for one in ids]


def updated_since(session: Session, project_id: str, at: datetime) -> Sequence[str]:
    """Return the ids of the project's jobs that were updated at that time or later."""
    return session.scalars(select(Job.id).where(Job.project_id == project_id, Job.updated_at >= at)).all()


def listed_ids(session: Session, project_id: str, query: ListQuery) -> Sequence[str]:
    """Return the ids of a page, one more than `limit`."""
    of_job = expressions(one for one in query.conditions if one.filter not in ID_CONDITIONS)
    of_job += _in_ranges(session, project_id, query)
    datasets = _named_datasets(session, project_id, query)
    if datasets is not None:
        if not datasets:
            return []
        of_job.append(Job.dataset_id == datasets[0] if len(datasets) == 1 else Job.dataset_id.in_(datasets))
    changed = [one for one in query.conditions if one.filter == "updated_at"]
    states: tuple[str, ...] = next((one.value for one in query.conditions if one.filter == "state"), ())
    labels = [label_digest(one.key or "", one.value[0]) for one in query.conditions if one.filter == "label"]
    if query.sort.column is not Job.id:
        few = _few(session, project_id, (labels, of_job, states, changed))
        if few is not None:
            return _sorted_in_memory(session, query, few)
        of_job += expressions(changed)
        of_job += [Job.state.in_(states)] if states else []
        for digest in labels:
            labelled = (JobLabel.project_id == project_id, JobLabel.digest == digest, JobLabel.job_id == Job.id)
            of_job.append(select(JobLabel.job_id).where(*labelled).exists())
        if query.sort.key is not None:
            return _by_metric(session, project_id, query, query.sort.key, of_job)
        return sorted_rows(session, query, select(Job.id).where(Job.project_id == project_id, *of_job))
    column, statement = _ids(project_id, labels, of_job, states)
    if query.after is not None:
        statement = statement.where(column < query.after.id if query.descending else column > query.after.id)
    count = query.limit + 1
    ids = _first(session, count, column, statement, states, descending=query.descending)
    if changed and _count(session, ids, changed) < len(ids):
        # jobs made since come first and have all been updated since: few are left to be found among the older ones
        found = select(Job.id).where(Job.project_id == project_id, *expressions(changed))
        # the order and the limit let the index by time lead, and nothing else
        found = found.order_by(Job.updated_at.desc()).limit(EVERY_ROW)
        statement = statement.where(column.in_(select(found.subquery())))
        ids = _first(session, count, column, statement, states, descending=query.descending)
    return ids


FEW = 500
"""Jobs that are sorted here. In more of them the index of the order meets a page soon, in fewer it may read all jobs."""


def _few(
    session: Session,
    project_id: str,
    filters: tuple[Sequence[str], Sequence[ColumnElement[bool]], Sequence[str], Sequence[Condition]],
) -> Sequence[str] | None:
    """Return the ids of all jobs that the filters let through; None where that are more than FEW, or all jobs."""
    labels, of_job, states, changed = filters
    if not (labels or of_job or states):
        if not changed:
            return None
        found = select(Job.id).where(Job.project_id == project_id, *expressions(changed))
        ids = session.scalars(found.order_by(Job.updated_at.desc()).limit(FEW + 1)).all()
        return ids if len(ids) <= FEW else None
    column, statement = _ids(project_id, labels, of_job, states)
    ids = _first(session, FEW + 1, column, statement, states, descending=True)
    if len(ids) > FEW:
        return None
    if changed:
        ids = session.scalars(select(Job.id).where(Job.id.in_(ids), *expressions(changed))).all()
    return ids


def _sorted_in_memory(session: Session, query: ListQuery, ids: Sequence[str]) -> list[str]:
    """Return the ids of a page of these jobs, one more than `limit`."""
    if query.sort.key is None:
        statement = select(Job.id, query.sort.column).where(Job.id.in_(ids))
    else:
        of_metric = (JobBestMetric.job_id.in_(ids), JobBestMetric.name == query.sort.key)
        statement = select(JobBestMetric.job_id, JobBestMetric.value).where(*of_metric)
    values = {row[0]: row[1] for row in session.execute(statement)}
    one_more = replace(query, conditions=(), limit=query.limit + 1)
    page = page_of(one_more, ids, identify=lambda one: one, value_of=lambda one, _: values.get(one))
    return list(page.rows)


def _in_ranges(session: Session, project_id: str, query: ListQuery) -> list[ColumnElement[bool]]:
    """Return the conditions that an index of its own finds, each as "is one of these ids".

    The order and the limit keep the database from reading rows instead. A metric that more than FEW jobs meet is looked
    up for each job of the page instead: to collect the ids would take as long as there are jobs.
    """
    found = []
    for name, column in RANGES.items():
        conditions = [one for one in query.conditions if one.filter == name]
        if not conditions:
            continue
        if all(one.operator == "in" for one in conditions):
            found += expressions(conditions)
            continue
        ids = select(Job.id).where(Job.project_id == project_id, column.is_not(None), *expressions(conditions))
        found.append(Job.id.in_(select(ids.order_by(column).limit(EVERY_ROW).subquery())))
    for one in query.conditions:
        if one.filter == "metric":
            best = aliased(JobBestMetric)
            condition = expression(replace(one, column=best.value, key=None))
            of_metric = (best.project_id == project_id, best.name == one.key, condition)
            ids = select(best.job_id).where(*of_metric).order_by(best.value)
            few = session.scalars(ids.limit(FEW + 1)).all()
            if len(few) <= FEW:
                found.append(Job.id.in_(few))
            else:
                # a value, not EXISTS, which planners turn into a join that collects them all
                of_job = select(best.value).where(best.job_id == Job.id, best.name == one.key).correlate(Job)
                value: Any = of_job.scalar_subquery()
                found.append(expression(replace(one, column=value, key=None)))
    return found


def _by_metric(
    session: Session, project_id: str, query: ListQuery, metric: str, of_job: Sequence[ColumnElement[bool]]
) -> Sequence[str]:
    """Return the ids of a page in the order of a best metric; jobs without it come last."""
    of_metric = (JobBestMetric.project_id == project_id, JobBestMetric.name == metric)
    with_key = select(JobBestMetric.job_id).where(*of_metric)
    if of_job:
        with_key = with_key.join(Job, Job.id == JobBestMetric.job_id).where(*of_job)
    has_metric = (
        select(JobBestMetric.job_id).where(JobBestMetric.job_id == Job.id, JobBestMetric.name == metric).exists()
    )
    without = select(Job.id).where(Job.project_id == project_id, ~has_metric, *of_job)
    return keyed_rows(session, query, (with_key, JobBestMetric.value, JobBestMetric.job_id), (without, Job.id))


def _named_datasets(session: Session, project_id: str, query: ListQuery) -> list[str] | None:
    """Return the ids of the datasets that a filter names; None without such a filter.

    An id, `name:version` or `name@alias` is one dataset, a name alone every version of it.
    """
    given = [value for one in query.conditions if one.filter == "dataset" for value in one.value]
    if not given:
        return None
    found: list[str] = []
    for reference in given:
        versions = select(DatasetVersion.id).where(
            DatasetVersion.project_id == project_id, DatasetVersion.name == reference
        )
        # a row of a job may rest on a dataset of any state, so a name alone is not resolved as elsewhere
        named = session.scalars(versions.limit(MAX_NAMED)).all()
        found += named or registry.ids_of_filter(session, project_id, DATASETS, "dataset", reference)
    return list(dict.fromkeys(found))


def _ids(
    project_id: str, labels: Sequence[str], of_job: Sequence[ColumnElement[bool]], states: Sequence[str]
) -> tuple[InstrumentedAttribute[str], Select[str]]:
    """Return the column that leads, and the statement of the ids of the project's jobs with all these labels."""
    if not labels:
        return Job.id, select(Job.id).where(Job.project_id == project_id, *of_job)
    first, *further = labels
    statement = select(JobLabel.job_id).where(JobLabel.project_id == project_id, JobLabel.digest == first)
    for digest in further:
        other = aliased(JobLabel)
        same_job = (other.project_id == project_id, other.digest == digest, other.job_id == JobLabel.job_id)
        statement = statement.where(select(other.job_id).where(*same_job).exists())
    if of_job or states:
        statement = statement.join(Job, Job.id == JobLabel.job_id).where(*of_job)
    return JobLabel.job_id, statement


def _first(
    session: Session,
    count: int,
    column: InstrumentedAttribute[str],
    statement: Select[str],
    states: Sequence[str],
    *,
    descending: bool,
) -> Sequence[str]:
    """Return the first ids, of jobs in one of `states` when there are any."""
    ordered = statement.order_by(column.desc() if descending else column.asc()).limit(count)
    if len(states) < 2:
        return session.scalars(ordered.where(Job.state == states[0]) if states else ordered).all()
    # an index has the jobs of each state in order, and those of several states not
    found = [session.scalars(ordered.where(Job.state == state)).all() for state in states]
    return sorted(chain.from_iterable(found), reverse=descending)[:count]


def _count(session: Session, ids: Sequence[str], conditions: Sequence[Condition]) -> int:
    """Count those of the jobs that meet the conditions."""
    return session.scalar(select(func.count()).where(Job.id.in_(ids), *expressions(conditions))) or 0


def by_id(session: Session, job_id: str) -> Job:
    """Return a job of any project that is known to exist."""
    return session.get_one(Job, job_id)


def counters(session: Session, job_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return (id, next_seq, next_event_seq, next_log_seq, updated_at, state, purged, stop_reason) of the jobs that exist."""
    numbers = (Job.id, Job.next_seq, Job.next_event_seq, Job.next_log_seq)
    columns = (*numbers, Job.updated_at, Job.state, Job.purged, Job.stop_reason)
    return session.execute(select(*columns).where(Job.id.in_(job_ids))).all()


def running(session: Session, project_id: str) -> int:
    """How many of the project's jobs a worker has."""
    statement = select(func.count()).where(Job.project_id == project_id, Job.state.in_(WITH_WORKER))
    return session.scalar(statement) or 0


def waiting(session: Session, project_id: str) -> int:
    """How many of the project's jobs have not begun."""
    statement = select(func.count()).where(Job.project_id == project_id, Job.state.in_(("validating", "queued")))
    return session.scalar(statement) or 0


def ended_retries(session: Session, job_id: str) -> int:
    """How many retries of the job have ended."""
    return session.scalar(select(func.count()).where(Job.retry_of == job_id, Job.state.in_(ENDED))) or 0


def datasets_of(session: Session, jobs: Iterable[Any]) -> dict[str, DatasetVersion]:
    """The datasets that these jobs name, by id."""
    ids = {job.dataset_id for job in jobs}
    return {row.id: row for row in session.scalars(select(DatasetVersion).where(DatasetVersion.id.in_(ids)))}


def events_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[JobEvent]:
    """Events with seq > after, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    return session.scalars(query.order_by(JobEvent.seq).limit(limit)).all()


def decisions_after(
    session: Session, job_id: str, after: int, limit: int, action: str | None = None
) -> Sequence[Decision]:
    """Decisions with seq > after, in order; of one action alone where it is named."""
    query = select(Decision).where(Decision.job_id == job_id, Decision.seq > after)
    if action is not None:
        query = query.where(Decision.action == action)
    return session.scalars(query.order_by(Decision.seq).limit(limit)).all()


def attempts(session: Session, job_id: str) -> Sequence[Attempt]:
    """All attempts, oldest first."""
    return session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)).all()


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """All files the job left, by name."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact | None:
    """One file the job left."""
    return session.get(Artifact, (job_id, name))


def stored_keys(session: Session, job_id: str) -> list[str]:
    """Storage keys of the job's checkpoints and artifacts; its models outlive it."""
    keys = list(session.scalars(select(Checkpoint.storage_key).where(Checkpoint.job_id == job_id)))
    return keys + list(session.scalars(select(Artifact.storage_key).where(Artifact.job_id == job_id)))


def checkpoint_bytes(session: Session, project_id: str) -> int:
    """Sum the bytes of the checkpoints of a project's jobs."""
    kept = select(func.sum(Checkpoint.bytes)).join(Job, Job.id == Checkpoint.job_id).where(Job.project_id == project_id)
    return int(session.scalar(kept) or 0)


def artifact_bytes(session: Session, project_id: str) -> int:
    """Sum the bytes of the artifacts of a project's jobs."""
    kept = select(func.sum(Artifact.bytes)).join(Job, Job.id == Artifact.job_id).where(Job.project_id == project_id)
    return int(session.scalar(kept) or 0)


def row_bytes(session: Session, project_id: str) -> tuple[int, int, int]:
    """Sum the bytes of a project's metric logs, logs and records, as its jobs count them."""
    # for ended jobs an index holds all that is summed
    ended, others = Job.finished_at.is_not(None), Job.finished_at.is_(None) & Job.state.in_(ACTIVE)
    totals = [0, 0, 0]
    for which in (ended, others):
        columns = (func.sum(Job.metric_bytes), func.sum(Job.log_bytes), func.sum(Job.record_bytes))
        found = session.execute(select(*columns).where(Job.project_id == project_id, which)).one()
        totals = [total + int(more or 0) for total, more in zip(totals, found, strict=True)]
    metrics, logs, records = totals
    return metrics, logs, records


def delete_job(session: Session, job: Job) -> None:
    """Delete the row, by cascade all that refers to it, and the idempotency keys that name it."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.resource_id == job.id))
    session.delete(job)


def needing_dataset(session: Session, project_id: str, dataset_id: str) -> Sequence[str]:
    """Return ids of jobs that have not ended and train on the dataset, or name it elsewhere (target, weights)."""
    named = cast(Job.spec, String).contains(dataset_id, autoescape=True)
    active = Job.state.in_(ACTIVE)
    needing = select(Job.id).where(Job.project_id == project_id, active, or_(Job.dataset_id == dataset_id, named))
    return session.scalars(needing.order_by(Job.id)).all()


def is_dataset_used(session: Session, dataset_id: str) -> bool:
    """Whether any job, ended or not, was submitted with it."""
    return session.scalar(select(Job.id).where(Job.dataset_id == dataset_id).limit(1)) is not None


def add_job(session: Session, job: Job) -> None:
    """Insert a job, and its labels where lists find them."""
    session.add(job)
    session.flush()
    _add_labels(session, job, job.labels)


def _add_labels(session: Session, job: Job, labels: Mapping[str, str]) -> None:
    digests = {label_digest(key, value) for key, value in labels.items()}
    if digests:
        session.execute(
            insert(JobLabel), [{"project_id": job.project_id, "digest": one, "job_id": job.id} for one in digests]
        )


def replace_labels(session: Session, job: Job, labels: Mapping[str, str]) -> None:
    """Let lists find the job by these labels and by no other."""
    session.execute(delete(JobLabel).where(JobLabel.job_id == job.id))
    _add_labels(session, job, labels)


def write_edit(session: Session, job_id: str, changes: Mapping[str, Any], data: dict[str, Any] | None) -> int:
    """Write columns that need no other state, those that clients edit; returns the `seq` for the event with `data`."""
    statement = update(Job).where(Job.id == job_id)
    counted = {"next_event_seq": Job.next_event_seq + 1, "record_bytes": Job.record_bytes + json_bytes(data)}
    statement = statement.values(**counted, updated_at=db_now(), **changes)
    edited = session.execute(statement.returning(Job.next_event_seq).execution_options(**NO_SYNC))
    return int(edited.scalar_one()) - 1


def update_job(session: Session, job_id: str, **changes: Any) -> None:
    """Write columns of a job and its `updated_at`."""
    session.execute(
        update(Job).where(Job.id == job_id).values(updated_at=db_now(), **changes).execution_options(**NO_SYNC)
    )


def swap_state(session: Session, job: Job, to: str, changes: Mapping[str, Any]) -> int | None:
    """Compare-and-swap the state and write further columns.

    Returns:
        The `seq` for the event of the change; None when state or fence are no longer those of `job`.
    """
    following = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == job.state, Job.fence == job.fence)
        .values(state=to, next_event_seq=Job.next_event_seq + 1, updated_at=db_now(), **changes)
        .returning(Job.next_event_seq)
        .execution_options(**NO_SYNC)
    ).scalar_one_or_none()
    return None if following is None else following - 1


def add_event(session: Session, **values: Any) -> datetime:
    """Insert an event and return its time, by the database's clock."""
    return session.execute(insert(JobEvent).values(at=db_now(), **values).returning(JobEvent.at)).scalar_one()


def add_job_event(
    session: Session, job: Job, *, kind: str, reason: str, actor: str, data: dict[str, Any] | None = None
) -> None:
    """Insert an event of a locked job that changes no state."""
    seq = write_edit(session, job.id, {}, data)
    add_event(session, job_id=job.id, seq=seq, kind=kind, reason=reason, actor=actor, data=data)
    session.expire(job, ["next_event_seq", "record_bytes", "updated_at"])


def last_event(session: Session, job_id: str, kind: str) -> JobEvent | None:
    """Return the newest event of a kind."""
    found = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == kind)
    return session.scalars(found.order_by(JobEvent.seq.desc()).limit(1)).first()


def newest_investigation(session: Session, project_id: str, job_id: str, states: Iterable[str]) -> Job | None:
    """Return the newest investigation of a job that is in one of the states."""
    found = select(Job).where(Job.project_id == project_id, Job.investigation_of == job_id, Job.state.in_(states))
    return session.scalars(found.order_by(Job.id.desc()).limit(1)).first()


def count_investigations(session: Session, project_id: str, job_id: str, states: Iterable[str]) -> int:
    """Count the investigations of a job that are in one of the states."""
    found = select(func.count()).where(Job.project_id == project_id, Job.investigation_of == job_id)
    return session.scalar(found.where(Job.state.in_(states))) or 0


MOST_PASSED_OVER = 200
"""Queued jobs of one project that a claim looks through for one without a GPU: it holds SQLite's write lock meanwhile."""


def projects_to_serve(session: Session, queue: str, most_running: int) -> Sequence[str]:
    """Return projects with due jobs in the queue: the one with fewest running jobs first, then the longest unserved.

    Projects that run `most_running` jobs already (0: no limit), or as many as they have set, are passed over.
    """
    with_worker = fair_share.jobs_in_progress(Job, Job.state.in_(WITH_WORKER))
    # as `rules_of` has it: the operator's limit, and no more than that of the project's own; 0 is no limit
    ceiling = func.coalesce(Project.limits["max_running_jobs"].as_integer(), most_running)
    override = func.coalesce(Project.settings["max_running_jobs"].as_integer(), 0)
    most = case((override == 0, ceiling), (ceiling == 0, override), (override < ceiling, override), else_=ceiling)
    waiting = select(Job.id).where(*_due(queue), Job.project_id == Project.id)
    return fair_share.order(session, queue, waiting, with_worker, most)


def next_queued(session: Session, queue: str, project_id: str, *, without_gpu: bool = False) -> Job | None:
    """Return the project's first due job, by priority, then age, that no other transaction has locked.

    `without_gpu`: only one that asks for the CPU, among the first MOST_PASSED_OVER.
    """
    order = (Job.priority.desc(), Job.created_at, Job.id)
    due = (*_due(queue), Job.project_id == project_id)
    first = select(Job).where(*due).order_by(*order).limit(1)
    if without_gpu:
        ahead = select(Job.id).where(*due).order_by(*order).limit(MOST_PASSED_OVER).scalar_subquery()
        first = first.where(Job.id.in_(ahead), Job.spec["resources"]["device"].as_string() == "cpu")
    return session.scalars(first.with_for_update(skip_locked=True)).one_or_none()


def _due(queue: str) -> tuple[ColumnElement[bool], ...]:
    is_due = or_(Job.not_before.is_(None), Job.not_before <= db_now())
    return Job.state == "queued", Job.queue == queue, is_due


def holds(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a claim is valid, for the WHERE of a statement."""
    return Job.id == claim.id, Job.fence == claim.fence, Job.state.in_(WITH_WORKER)


def lock_claimed(session: Session, claim: Claim) -> Job | None:
    """Return the claimed job, locked until the transaction ends; None when the claim is void."""
    # populate_existing: a session that has loaded the row before must not answer from its identity map
    statement = select(Job).where(*holds(claim)).with_for_update().execution_options(populate_existing=True)
    return session.scalars(statement).one_or_none()


def renew_lease(session: Session, claim: Claim, lease_seconds: float) -> tuple[dict[str, Any] | None] | None:
    """Extend the lease and return (requested action,) in one statement; None when the claim is void."""
    row = session.execute(
        update(Job)
        .where(*holds(claim))
        .values(lease_expires_at=db_now(plus=lease_seconds))
        .returning(Job.requested_action)
        .execution_options(**NO_SYNC)
    ).first()
    return None if row is None else (row[0],)


def held_by(session: Session, owners: Iterable[str]) -> list[Row[Any]]:
    """Return the jobs that these workers hold: id, name, state, project and owner, the oldest first."""
    columns = (Job.id, Job.name, Job.state, Job.project_id, Job.lease_owner)
    held = select(*columns).where(Job.state.in_(WITH_WORKER), Job.lease_owner.in_(owners))
    return list(session.execute(held.order_by(Job.id)))


def requested_action(session: Session, claim: Claim) -> tuple[dict[str, Any] | None] | None:
    """Return (requested action,) without a write; None when the claim is void."""
    row = session.execute(select(Job.requested_action).where(*holds(claim))).first()
    return None if row is None else (row[0],)


def dataset(session: Session, dataset_id: str) -> DatasetVersion | None:
    """Return a dataset of any project."""
    return session.get(DatasetVersion, dataset_id)


def model(session: Session, model_id: str) -> Model | None:
    """Return a model of any project."""
    return session.get(Model, model_id)


def add_model(session: Session, model: Model) -> None:
    """Insert a model."""
    session.add(model)


def attempt(session: Session, job_id: str, fence: int) -> Attempt | None:
    """Return the attempt of that fence."""
    return session.get(Attempt, (job_id, fence))


def add_attempt(session: Session, attempt: Attempt) -> None:
    """Insert an attempt."""
    session.add(attempt)


def attempts_newest_first(session: Session, job: Job) -> Sequence[Attempt]:
    """Return the attempts up to the job's present fence."""
    statement = select(Attempt).where(Attempt.job_id == job.id, Attempt.fence <= job.fence)
    return session.scalars(statement.order_by(Attempt.fence.desc())).all()


def last_checkpoint_step(session: Session, job_id: str) -> int | None:
    """Return the largest step of the job's checkpoints."""
    return session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id))


def checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """Return the job's checkpoints, newest first."""
    statement = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return list(session.scalars(statement.order_by(Checkpoint.id.desc())))


def add_checkpoint(session: Session, checkpoint: Checkpoint) -> None:
    """Insert a checkpoint."""
    session.add(checkpoint)
    session.flush()


def delete_checkpoints(session: Session, job_id: str, ids: Sequence[str]) -> None:
    """Delete rows of checkpoints; their files stay."""
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.id.in_(ids)))


def unhashed_artifacts(session: Session, after: tuple[str, str] | None, limit: int) -> Sequence[Row[str, str, str]]:
    """Return (job_id, name, storage_key) of artifacts without a hash, in the order of job and name."""
    found = select(Artifact.job_id, Artifact.name, Artifact.storage_key).where(Artifact.sha256.is_(None))
    if after is not None:
        found = found.where(tuple_(Artifact.job_id, Artifact.name) > tuple_(*after))
    return session.execute(found.order_by(Artifact.job_id, Artifact.name).limit(limit)).all()


def set_artifact_hash(session: Session, job_id: str, name: str, storage_key: str, sha256: str) -> None:
    """Write the hash of a file that is still the artifact's."""
    same = (Artifact.job_id == job_id, Artifact.name == name, Artifact.storage_key == storage_key)
    session.execute(update(Artifact).where(*same).values(sha256=sha256).execution_options(**NO_SYNC))


def save_artifact(session: Session, artifact: Artifact) -> None:
    """Insert an artifact, or replace the one of the same name."""
    session.merge(artifact)


def idempotency_key(session: Session, project_id: str, key: str) -> IdempotencyKey | None:
    """Return what was remembered under a client's key."""
    return session.get(IdempotencyKey, (project_id, key))


def add_idempotency_key(session: Session, row: IdempotencyKey) -> None:
    """Insert a client's key."""
    session.add(row)


def waiting_for(session: Session, dataset: DatasetVersion, limit: int) -> Sequence[Job]:
    """Return up to `limit` jobs that wait for the dataset's check, oldest first."""
    waiting = select(Job).where(Job.project_id == dataset.project_id, Job.state == "validating")
    return session.scalars(waiting.where(Job.dataset_id == dataset.id).order_by(Job.id).limit(limit)).all()


def model_of(session: Session, job_id: str) -> Model | None:
    """The newest model that the job made."""
    newest = select(Model).where(Model.job_id == job_id).order_by(Model.id.desc()).limit(1)
    return session.scalars(newest).first()


def add_compute_seconds(session: Session, project_id: str, month: str, gpu_seconds: float, cpu_seconds: float) -> None:
    """Add to what the project has used in the month."""
    upsert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    values = {"gpu_seconds": gpu_seconds, "cpu_seconds": cpu_seconds}
    changes = {name: getattr(ComputeUsage, name) + value for name, value in values.items()}
    key = [ComputeUsage.project_id, ComputeUsage.month]
    added = upsert(ComputeUsage).values(project_id=project_id, month=month, **values)
    session.execute(added.on_conflict_do_update(index_elements=key, set_=changes))


def compute_seconds(session: Session, project_id: str, month: str) -> tuple[float, float]:
    """Return the (GPU, CPU) seconds of the attempts that have ended."""
    statement = select(ComputeUsage.gpu_seconds, ComputeUsage.cpu_seconds).where(
        ComputeUsage.project_id == project_id, ComputeUsage.month == month
    )
    row = session.execute(statement).one_or_none()
    return (0.0, 0.0) if row is None else (row[0], row[1])


def running_attempts(session: Session, project_id: str) -> Sequence[tuple[datetime, dict[str, Any] | None]]:
    """Return (start, the job's runtime) of the attempts that have not ended."""
    statement = (
        select(Attempt.started_at, Job.runtime)
        .join(Job, (Job.id == Attempt.job_id) & (Job.fence == Attempt.fence))
        .where(Job.project_id == project_id, Job.state.in_(WITH_WORKER), Attempt.finished_at.is_(None))
    )
    return [(row[0], row[1]) for row in session.execute(statement)]
