"""HTTP of plots: stored ones, or drawn from the metric log and the evaluation."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response

from service.auth import Reader
from service.conditional_requests import tagged
from service.context import Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS, PNG, file_response, stored_artifact
from service.jobs.retention_status import check_not_purged
from service.metrics.plots import draw_confusion, draw_curves, series_rows
from service.pagination import NOT_MODIFIED

router = APIRouter(prefix="/v1", tags=["jobs"])
SVG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}, "description": "SVG"},
    **NOT_MODIFIED,
}


@router.get(
    "/jobs/{job_id}/plots/{plot}.png",
    response_class=Response,
    responses=PNG,
    summary="Learning curves, or the confusion matrix; drawn from the log while the job runs",
)
def get_job_plot(job_id: str, plot: Literal["curves", "confusion"], who: Reader, context: Service) -> Response:
    """`curves` is drawn from the metric log, also while the job runs; `confusion` from the evaluation. 404 while there
    is nothing to draw, 410 when retention has removed the log.
    """
    # a session of its own: drawing takes a while, and holds no connection
    with reading(context.sessions) as session:
        artifact = stored_artifact(session, context, who, job_id, f"{plot}.png")
        job = jobs.find(session, who, job_id)
        if artifact is None and plot == "curves":
            check_not_purged(job, "metrics")
        rows = series_rows(session, job) if artifact is None and plot == "curves" else []
    if artifact is not None:
        return file_response(context, artifact)
    picture = draw_curves(job, rows) if plot == "curves" else draw_confusion(job)
    return Response(picture, media_type="image/png", headers={**HARMLESS, "Cache-Control": "no-cache"})


@router.get(
    "/jobs/{job_id}/plots/{plot}.svg",
    response_class=Response,
    responses=SVG,
    summary="The same plots as SVG: without script, and the same bytes for the same numbers",
)
def get_job_plot_svg(job_id: str, plot: Literal["curves", "confusion"], who: Reader, context: Service) -> Response:
    """Vector graphics of the same numbers, without script. 404 while there is nothing to draw, 410 when retention has
    removed the log.
    """
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        if plot == "curves":
            check_not_purged(job, "metrics")
        rows = series_rows(session, job) if plot == "curves" else []
    picture = draw_curves(job, rows, "svg") if plot == "curves" else draw_confusion(job, "svg")
    return tagged(Response(picture, media_type="image/svg+xml", headers={**HARMLESS, "Cache-Control": "no-cache"}))
