"""HTTP of the exposition: for a key that may everything, or for the token that is good for this alone."""

from __future__ import annotations

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response

from service.auth import METRICS_PATH, Admin
from service.monitoring.exposition import OPENMETRICS, Exposition

router = APIRouter(tags=["monitoring"])
AT_ONCE = 2
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", OPENMETRICS)},
        "description": "The text format 0.0.4 or, by `Accept`, OpenMetrics 1.0.0",
    }
}


@router.get(METRICS_PATH, response_class=Response, responses=ANSWERS, summary="Metrics for Prometheus")
async def scrape(request: Request, who: Admin) -> Response:
    exposition: Exposition = request.app.state.exposition
    # threads of its own: requests that all wait for a database that hangs must not keep the scrape from saying so
    limiter: CapacityLimiter = request.app.state.scrapes
    accept = request.headers.get("accept", "")
    body, media_type = await to_thread.run_sync(exposition.render, accept, limiter=limiter)
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
