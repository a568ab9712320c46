"""HTTP of job submission: a spec, or one that a diagnosis recommends."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Response

from service.auth import Writer
from service.context import Service
from service.database import reading
from service.jobs import service
from service.jobs.routes import IdempotencyKey, created, out
from service.jobs.schemas import JobOut
from service.jobs.states import ENDED
from service.recommendations.submit import create
from service.request_body import JOB_BODY, Document
from service.request_sessions import SessionRoute

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=SessionRoute)
MAX_WAIT_SECONDS = 60
WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?=[,;]|$)", re.IGNORECASE | re.ASCII)
Prefer = Annotated[
    str | None,
    Header(
        max_length=200,
        description=f"`wait=10`: answer at the end of the job, or after 10 s (at most {MAX_WAIT_SECONDS}).",
    ),
]


@router.post("", status_code=201, response_model=JobOut, openapi_extra=JOB_BODY, summary="Submit a job")
async def create_job(
    response: Response,
    who: Writer,
    document: Document,
    context: Service,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> JobOut:
    """With `Prefer: wait=SECONDS` (RFC 7240) the answer shows how the job has ended, or how far it is after that time."""

    def submit() -> JobOut:
        # sessions of its own: reading and checking hold no lock
        job, new = create(context, who, document, idempotency_key)
        with reading(context.sessions) as session:
            return created(session, response, job, new=new)

    shown = await to_thread.run_sync(submit)
    preference = WAIT.search(prefer or "")
    if preference is None:
        return shown
    seconds = min(int(preference[1]), MAX_WAIT_SECONDS)
    response.headers["Preference-Applied"] = f"wait={seconds}"

    def read() -> tuple[JobOut, bool]:
        with reading(context.sessions) as session:
            job = service.find(session, who, shown.id)
            return out(session, job), job.state in ENDED

    shown, _ = await context.job_watcher.look_until(shown.id, read, itemgetter(1), seconds)
    return shown
