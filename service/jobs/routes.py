"""HTTP of jobs: submit, look, stop, cancel, delete, and what a job left behind."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import FileResponse

from service.auth import Reader, Writer
from service.context import Context, Service
from service.documents import read_document
from service.errors import RESPONSES, Problem
from service.jobs import repository, service
from service.jobs.checkpoints import latest
from service.jobs.schemas import (
    JobOut,
    StopIn,
    attempt_wire,
    checkpoint_wire,
    decision_wire,
    event_wire,
    job_out,
)
from service.jobs.states import State
from service.jobs.tables import Job
from service.pagination import After, Limit, Page
from service.questions.service import ask
from trainkit.spec import DatasetFacts, JobSpec
from trainkit.spec.estimate import estimate

router = APIRouter(prefix="/v1", responses=RESPONSES)
SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object", "title": "JobSpec"}},
            "application/yaml": {"schema": {"type": "object", "title": "JobSpec"}},
        },
    }
}
AfterSeq = Annotated[int, Query(ge=0, lt=2**63)]
Many = Annotated[int, Query(ge=1, le=1000)]


def out(context: Context, job: Job) -> JobOut:
    """The job with its dataset."""
    with context.sessions() as session:
        return job_out(job, repository.datasets_of(session, [job])[job.dataset_id])


@router.post("/specs:validate", tags=["jobs"], openapi_extra=SPEC_BODY, summary="Check a spec; nothing is created")
async def validate_spec(request: Request, who: Reader, context: Service) -> dict[str, Any]:
    document = await read_document(request)

    def check() -> dict[str, Any]:
        with context.sessions() as session:
            spec, dataset, resolved = service.check(session, who, document)
            if resolved is None:
                waiting = "the dataset is still being checked: only the spec itself was looked at"
                warning = {"pointer": "/dataset", "code": "dataset_not_ready", "message": waiting, "hint": ""}
                return {"valid": True, "spec": spec.model_dump(mode="json"), "warnings": [warning], "estimate": None}
            return {
                "valid": True,
                "spec": resolved.spec.model_dump(mode="json"),
                "warnings": [warning.as_dict() for warning in resolved.warnings],
                "estimate": estimate(resolved, DatasetFacts.model_validate(dataset.facts)),
            }

    return await to_thread.run_sync(check)


@router.post(
    "/specs:init-report", tags=["jobs"], openapi_extra=SPEC_BODY, summary="Activations of each layer before training"
)
async def init_report(
    request: Request, who: Reader, context: Service, format: Literal["json", "png"] = "json"
) -> Response:
    document = await read_document(request)

    def check() -> tuple[str, bytes]:
        with context.sessions() as session:
            _, dataset, resolved = service.check(session, who, document)
            if resolved is None or dataset.prepared_key is None:
                raise Problem(409, "not_ready", "The dataset is still being checked.", headers={"Retry-After": "1"})
            wish = {"spec": resolved.spec.model_dump(mode="json"), "format": format}
            return dataset.prepared_key, json.dumps(wish).encode()

    key, wish = await to_thread.run_sync(check)
    answer = await ask(context, who, "init_report", key, wish, "application/json")
    return Response(answer.body, media_type=answer.media_type)


@router.get("/specs/schema", tags=["jobs"], summary="JSON schema of a job spec")
def spec_schema(who: Reader) -> dict[str, Any]:
    return JobSpec.model_json_schema()


@router.post(
    "/jobs", status_code=201, response_model=JobOut, tags=["jobs"], openapi_extra=SPEC_BODY, summary="Submit a job"
)
async def create_job(
    request: Request,
    response: Response,
    who: Writer,
    context: Service,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JobOut:
    document = await read_document(request)
    job, new = await to_thread.run_sync(service.create, context, who, document, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    return await to_thread.run_sync(out, context, job)


@router.get("/jobs", response_model=Page[JobOut], tags=["jobs"], summary="List jobs, newest first")
def list_jobs(
    request: Request,
    who: Reader,
    context: Service,
    limit: Limit = 50,
    after: After = None,
    status: Annotated[list[State] | None, Query(description="One or more states.")] = None,
    dataset: str | None = None,
    updated_after: datetime | None = None,
) -> dict[str, Any]:
    labels = {key[6:]: value for key, value in request.query_params.items() if key.startswith("label.")}
    if any(not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key) for key in labels):
        raise Problem(422, "bad_label", "A label's name has letters, digits, and _ . - only.")
    if updated_after is not None and updated_after.tzinfo is None:
        updated_after = updated_after.replace(tzinfo=UTC)
    with context.sessions() as session:
        rows = repository.listing(session, who.project_id, limit, after, status or (), labels, updated_after, dataset)
        datasets = repository.datasets_of(session, rows)
        shown = rows[:limit]
        more = len(rows) > limit
        data = [job_out(row, datasets[row.dataset_id]) for row in shown]
        return {"data": data, "has_more": more, "next": shown[-1].id if more else None}


@router.get("/jobs/{job_id}", response_model=JobOut, tags=["jobs"], summary="One job")
def get_job(
    job_id: str,
    request: Request,
    response: Response,
    who: Reader,
    context: Service,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    with context.sessions() as session:
        job = service.find(session, who, job_id)
        tag = f'W/"{job.id}:{job.updated_at.timestamp():.6f}:{job.next_event_seq}:{job.next_seq}"'
        if if_none_match == tag:
            return Response(status_code=304, headers={"ETag": tag})
        response.headers["ETag"] = tag
        response.headers["Cache-Control"] = "no-cache"
        return job_out(job, repository.datasets_of(session, [job])[job.dataset_id])


@router.delete("/jobs/{job_id}", status_code=204, tags=["jobs"], summary="Delete an ended job; its models stay")
def delete_job(job_id: str, who: Writer, context: Service) -> None:
    service.delete(context, who, job_id)


@router.post(
    "/jobs/{job_id}/stop", response_model=JobOut, tags=["jobs"], summary="End training gracefully, keep a usable model"
)
def stop_job(job_id: str, who: Writer, context: Service, wish: Annotated[StopIn | None, Body()] = None) -> JobOut:
    wish = wish or StopIn()
    return out(context, service.stop(context, who, job_id, wish.keep, wish.if_seq))


@router.post("/jobs/{job_id}/cancel", response_model=JobOut, tags=["jobs"], summary="End now, keep nothing")
def cancel_job(job_id: str, who: Writer, context: Service) -> JobOut:
    return out(context, service.cancel(context, who, job_id))


@router.get("/jobs/{job_id}/events", tags=["jobs"], summary="Every change of the job: who, when, why")
def get_events(job_id: str, who: Reader, context: Service, after: AfterSeq = 0, limit: Many = 200) -> dict[str, Any]:
    with context.sessions() as session:
        service.find(session, who, job_id)
        rows = repository.events_after(session, job_id, after, limit)
        return {"data": [event_wire(row) for row in rows], "next": rows[-1].seq if rows else after}


@router.get("/jobs/{job_id}/decisions", tags=["jobs"], summary="Every evaluation of every early-stop rule")
def get_decisions(job_id: str, who: Reader, context: Service, after: AfterSeq = 0, limit: Many = 200) -> dict[str, Any]:
    with context.sessions() as session:
        service.find(session, who, job_id)
        rows = repository.decisions_after(session, job_id, after, limit)
        return {"data": [decision_wire(row) for row in rows], "next": rows[-1].seq if rows else after}


@router.get("/jobs/{job_id}/attempts", tags=["jobs"], summary="Each worker's go at the job")
def get_attempts(job_id: str, who: Reader, context: Service) -> dict[str, Any]:
    with context.sessions() as session:
        service.find(session, who, job_id)
        return {"data": [attempt_wire(row) for row in repository.attempts(session, job_id)]}


@router.get("/jobs/{job_id}/checkpoints", tags=["jobs"], summary="Stored checkpoints, newest first")
def get_checkpoints(job_id: str, who: Reader, context: Service) -> dict[str, Any]:
    with context.sessions() as session:
        service.find(session, who, job_id)
        return {"data": [checkpoint_wire(row) for row in latest(session, job_id)]}


@router.get("/jobs/{job_id}/evaluation", tags=["jobs"], summary="Metrics of the held-out test part")
def get_evaluation(job_id: str, who: Reader, context: Service) -> dict[str, Any]:
    with context.sessions() as session:
        job = service.find(session, who, job_id)
        if job.evaluation is None:
            raise Problem(
                404, "no_evaluation", f"The job is {job.state} and has no evaluation (no test part, or no end)."
            )
        return job.evaluation


@router.get("/jobs/{job_id}/artifacts", tags=["jobs"], summary="Files the job left")
def get_artifacts(job_id: str, who: Reader, context: Service) -> dict[str, Any]:
    with context.sessions() as session:
        service.find(session, who, job_id)
        rows = repository.artifacts(session, job_id)
        listing = [
            {"name": r.name, "media_type": r.media_type, "bytes": r.bytes, "created_at": r.created_at} for r in rows
        ]
        return {"data": listing}


@router.get("/jobs/{job_id}/artifacts/{name}", tags=["jobs"], response_class=FileResponse, summary="One of those files")
def get_artifact(job_id: str, name: str, who: Reader, context: Service) -> FileResponse:
    return _file(context, who, job_id, name)


@router.get(
    "/jobs/{job_id}/plots/{plot}.png", tags=["jobs"], response_class=FileResponse, summary="curves or confusion"
)
def get_plot(job_id: str, plot: str, who: Reader, context: Service) -> FileResponse:
    return _file(context, who, job_id, f"{plot}.png")


@router.get("/jobs/{job_id}/logs", tags=["jobs"], response_class=FileResponse, summary="Log of the last attempt")
def get_logs(job_id: str, who: Reader, context: Service) -> FileResponse:
    return _file(context, who, job_id, "log.txt")


def _file(context: Context, who: Any, job_id: str, name: str) -> FileResponse:
    with context.sessions() as session:
        service.find(session, who, job_id)
        artifact = repository.artifact(session, job_id, name)
    if artifact is None or not context.storage.exists(artifact.storage_key):
        raise Problem(
            404, "not_found", f"The job has no file {name[:80]!r} (yet). GET /v1/jobs/{job_id}/artifacts lists them."
        )
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    return FileResponse(
        context.storage.local_path(artifact.storage_key), media_type=artifact.media_type, headers=headers
    )
