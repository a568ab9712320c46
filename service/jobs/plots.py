"""Plots of a job that has none stored: drawn from its metric log and its evaluation. Loads matplotlib on first use."""

from __future__ import annotations

from typing import Literal

from sqlalchemy.orm import Session

from service.errors import Problem
from service.jobs.tables import Job
from service.metrics.series import SeriesQuery, read_series

SHOWN = frozenset({"loss", "accuracy", "r2", "mse", "mae"})
MOST_POINTS = 2000


def draw(session: Session, job: Job, plot: Literal["curves", "confusion"]) -> bytes:
    """PNG bytes. Raises a 404 problem while there is nothing to draw."""
    # matplotlib costs 60 MB: an API process that never draws never loads it
    from trainkit.plots import confusion, curves

    if plot == "confusion":
        evaluation = job.evaluation or {}
        matrix, classes = evaluation.get("confusion_matrix"), evaluation.get("classes")
        if not matrix or not classes:
            raise Problem(404, "no_plot", f"The job is {job.state} and has no confusion matrix.")
        return confusion(matrix, classes, title=job.name)
    rows = []
    for key, columns in read_series(session, job.id, SeriesQuery(SHOWN, MOST_POINTS)).items():
        split, _, name = key.partition("_")
        pairs = zip(columns["epoch"].tolist(), columns["value"].tolist(), strict=True)
        rows += [{"split": split, "name": name, "epoch": epoch, "value": value} for epoch, value in pairs]
    if not rows:
        raise Problem(404, "no_plot", f"The job is {job.state} and has no metrics yet.")
    return curves(rows, best_epoch=(job.result or {}).get("best_epoch"), title=job.name)
