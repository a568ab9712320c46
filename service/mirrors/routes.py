"""HTTP of mirrors."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Body, Depends, Response

from service.auth import Reader, Writer
from service.context import Service
from service.listing.filters import ChoiceFilter, ExactFilter, FlagFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.mirrors import repository, service
from service.mirrors.schemas import (
    BackfillIn,
    BackfillOut,
    MirroredJobOut,
    MirroredJobState,
    MirrorIn,
    MirrorKind,
    MirrorOut,
    MirrorPatch,
    mirror_out,
    mirrored_job_out,
)
from service.outbox.tables import Mirror, MirroredJob
from service.pagination import Page
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/mirrors", tags=["mirrors"], route_class=SessionRoute)


def new_mirror(who: Writer, context: Service, request: MirrorIn) -> MirrorIn:
    """Check the URL of the mirror to create."""
    service.check_url(context, request.url)
    return request


def changed_mirror(who: Writer, context: Service, request: MirrorPatch) -> MirrorPatch:
    """Check the URL of the change, if it has one."""
    service.check_url(context, request.url)
    return request


# before the session in every signature: a name server may take seconds
NewMirror = Annotated[MirrorIn, Depends(new_mirror)]
ChangedMirror = Annotated[MirrorPatch, Depends(changed_mirror)]


@router.post("", status_code=201, response_model=MirrorOut, summary="Copy the project's jobs to another tracker")
def create_mirror(
    who: Writer, context: Service, request: NewMirror, session: WriteSession, response: Response
) -> MirrorOut:
    """Jobs that start from now on are copied while they run; `backfill` copies earlier ones. 422 for an address that may
    not be reached, 409 with too many mirrors, 503 where the service has no key to encrypt the token with.
    """
    mirror = service.create(session, context, who, request)
    response.headers["Location"] = f"/v1/mirrors/{mirror.id}"
    return mirror_out(mirror, {})


MIRRORS = ListOf(
    Mirror.id,
    MirrorOut,
    sorts=[SortField("created_at", Mirror.id)],
    filters=[
        FlagFilter("active", Mirror.active),
        ChoiceFilter("kind", Mirror.kind, choices=get_args(MirrorKind)),
        TimeFilter("created_at", Mirror.created_at),
    ],
)


@router.get("", response_model=Page[MirrorOut], summary="Mirrors of the project, newest first")
def list_mirrors(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(MIRRORS.query)]) -> Response:
    """Where each copies to, and how many jobs are in which state. Tokens are not shown."""
    rows = page(session, query, Mirror.project_id == who.project_id)
    counts = repository.counts_by_state(session, [mirror.id for mirror in rows.rows])
    return query.respond(rows, lambda mirror: mirror_out(mirror, counts))


@router.get("/{mirror_id}", response_model=MirrorOut, summary="One mirror")
def get_mirror(mirror_id: str, who: Reader, session: ReadSession) -> MirrorOut:
    """Where it copies to, and how many jobs are in which state. The token is not shown."""
    mirror = service.find(session, who, mirror_id)
    return mirror_out(mirror, repository.counts_by_state(session, [mirror.id]))


@router.patch("/{mirror_id}", response_model=MirrorOut, summary="Update, stop or start a mirror")
def update_mirror(
    mirror_id: str, who: Writer, context: Service, request: ChangedMirror, session: WriteSession
) -> MirrorOut:
    """Fields that are left out stay. With another address, token or `active: true`, what waits is tried at once. 422 for an
    address that may not be reached.
    """
    mirror = service.change(session, context, who, mirror_id, request)
    return mirror_out(mirror, repository.counts_by_state(session, [mirror.id]))


@router.delete("/{mirror_id}", status_code=204, summary="Delete a mirror")
def delete_mirror(mirror_id: str, who: Writer, context: Service, session: WriteSession) -> None:
    """Nothing more is copied. What was copied stays where it is."""
    service.delete_jobs(context, who, mirror_id)
    service.delete(session, who, mirror_id)


@router.post(
    "/{mirror_id}/backfill", status_code=202, response_model=BackfillOut, summary="Copy earlier jobs to a mirror"
)
def backfill_mirror(
    mirror_id: str,
    who: Writer,
    session: WriteSession,
    request: Annotated[BackfillIn | None, Body()] = None,
) -> BackfillOut:
    """Enqueues jobs to be copied from their beginning; a run that exists is found again, and nothing in it is doubled. 409
    where the mirror is not active. Jobs whose metrics were removed are left out; 422 where one of `jobs` is such a job.
    """
    enqueued, has_more = service.backfill(session, who, mirror_id, request or BackfillIn())
    return BackfillOut(enqueued=enqueued, has_more=has_more)


MIRRORED_JOBS = ListOf(
    MirroredJob.job_id,
    MirroredJobOut,
    sorts=[SortField("job", MirroredJob.job_id)],
    filters=[
        ChoiceFilter("state", MirroredJob.state, choices=get_args(MirroredJobState)),
        ExactFilter("job", MirroredJob.job_id),
        ExactFilter("external_id", MirroredJob.external_id, max_length=200),
        TimeFilter("created_at", MirroredJob.created_at),
    ],
    default_sort="-job",
)


@router.get("/{mirror_id}/jobs", response_model=Page[MirroredJobOut], summary="Jobs of a mirror, newest first")
def list_mirrored_jobs(
    mirror_id: str, who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(MIRRORED_JOBS.query)]
) -> Response:
    """How far each has come, and the error of its last attempt."""
    service.find(session, who, mirror_id)
    return query.respond(page(session, query, MirroredJob.mirror_id == mirror_id), mirrored_job_out)


@router.get("/{mirror_id}/jobs/{job_id}", response_model=MirroredJobOut, summary="How far a job's copy has come")
def get_mirrored_job(mirror_id: str, job_id: str, who: Reader, session: ReadSession) -> MirroredJobOut:
    """The id of its run, what has arrived, and the error of the last attempt."""
    return mirrored_job_out(service.find_job(session, who, mirror_id, job_id))


@router.post(
    "/{mirror_id}/jobs/{job_id}/retry", status_code=202, response_model=MirroredJobOut, summary="Copy a job again"
)
def retry_mirrored_job(mirror_id: str, job_id: str, who: Writer, session: WriteSession) -> MirroredJobOut:
    """From its beginning, now, also where it was given up. A run that exists is found again, and nothing in it is doubled;
    one that was deleted is created anew. 409 where the mirror is not active; 410 where the job's metrics were removed.
    """
    return mirrored_job_out(service.retry(session, who, mirror_id, job_id))
