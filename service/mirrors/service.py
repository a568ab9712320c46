"""Rules of mirrors."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.context import Context
from service.database import db_time, new_id
from service.errors import HttpProblem, not_found
from service.jobs import repository as jobs
from service.jobs.retention_status import check_not_purged, is_purged
from service.mirrors import repository
from service.mirrors.schemas import MAX_BACKFILL, BackfillIn, MirrorIn, MirrorPatch
from service.mirrors.stored_tokens import set_token
from service.outbox.tables import Mirror, MirroredJob
from service.principal import Principal
from service.projects import repository as projects
from service.secret_box import SecretBox
from service.webhooks.service import problem_without_key
from service.webhooks.target_policy import TargetPolicy, TargetRefused, host_of

MAX_MIRRORS = 10
"""Mirrors of one project."""
DELETED_AT_ONCE = 250
FILES = "files"


def check_url(context: Context, url: str | None) -> None:
    """Resolve the host of a URL and check its addresses, which may take seconds: before a session is opened.

    Raises a 422 problem for a URL that is not allowed.
    """
    if not url:
        return
    try:
        if "?" in url:
            raise TargetRefused("bad_url", "the URL has a query (?...)", "Write it as https://mlflow.example.org.")
        TargetPolicy(context.settings.webhook_allow).check(url)
    except TargetRefused as error:
        raise _invalid("/url", error.code, str(error), error.hint) from None


def create(session: Session, context: Context, who: Principal, request: MirrorIn) -> Mirror:
    """Create a mirror whose URL was checked. Raises a 409 problem at the most of a project, 422, and 503 without a key."""
    project = projects.locked(session, who.project_id)
    _check_fields(context, request)
    if repository.count(session, who.project_id) >= MAX_MIRRORS:
        raise HttpProblem(409, "too_many_mirrors", f"The project has {MAX_MIRRORS} mirrors already; delete one first.")
    at, is_server = db_time(session), request.kind == "mlflow"
    mirror = Mirror(
        id=new_id("mir"),
        project_id=who.project_id,
        kind=request.kind,
        description=request.description,
        url=request.url,
        host=host_of(request.url) if request.url else FILES,
        experiment=(request.experiment or project.name) if is_server else None,
        username=request.username,
        token=None,
        artifacts=request.artifacts and is_server,
        active=True,
        created_at=at,
        updated_at=at,
    )
    if request.token is not None:
        with problem_without_key():
            set_token(SecretBox(context.settings), mirror, request.token)
    repository.add(session, mirror)
    return mirror


def _check_fields(context: Context, request: MirrorIn) -> None:
    if request.kind == "mlflow":
        if request.url is None:
            raise _invalid("/url", "url_needed", "is missing", "Give the address of the tracking server.")
        _check_user(request.username, request.token)
        return
    for name in ("url", "experiment", "username", "token"):
        if getattr(request, name) is not None:
            raise _invalid(f"/{name}", "not_allowed", f"a mirror of kind {request.kind} has none", "Leave it out.")
    if context.settings.mirror_folder is None:
        hint = "The operator sets a folder that all workers share: TRAINKIT_MIRROR_FOLDER."
        raise _invalid("/kind", "no_folder", "this service writes no files of jobs", hint)


def _check_user(username: str | None, token: str | None) -> None:
    if username is not None and token is None:
        raise _invalid("/token", "token_needed", "is missing", "With a user name, `token` is the password.")


def find(session: Session, who: Principal, mirror_id: str, *, lock: bool = False) -> Mirror:
    """Return the project's mirror. Raises a 404 problem."""
    mirror = repository.get(session, who.project_id, mirror_id, lock=lock)
    if mirror is None:
        raise not_found("mirror", mirror_id)
    return mirror


def change(session: Session, context: Context, who: Principal, mirror_id: str, request: MirrorPatch) -> Mirror:
    """Update the fields that were sent; a URL was checked before. What waits is tried at once."""
    mirror = find(session, who, mirror_id, lock=True)
    sent: dict[str, Any] = {name: getattr(request, name) for name in request.model_fields_set}
    if mirror.kind != "mlflow":
        for name in ("url", "experiment", "username", "token", "artifacts"):
            if name in sent:
                raise _invalid(f"/{name}", "not_allowed", f"a mirror of kind {mirror.kind} has none", "Leave it out.")
    if "url" in sent:
        if not request.url:
            raise _invalid("/url", "url_needed", "is empty", "Give the address of the tracking server.")
        mirror.host = host_of(request.url)
    if "token" in sent:
        with problem_without_key():
            set_token(SecretBox(context.settings), mirror, request.token)
    for name in ("url", "experiment", "username", "artifacts", "description", "active"):
        if name in sent:
            setattr(mirror, name, sent[name])
    if mirror.username is not None and mirror.token is None:
        _check_user(mirror.username, None)
    mirror.updated_at = db_time(session)
    if {"url", "token", "username", "active"} & set(sent):
        repository.hasten(session, mirror.id)
    return mirror


def delete_jobs(context: Context, who: Principal, mirror_id: str) -> None:
    """Deactivate a mirror that is to be deleted, and forget its jobs, in many short transactions. Raises a 404 problem."""
    with context.sessions.begin() as session:
        find(session, who, mirror_id, lock=True).active = False
    deleted = DELETED_AT_ONCE
    while deleted == DELETED_AT_ONCE:
        with context.sessions.begin() as session:
            deleted = repository.delete_some_jobs(session, mirror_id, DELETED_AT_ONCE)


def delete(session: Session, who: Principal, mirror_id: str) -> None:
    """Delete the mirror; what it has written stays where it is."""
    repository.delete_mirror(session, find(session, who, mirror_id, lock=True))


def find_job(session: Session, who: Principal, mirror_id: str, job_id: str) -> MirroredJob:
    """Return how far a job's copy has come. Raises a 404 problem."""
    find(session, who, mirror_id)
    found = repository.mirrored_job(session, mirror_id, job_id)
    if found is None:
        raise not_found("mirrored job", job_id)
    return found


def backfill(session: Session, who: Principal, mirror_id: str, request: BackfillIn) -> tuple[int, bool]:
    """Enqueue jobs; returns how many, and whether there are more. Raises 404, 409 where the mirror is not active, 422.

    Jobs whose metrics retention has taken are no source of a copy: it would show a run without its history.
    """
    mirror = find(session, who, mirror_id, lock=True)
    if not mirror.active:
        detail = "The mirror is not active. PATCH it with `active: true` first."
        raise HttpProblem(409, "mirror_inactive", detail)
    if request.jobs is None:
        found = repository.jobs_to_backfill(session, mirror, MAX_BACKFILL)
        repository.backfill(session, mirror.id, found)
        return len(found), len(found) == MAX_BACKFILL
    ids = list(dict.fromkeys(request.jobs))
    for index, job_id in enumerate(ids):
        job = jobs.get(session, who.project_id, job_id)
        if job is None:
            what = f"there is no job {job_id!r} in this project"
            raise _invalid(f"/jobs/{index}", "unknown_job", what, "GET /v1/jobs lists them.")
        if is_purged(job.purged, "metrics"):
            what = f"the metrics of job {job_id!r} were removed, so that its copy would have no history"
            raise _invalid(f"/jobs/{index}", "removed", what, "Leave the job out; what was copied of it before stays.")
    repository.backfill(session, mirror.id, ids)
    return len(ids), False


def retry(session: Session, who: Principal, mirror_id: str, job_id: str) -> MirroredJob:
    """Copy a job again from its beginning, now. Raises 404, 409 where the mirror is not active, 410 without its metrics."""
    find_job(session, who, mirror_id, job_id)
    if (job := jobs.get(session, who.project_id, job_id)) is not None:
        check_not_purged(job, "metrics")
    backfill(session, who, mirror_id, BackfillIn(jobs=[job_id]))
    session.expire_all()
    return find_job(session, who, mirror_id, job_id)


def _invalid(pointer: str, code: str, message: str, hint: str) -> HttpProblem:
    error = {"pointer": pointer, "code": code, "message": message, "hint": hint}
    return HttpProblem(422, "invalid_request", f"{pointer}: {message}", errors=[error])
