"""HTTP of workers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict

from service.auth import Reader
from service.keys.service import Principal
from service.pagination import Listing
from service.request_sessions import ReadSession, SessionRoute
from service.response_model import ResponseModel
from service.workers.names import worker_alias
from service.workers.repository import alive

router = APIRouter(prefix="/v1", tags=["workers"], route_class=SessionRoute)


class WorkerOut(ResponseModel):
    """A worker that has been seen lately."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    """An alias for all but the operator."""
    host: str | None
    """Null for all but the operator, as is `pid`."""
    pid: int | None
    queues: list[str]
    slots: int
    device: str
    versions: dict[str, str]
    started_at: datetime
    seen_at: datetime


@router.get("/workers", response_model=Listing[WorkerOut], summary="Workers seen lately")
def list_workers(who: Reader, session: ReadSession) -> dict[str, Any]:
    return {"data": [_visible(WorkerOut.model_validate(worker), who) for worker in alive(session)]}


def _visible(worker: WorkerOut, who: Principal) -> WorkerOut:
    """What the caller may see: the machines behind the workers are the operator's."""
    if who.operator:
        return worker
    versions = {name: version for name, version in worker.versions.items() if name != "confinement"}
    return worker.model_copy(update={"id": worker_alias(worker.id), "host": None, "pid": None, "versions": versions})
