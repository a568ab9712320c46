"""Open to everybody: is the process alive, and can it serve?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import text

from service.context import Service

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Database and storage answer")
def readyz(response: Response, context: Service) -> dict[str, Any]:
    checks = {"database": "ok", "storage": "ok"}
    try:
        with context.sessions() as session:
            session.execute(text("SELECT 1 FROM projects LIMIT 1"))
    except Exception as error:  # whatever it is, the answer is "not ready", with the reason's kind
        checks["database"] = type(error).__name__
    try:
        context.storage.check()
    except OSError as error:
        checks["storage"] = error.strerror or type(error).__name__
    ready = all(value == "ok" for value in checks.values())
    response.status_code = 200 if ready else 503
    return {"status": "ready" if ready else "not ready", **checks}
