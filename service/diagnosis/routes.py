"""HTTP of a diagnosis: live while the job runs, final at its end, and the investigation that settles it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Request, Response

from service.auth import Reader, Writer
from service.conditional_requests import tag_matches
from service.context import Context, Service
from service.database import reading
from service.diagnosis.combined import DiagnosisSource, combine, compared_runs, read_source, version_of
from service.diagnosis.investigation import submit
from service.diagnosis.investigation_schemas import InvestigateIn
from service.diagnosis.schemas import DiagnosisOut
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS, PNG
from service.jobs.routes import IdempotencyKey, created
from service.jobs.schemas import JobOut
from service.metrics.routes import etag
from service.pagination import NOT_MODIFIED
from service.principal import Principal
from service.proxy_headers import root_path_of
from service.request_sessions import SessionRoute

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=SessionRoute)
IfNoneMatch = Annotated[str | None, Header()]


@dataclass(frozen=True, slots=True)
class DiagnosisInput:
    """What to diagnose, None when the client has the current diagnosis already, and its ETag."""

    source: DiagnosisSource | None
    tag: str

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": self.tag, "Cache-Control": "no-cache"}


def _read(context: Context, who: Principal, job_id: str, known: str | None, *, with_variants: bool) -> DiagnosisInput:
    """Read the input of a job's diagnosis and its ETag from one snapshot."""
    # a session of its own: diagnosing and drawing take a while, and hold no connection
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        tag = etag(*version_of(session, job))
        if tag_matches(known, tag) and (job.investigation_of or "metrics" not in (job.purged or {})):
            return DiagnosisInput(None, tag)
        return DiagnosisInput(read_source(session, job, with_variants=with_variants), tag)


def diagnosis_input(job_id: str, who: Reader, context: Service, if_none_match: IfNoneMatch = None) -> DiagnosisInput:
    """What the diagnosis is computed from."""
    return _read(context, who, job_id, if_none_match, with_variants=False)


def plot_input(job_id: str, who: Reader, context: Service, if_none_match: IfNoneMatch = None) -> DiagnosisInput:
    """The same with the series of the investigation's runs."""
    return _read(context, who, job_id, if_none_match, with_variants=True)


@router.get(
    "/diagnosis",
    response_model=DiagnosisOut,
    responses=NOT_MODIFIED,
    summary="What is wrong with the run, the numbers that show it, and specs to try next",
)
def get_job_diagnosis(about: Annotated[DiagnosisInput, Depends(diagnosis_input)], request: Request) -> Response:
    """Verdicts with confidence and evidence, the main one first, and recommendations as specs that can be submitted. It
    may change while the job runs; `final` says that it no longer does. What the newest investigation measured stands in
    front of what the record alone shows.

    409 while the job's dataset is being checked, 410 when retention has removed the metrics.
    """
    if about.source is None:
        return Response(status_code=304, headers=about.headers)
    body = DiagnosisOut.model_validate(combine(about.source, root_path_of(request.scope)))
    return Response(body.model_dump_json(), media_type="application/json", headers=about.headers)


@router.get(
    "/diagnosis/{index}.png",
    response_class=Response,
    responses={**PNG, **NOT_MODIFIED},
    summary="The evidence of one of the verdicts as a picture",
)
def get_diagnosis_plot(index: int, about: Annotated[DiagnosisInput, Depends(plot_input)]) -> Response:
    """A PNG of the evidence of the verdict at `index`: of one that an investigation measured, the curves of the run, and
    of the run with the change. 404 where the diagnosis has fewer verdicts, 410 when retention has removed the metrics.
    """
    if about.source is None:
        return Response(status_code=304, headers=about.headers)
    # matplotlib takes 60 MB: imported only by processes that draw
    from trainkit.plots.compared_runs import evidence_of_runs
    from trainkit.plots.evidence import evidence

    verdicts = combine(about.source)["verdicts"]
    if not 0 <= index < len(verdicts):
        detail = f"The diagnosis has {len(verdicts)} verdicts, counted from 0; there is none at {index}."
        raise HttpProblem(404, "not_found", detail)
    verdict = verdicts[index]
    if verdict["source"] == "investigation" or about.source.record is None:
        picture = evidence_of_runs(verdict, compared_runs(about.source, verdict))
    else:
        picture = evidence(verdict, about.source.record)
    return Response(picture, media_type="image/png", headers={**HARMLESS, **about.headers})


@router.post(
    "/diagnosis:investigate",
    status_code=201,
    response_model=JobOut,
    summary="Find the cause by short runs with one change each",
)
def investigate_job(
    job_id: str,
    response: Response,
    who: Writer,
    context: Service,
    body: Annotated[InvestigateIn | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Makes one job, which trains variants of a job that has ended and compares them with it. Left out, the budget is
    three times the run's own seconds, at least 10 and at most 60. `GET /v1/jobs/{job_id}/diagnosis` of the job that was
    investigated shows what it found.
    """
    # sessions of its own: reading and checking hold no lock
    budget = body or InvestigateIn()
    job, new = submit(context, who, job_id, budget.seconds, budget.jobs, idempotency_key)
    with reading(context.sessions) as session:
        return created(session, response, job, new=new)
