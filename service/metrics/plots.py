"""Plots of a job, drawn from its metric log and its evaluation. Loads matplotlib on first use."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy.orm import Session

from service.errors import HttpProblem
from service.jobs.tables import Job
from service.metrics.series import SeriesQuery, read_series

SHOWN = frozenset({"loss", "accuracy", "r2", "mse", "mae"})
MOST_POINTS = 2000


def series_rows(session: Session, job: Job) -> list[dict[str, Any]]:
    """The points of the job's learning curves."""
    rows = []
    for key, columns in read_series(session, job.id, SeriesQuery(SHOWN, MOST_POINTS)).items():
        split, _, name = key.partition("_")
        pairs = zip(columns["epoch"].tolist(), columns["value"].tolist(), strict=True)
        rows += [{"split": split, "name": name, "epoch": epoch, "value": value} for epoch, value in pairs]
    return rows


# matplotlib costs 60 MB: an API process that never draws never loads it


def draw_curves(job: Job, rows: list[dict[str, Any]], format: Literal["png", "svg"] = "png") -> bytes:
    """The picture's bytes. Raises a 404 problem while there is nothing to draw."""
    from trainkit.plots import curves

    if not rows:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no metrics yet.")
    return curves(rows, best_epoch=(job.result or {}).get("best_epoch"), title=job.name, format=format)


def draw_confusion(job: Job, format: Literal["png", "svg"] = "png") -> bytes:
    """The picture's bytes. Raises a 404 problem while there is nothing to draw."""
    from trainkit.plots import confusion

    evaluation = job.evaluation or {}
    matrix, classes = evaluation.get("confusion_matrix"), evaluation.get("classes")
    if not matrix or not classes:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no confusion matrix.")
    return confusion(matrix, classes, title=job.name, format=format)
