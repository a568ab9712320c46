"""HTTP of workers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from service.auth import Reader
from service.pagination import Listing
from service.request_sessions import ReadSession, SessionRoute
from service.workers.repository import alive

router = APIRouter(prefix="/v1", tags=["workers"], route_class=SessionRoute)


class WorkerOut(BaseModel):
    """A worker that has been seen lately."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    device: str
    versions: dict[str, Any]
    started_at: datetime
    seen_at: datetime


@router.get("/workers", response_model=Listing[WorkerOut], summary="Workers seen lately")
def list_workers(who: Reader, session: ReadSession) -> dict[str, Any]:
    return {"data": [WorkerOut.model_validate(worker) for worker in alive(session)]}
