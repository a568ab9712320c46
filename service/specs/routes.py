"""HTTP of job specs: check one before it is submitted, see what it would begin with, read their schema."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Response

from service.auth import Reader
from service.context import Service
from service.database import reading
from service.errors import HttpProblem
from service.inference_requests.service import infer
from service.jobs import service
from service.jobs.limits import limits_of
from service.request_body import SPEC_BODY, Document
from service.request_sessions import ReadSession, SessionRoute
from service.specs.schemas import EstimateOut, InitReportOut, ValidOut, WarningOut
from trainkit.spec import DatasetFacts, JobSpec
from trainkit.spec.estimate import estimate
from trainkit.spec.json_schema import completed

router = APIRouter(prefix="/v1", tags=["specs"], route_class=SessionRoute)
REPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InitReportOut,
        "description": "JSON, or a PNG with histograms",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@cache
def _schema() -> dict[str, Any]:
    return completed(JobSpec.model_json_schema())


@router.post("/specs:validate", response_model=ValidOut, openapi_extra=SPEC_BODY, summary="Check a spec; nothing else")
def validate_spec(who: Reader, document: Document, context: Service, session: ReadSession) -> ValidOut:
    """Nothing is created. The answer is the spec with every default and automatic choice filled in, warnings, and an
    estimate of what the job needs. While the dataset is still being checked, there is no estimate, and a warning says
    so.

    A spec with mistakes is 422 with all of them at once, each with its JSON pointer.
    """
    checked = service.check(session, who, document, limits_of(session, context.settings))
    resolved = checked.resolved
    if resolved is None:
        waiting = "the dataset is still being checked: only the spec itself was looked at"
        warning = WarningOut(pointer="/dataset", code="dataset_not_ready", message=waiting, hint="Ask again.")
        return ValidOut(valid=True, spec=checked.spec.model_dump(mode="json"), warnings=[warning], estimate=None)
    return ValidOut(
        valid=True,
        spec=resolved.spec.model_dump(mode="json"),
        warnings=[WarningOut.model_validate(warning.as_dict()) for warning in resolved.warnings],
        estimate=EstimateOut.model_validate(estimate(resolved, DatasetFacts.model_validate(checked.dataset.facts))),
    )


@router.post(
    "/specs:init-report",
    response_class=Response,
    responses=REPORT,
    openapi_extra=SPEC_BODY,
    summary="Activations of each layer before training",
)
async def create_init_report(
    who: Reader, document: Document, context: Service, format: Literal["json", "png"] = "json"
) -> Response:
    """A worker builds the network and passes a batch through it: each layer's mean, spread, histogram, saturated share
    and dead share, as JSON or as a PNG. Nothing is trained or stored. 422 for a spec with mistakes, 409 while its
    dataset is being checked, 503 when no worker answers in time.
    """

    def check() -> tuple[str, bytes]:
        # a session of its own: none is held while a worker makes the report
        with reading(context.sessions) as session:
            checked = service.check(session, who, document, limits_of(session, context.settings))
            resolved, key = checked.resolved, checked.dataset.prepared_key
            if resolved is None or key is None:
                raise HttpProblem(409, "not_ready", "The dataset is still being checked.", headers={"Retry-After": "1"})
            payload = {"spec": resolved.spec.model_dump(mode="json"), "format": format}
            return key, json.dumps(payload).encode()

    key, payload = await to_thread.run_sync(check)
    answer = await infer(context, who, "init_report", key, payload, "application/json")
    return Response(answer.body, media_type=answer.media_type)


@router.get("/specs/schema", response_model=dict[str, Any], summary="JSON schema of a job spec")
def get_spec_schema(who: Reader) -> dict[str, Any]:
    """JSON Schema of the whole spec, for editors and validators. It is the same for every project of this version."""
    return _schema()
