"""One action on many jobs: in short transactions, each job by the rules of its own route, safe to repeat."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.orm import Session

from service.bulk.schemas import BulkIn, BulkLabelIn, BulkOut, BulkResultOut, BulkStopIn
from service.context import Context
from service.database import in_short_transactions, savepoint
from service.deletion.service import deletable_job, delete_job
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.editing import edit
from service.jobs.schemas import JobPatch
from service.jobs.states import Conflict
from service.jobs.tables import Job
from service.principal import Principal

SECONDS = 10.0
"""How long a request works at most; the jobs that are left are told."""
Action = Callable[[Session, str], tuple[bool, str]]
"""Acts on the job of that id, locked; returns whether that changed it, and what is to be said."""


class _UndoneError(Exception):
    """Takes back what a dry run has tried."""


def stop(context: Context, who: Principal, request: BulkStopIn) -> BulkOut:
    """Stop jobs gracefully; those that never ran are cancelled."""

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        before = _progress_of(jobs.find_locked(session, who, job_id))
        return _compared(before, jobs.stop(session, who, job_id, request.keep, None))

    return _each(context, request, act)


def cancel(context: Context, who: Principal, request: BulkIn) -> BulkOut:
    """Cancel jobs; nothing of them is kept."""

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        before = _progress_of(jobs.find_locked(session, who, job_id))
        return _compared(before, jobs.cancel(session, who, job_id))

    return _each(context, request, act)


def delete(context: Context, who: Principal, request: BulkIn) -> BulkOut:
    """Delete jobs that have ended; their models stay."""

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        if request.dry_run:  # a log of any length is not deleted only to be taken back
            deletable_job(session, who, job_id)
        else:
            delete_job(session, context, who, job_id)
        return True, "The job is deleted."

    return _each(context, request, act)


def label(context: Context, who: Principal, request: BulkLabelIn) -> BulkOut:
    """Set and remove labels of jobs."""
    patch = JobPatch(labels=request.labels)

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        before = dict(jobs.find_locked(session, who, job_id).labels)
        changed = edit(session, who, job_id, patch).labels != before
        return changed, "The labels are changed." if changed else "The labels are like that already."

    return _each(context, request, act)


def _progress_of(job: Job) -> tuple[str, object]:
    return job.state, job.requested_action


def _compared(before: tuple[str, object], job: Job) -> tuple[bool, str]:
    requested = (job.requested_action or {}).get("action")
    state = f"The job is {job.state}{f'; {requested} is requested' if requested else ''}."
    return _progress_of(job) != before, state


def _each(context: Context, request: BulkIn, act: Action) -> BulkOut:
    """Act on each job and tell what became of it."""
    results: dict[str, BulkResultOut] = {}
    ids: Sequence[str] = list(dict.fromkeys(request.ids or ()))
    work = partial(_one, act, request.dry_run, results)
    done = in_short_transactions(context.sessions, ids, work, time.monotonic() + SECONDS)
    counts = Counter(result.outcome for result in results.values())
    return BulkOut(data=list(results.values()), counts=dict(counts), has_more=not done, dry_run=request.dry_run)


def _one(act: Action, dry_run: bool, results: dict[str, BulkResultOut], session: Session, job_id: str) -> None:
    changed, detail = False, ""
    try:
        with savepoint(session):
            changed, detail = act(session, job_id)
            if dry_run:
                raise _UndoneError
    except _UndoneError:
        pass
    except HttpProblem as problem:
        outcome = "not_found" if problem.status == 404 else "refused"
        results[job_id] = BulkResultOut(id=job_id, outcome=outcome, code=problem.code, detail=problem.detail)
        return
    except Conflict as conflict:
        results[job_id] = BulkResultOut(id=job_id, outcome="refused", code="wrong_state", detail=str(conflict))
        return
    results[job_id] = BulkResultOut(id=job_id, outcome="changed" if changed else "unchanged", code=None, detail=detail)
