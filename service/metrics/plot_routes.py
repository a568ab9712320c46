"""HTTP of plots: stored ones, or drawn from the metric log and the evaluation. Loads matplotlib on first use."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from service.auth import Reader
from service.context import Service
from service.database import reading
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS, PNG, file_response, stored_artifact
from service.jobs.retention_status import check_there
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
def get_plot(job_id: str, plot: Literal["curves", "confusion"], who: Reader, context: Service) -> Response:
    artifact = stored_artifact(context, who, job_id, f"{plot}.png")
    if artifact is not None:
        return file_response(context, artifact)
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        if plot == "curves":
            check_there(job, "metrics")
        picture = draw(session, job, plot)
    return Response(picture, media_type="image/png", headers={**HARMLESS, "Cache-Control": "no-cache"})


def draw(session: Session, job: Job, plot: Literal["curves", "confusion"]) -> bytes:
    """PNG bytes. Raises a 404 problem while there is nothing to draw."""
    # matplotlib costs 60 MB: an API process that never draws never loads it
    from trainkit.plots import confusion, curves

    if plot == "confusion":
        evaluation = job.evaluation or {}
        matrix, classes = evaluation.get("confusion_matrix"), evaluation.get("classes")
        if not matrix or not classes:
            raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no confusion matrix.")
        return confusion(matrix, classes, title=job.name)
    rows = []
    for key, columns in read_series(session, job.id, SeriesQuery(SHOWN, MOST_POINTS)).items():
        split, _, name = key.partition("_")
        pairs = zip(columns["epoch"].tolist(), columns["value"].tolist(), strict=True)
        rows += [{"split": split, "name": name, "epoch": epoch, "value": value} for epoch, value in pairs]
    if not rows:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no metrics yet.")
    return curves(rows, best_epoch=(job.result or {}).get("best_epoch"), title=job.name)
