"""HTTP of workers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.auth import Reader
from service.context import Service
from service.errors import RESPONSES
from service.workers.service import alive

router = APIRouter(prefix="/v1", tags=["workers"], responses=RESPONSES)


@router.get("/workers", summary="Workers seen lately")
def list_workers(who: Reader, context: Service) -> dict[str, Any]:
    with context.sessions() as session:
        data = [
            {
                "id": w.id,
                "host": w.host,
                "pid": w.pid,
                "queues": w.queues,
                "slots": w.slots,
                "device": w.device,
                "versions": w.versions,
                "started_at": w.started_at,
                "seen_at": w.seen_at,
            }
            for w in alive(session)
        ]
        return {"data": data}
