"""One action on many jobs: in short transactions, each job by the rules of its own route, safe to repeat."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from service.bulk.schemas import MOST_JOBS, BulkIn, BulkLabelIn, BulkOut, BulkResultOut, BulkStopIn
from service.context import Context
from service.database import in_short_transactions, reading, savepoint
from service.deletion.service import deletable_job, delete_job
from service.errors import HttpProblem
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.editing import edit
from service.jobs.routes import JOBS
from service.jobs.schemas import JobPatch
from service.jobs.states import Conflict
from service.jobs.tables import Job
from service.listing.query import ListQuery, Position
from service.principal import Principal
from trainkit.spec.problems import pointer
from trainkit.spec.synonyms import nearest

PAGING = frozenset({"limit", "after", "sort", "fields"})
"""Parameters of the list that select nothing."""
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

    return _each(context, who, request, act)


def cancel(context: Context, who: Principal, request: BulkIn) -> BulkOut:
    """Cancel jobs; nothing of them is kept."""

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        before = _progress_of(jobs.find_locked(session, who, job_id))
        return _compared(before, jobs.cancel(session, who, job_id))

    return _each(context, who, request, act)


def delete(context: Context, who: Principal, request: BulkIn) -> BulkOut:
    """Delete jobs that have ended; their models stay."""

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        if request.dry_run:  # a log of any length is not deleted only to be taken back
            deletable_job(session, who, job_id)
        else:
            delete_job(session, context, who, job_id)
        return True, "The job is deleted."

    return _each(context, who, request, act)


def label(context: Context, who: Principal, request: BulkLabelIn) -> BulkOut:
    """Set and remove labels of jobs."""
    patch = JobPatch(labels=request.labels)

    def act(session: Session, job_id: str) -> tuple[bool, str]:
        before = dict(jobs.find_locked(session, who, job_id).labels)
        changed = edit(session, who, job_id, patch).labels != before
        return changed, "The labels are changed." if changed else "The labels are like that already."

    return _each(context, who, request, act)


def _progress_of(job: Job) -> tuple[str, object]:
    return job.state, job.requested_action


def _compared(before: tuple[str, object], job: Job) -> tuple[bool, str]:
    requested = (job.requested_action or {}).get("action")
    state = f"The job is {job.state}{f'; {requested} is requested' if requested else ''}."
    return _progress_of(job) != before, state


def _each(context: Context, who: Principal, request: BulkIn, act: Action) -> BulkOut:
    """Act on each job and tell what became of it."""
    results: dict[str, BulkResultOut] = {}
    ids, query = list(dict.fromkeys(request.ids or ())), None
    has_more = False
    if request.filter is not None:
        try:
            query = _query(request.filter, request.after)
            with reading(context.sessions) as session:
                found = jobs_repository.listing(session, who.project_id, query, [])
        except HttpProblem as problem:
            raise _in_body(problem) from None
        ids, has_more = [row.id for row in found.rows], found.has_more
    work = partial(_one, act, request.dry_run, results)
    done = in_short_transactions(context.sessions, ids, work, time.monotonic() + SECONDS)
    has_more = has_more or not done
    following = None
    if query is not None and has_more:
        last = next(reversed(results), None)
        following = request.after if last is None else query.cursor(Position(None, last))
    counts = Counter(result.outcome for result in results.values())
    return BulkOut(
        data=list(results.values()), counts=dict(counts), has_more=has_more, next=following, dry_run=request.dry_run
    )


def _query(conditions: Mapping[str, Any], after: str | None) -> ListQuery:
    """The query of the list of jobs that a filter stands for. Raises a 422 problem."""
    errors = []
    for name in conditions:
        if name in PAGING or not JOBS.accepts(name):
            known = [parameter.name for parameter in JOBS.parameters if parameter.name not in PAGING]
            hint = nearest(name, known) or "Use the filters of GET /v1/jobs."
            message = f"no filter of jobs is called {name!r}"
            errors.append(
                {"pointer": pointer(["filter", name]), "code": "unknown_filter", "message": message, "hint": hint}
            )
    if errors:
        raise HttpProblem(422, "invalid_request", errors[0]["message"], errors=errors)
    pairs = [
        (name, _text(value))
        for name, given in conditions.items()
        for value in (given if isinstance(given, list) else [given])
    ]
    pairs += [("limit", str(MOST_JOBS)), *([("after", after)] if after else [])]
    return JOBS.parse(pairs)


def _in_body(problem: HttpProblem) -> HttpProblem:
    """The problem of a query as one of the body's `filter`."""
    errors = [
        {**one, "pointer": one["pointer"].replace("query/", "/" if one["pointer"] == "query/after" else "/filter/", 1)}
        for one in problem.errors
    ]
    return HttpProblem(problem.status, problem.code, problem.detail, errors=errors)


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


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
