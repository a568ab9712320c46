"""Deletion of jobs and datasets, with what rests on them in other packages."""

from __future__ import annotations

from functools import partial

from sqlalchemy.orm import Session

from service.context import Context
from service.database import after_commit, reading
from service.datasets import repository as datasets_repository
from service.datasets import service as datasets
from service.datasets.references import DATASETS
from service.errors import HttpProblem
from service.experiments import repository as experiments
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.states import ENDED, WITH_WORKER
from service.jobs.tables import Job
from service.jobs.transitions import request_action, transition
from service.notes import repository as notes
from service.peer_evaluations import service as peer_evaluations
from service.principal import Principal
from service.recommendations.service import freeze
from service.registry import service as registry
from trainkit.spec.failures import failure

CANCELLED_AT_ONCE = 10
"""Jobs cancelled in one transaction: on SQLite all other writers wait for it."""


def delete_job(session: Session, context: Context, who: Principal, job_id: str) -> None:
    """Delete an ended job with its log and files; its models stay. Raises a 409 problem while it has not ended."""
    job = deletable_job(session, who, job_id)
    keys = jobs_repository.stored_keys(session, job_id)
    remove_job(session, job)
    for key in keys:
        after_commit(session, partial(context.storage.delete, key))


def deletable_job(session: Session, who: Principal, job_id: str) -> Job:
    """Return the job, locked. Raises a 404 problem, and 409 while it has not ended."""
    job = jobs.find_locked(session, who, job_id)
    if job.state not in ENDED:
        raise HttpProblem(409, "still_active", f"The job is {job.state}. Cancel it first.")
    return job


def remove_job(session: Session, job: Job) -> None:
    """Delete a job's row and what refers to it. What others rest on stays: measured effects and peer evaluations.

    With the last job of a group, the group's notes go.
    """
    freeze(session, job)
    peer_evaluations.leave(session, job)
    project_id, group = job.project_id, job.group_name
    jobs_repository.delete_job(session, job)
    session.flush()
    if group is not None and experiments.find_by_id(session, group) is None:
        notes.delete_without_jobs(session, project_id, group)


def delete_dataset(session: Session, context: Context, who: Principal, reference: str, *, force: bool) -> None:
    """Delete a dataset; with `force` the jobs that use it are cancelled. Of one that ended jobs used, the row stays.

    Raises a 409 problem while it has an alias, or jobs that have not ended use it.
    """
    dataset = datasets.find(session, who, reference)
    dataset_id = dataset.id
    registry.check_not_aliased(session, who.project_id, DATASETS, dataset, "deleted")
    stored = datasets_repository.locked_blob(session, dataset.blob_sha256) if dataset.blob_sha256 else None
    using = jobs_repository.needing_dataset(session, who.project_id, dataset_id)
    if using and not force:
        shown = ", ".join(using[:5])
        hint = "Wait for them or cancel them, or add ?force=true to cancel them all."
        raise HttpProblem(409, "in_use", f"{len(using)} jobs that have not ended use the dataset ({shown}). {hint}")
    for job_id in using:
        _cancel(session, who, job_id, dataset_id)
    prepared, kept = dataset.prepared_key, jobs_repository.is_dataset_used(session, dataset_id)
    if kept:
        # jobs keep the record of what they were trained on; only the bytes go
        message = "the dataset was deleted"
        hint = "Upload it again."
        dataset.state, dataset.prepared_key = "invalid", None
        dataset.error = failure("deleted", message, hint=hint)
    else:
        datasets_repository.delete(session, dataset)
    session.flush()
    if stored is not None and not datasets_repository.others_with_bytes(session, stored.sha256, dataset_id):
        if not datasets_repository.is_referenced(session, stored.sha256):
            datasets_repository.delete_blob(session, stored)
        # still under the lock: an upload of the same bytes waits, and then stores them anew
        context.storage.delete(stored.storage_key)
    if prepared is not None:
        after_commit(session, partial(context.storage.delete, prepared))


def cancel_jobs_of_dataset(context: Context, who: Principal, reference: str) -> None:
    """Cancel the jobs that need the dataset, a few in each transaction. Raises a 404 problem, and 409 for one with aliases.

    `delete_dataset` cancels those that come meanwhile; it alone would keep all writers waiting for a long queue.
    """
    with reading(context.sessions) as session:
        dataset = datasets.find(session, who, reference)
        registry.check_no_alias(session, DATASETS, dataset, "deleted")
        dataset_id = dataset.id
        needing = jobs_repository.needing_dataset(session, who.project_id, dataset_id)
    for start in range(0, len(needing), CANCELLED_AT_ONCE):
        with context.sessions.begin() as session:
            for job_id in needing[start : start + CANCELLED_AT_ONCE]:
                _cancel(session, who, job_id, dataset_id)


def _cancel(session: Session, who: Principal, job_id: str, dataset_id: str) -> None:
    """Cancel a waiting job, or request it of the worker of a running one. An ended job stays as it is."""
    job = jobs_repository.locked(session, who.project_id, job_id)
    actor, reason = who.actor, f"dataset {dataset_id} was deleted"
    if job is None:
        return
    if job.state in WITH_WORKER:
        request_action(session, job, {"action": "cancel", "reason": reason})
    elif job.state not in ENDED:
        transition(session, job, "cancelled", actor=actor, reason=reason, requested_action=None)
