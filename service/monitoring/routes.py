"""HTTP of the Prometheus exposition: for a key with the scope operator, or the token for this route alone."""

from __future__ import annotations

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response

from service.auth import METRICS_PATH, Operator
from service.monitoring.exposition import OPENMETRICS, Exposition

router = APIRouter(tags=["monitoring"])
MAX_PARALLEL = 2
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", OPENMETRICS)},
        "description": "The text format 0.0.4 or, by `Accept`, OpenMetrics 1.0.0",
    }
}


@router.get(METRICS_PATH, response_class=Response, responses=RESPONSES, summary="Metrics for Prometheus")
async def get_prometheus_metrics(request: Request, who: Operator) -> Response:
    """Metrics in the text format of Prometheus, or in OpenMetrics where `Accept` names it."""
    exposition: Exposition = request.app.state.exposition
    # a thread limit apart from the requests': these may all wait for a database that hangs, and the scrape must report it
    limiter: CapacityLimiter = request.app.state.scrapes
    accept = request.headers.get("accept", "")
    body, media_type = await to_thread.run_sync(exposition.render, accept, limiter=limiter)
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
