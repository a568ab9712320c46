"""HTTP of replayed decisions: what other rules would have done with a job's history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from service.auth import Reader
from service.jobs import service as jobs
from service.jobs.retention_status import check_not_purged
from service.request_body import TYPES, Document
from service.request_sessions import ReadSession, SessionRoute
from service.simulation.schemas import SimulationOut
from service.simulation.service import simulate
from trainkit.spec.early_stop import parse_rules

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=SessionRoute)
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
def simulate_decisions(
    job_id: str,
    who: Reader,
    document: Document,
    session: ReadSession,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Decisions in the answer.")] = 200,
) -> SimulationOut:
    """Replays the job's own early-stop rules, or those of the body, on the stored metrics; the job is not changed. The
    answer has the decisions, where training would stop, the epochs, steps and seconds that this saves, and the metric's
    regret.

    422 for a rule that needs a series which was not logged, or a history too long to replay; 410 when the log is gone.
    """
    job = jobs.find(session, who, job_id)
    check_not_purged(job, "metrics")
    return simulate(session, job, parse_rules(document), after, limit)
