"""HTTP of plots: stored ones, or drawn from the metric log and the evaluation. Loads matplotlib on first use."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from service.auth import Reader
from service.context import Service
from service.database import reading
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS, PNG, file_response, stored_artifact
from service.jobs.retention_status import check_not_purged
from service.jobs.tables import Job
from service.metrics.series import SeriesQuery, read_series

router = APIRouter(prefix="/v1", tags=["jobs"])
SHOWN = frozenset({"loss", "accuracy", "r2", "mse", "mae"})
MOST_POINTS = 2000


@router.get(
    "/jobs/{job_id}/plots/{plot}.png",
    response_class=Response,
    responses=PNG,
    summary="Learning curves, or the confusion matrix; drawn from the log while the job runs",
)
def get_job_plot(job_id: str, plot: Literal["curves", "confusion"], who: Reader, context: Service) -> Response:
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


def series_rows(session: Session, job: Job) -> list[dict[str, Any]]:
    """The points of the job's learning curves."""
    rows = []
    for key, columns in read_series(session, job.id, SeriesQuery(SHOWN, MOST_POINTS)).items():
        split, _, name = key.partition("_")
        pairs = zip(columns["epoch"].tolist(), columns["value"].tolist(), strict=True)
        rows += [{"split": split, "name": name, "epoch": epoch, "value": value} for epoch, value in pairs]
    return rows


# matplotlib costs 60 MB: an API process that never draws never loads it


def draw_curves(job: Job, rows: list[dict[str, Any]]) -> bytes:
    """PNG bytes. Raises a 404 problem while there is nothing to draw."""
    from trainkit.plots import curves

    if not rows:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no metrics yet.")
    return curves(rows, best_epoch=(job.result or {}).get("best_epoch"), title=job.name)


def draw_confusion(job: Job) -> bytes:
    """PNG bytes. Raises a 404 problem while there is nothing to draw."""
    from trainkit.plots import confusion

    evaluation = job.evaluation or {}
    matrix, classes = evaluation.get("confusion_matrix"), evaluation.get("classes")
    if not matrix or not classes:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no confusion matrix.")
    return confusion(matrix, classes, title=job.name)
