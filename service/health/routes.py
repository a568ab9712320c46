"""Open to everybody: is the process alive, and can it serve?"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from service.context import Service
from service.database import ping, reading
from service.response_model import ResponseModel

router = APIRouter(tags=["health"])


class HealthOut(ResponseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyOut(ResponseModel):
    """What works, and the kind of reason for what does not. The broker may be away: jobs then start a little later."""

    status: Literal["ready", "not ready"]
    database: str
    storage: str
    broker: str


@router.get("/healthz", response_model=HealthOut, summary="The process answers")
async def get_health() -> HealthOut:
    """For liveness probes: it touches neither database nor storage."""
    return HealthOut()


@router.get(
    "/readyz",
    response_model=ReadyOut,
    responses={503: {"model": ReadyOut, "description": "Not ready"}},
    summary="Database and storage answer",
)
def get_readiness(response: Response, context: Service) -> ReadyOut:
    """200 when both do, 503 when one does not; the body says which. A broker that is away does not count: work is found
    without it, only later.
    """
    checks = {"database": "ok", "storage": "ok"}
    try:
        # a session of its own: the answer must come also while requests have all of theirs, or there is no database
        with reading(context.sessions) as session:
            ping(session)
    except Exception as error:  # whatever it is, the answer is "not ready", with the reason's kind
        checks["database"] = type(error).__name__
    try:
        context.storage.check()
    except OSError as error:
        checks["storage"] = error.strerror or type(error).__name__
    ready = all(value == "ok" for value in checks.values())
    response.status_code = 200 if ready else 503
    broker = "ok" if context.doorbell.reachable() else "away"
    return ReadyOut(status="ready" if ready else "not ready", broker=broker, **checks)
