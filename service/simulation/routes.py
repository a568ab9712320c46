"""HTTP of replayed decisions: what other rules would have done with a job's history."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request

from service.auth import Reader
from service.context import Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.retention_status import check_there
from service.request_body import TYPES, read_document
from service.simulation.schemas import SimulationOut
from service.simulation.service import simulate
from trainkit.spec.early_stop import parse_rules

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"$ref": "#/components/schemas/RuleSet"}} for kind in TYPES},
    }
}


@router.post(
    "/decisions:simulate",
    response_model=SimulationOut,
    openapi_extra=BODY,
    summary="Replay early-stop rules on the job's history: when they would stop, what that saves and costs",
)
async def simulate_decisions(
    job_id: str,
    request: Request,
    who: Reader,
    context: Service,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Decisions in the answer.")] = 200,
) -> SimulationOut:
    document = await read_document(request)

    def run() -> SimulationOut:
        with reading(context.sessions) as session:
            job = jobs.find(session, who, job_id)
            check_there(job, "metrics")
            return simulate(session, job, parse_rules(document), after, limit)

    return await to_thread.run_sync(run)
