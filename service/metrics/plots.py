"""Plots of a job, drawn from its metric log and its evaluation. Loads matplotlib on first use."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sqlalchemy.orm import Session

from service.errors import HttpProblem
from service.jobs.tables import Job
from service.metrics.series import SeriesQuery, read_series
from trainkit.diagnose.record import Series

SHOWN = frozenset({"loss", "accuracy", "r2", "mse", "mae"})
MOST_POINTS = 2000


OF_VARIANTS = ("val_loss", "val_accuracy", "val_r2")
"""Metrics of an investigation's runs that are drawn."""


def series_rows(session: Session, job: Job) -> list[dict[str, Any]]:
    """The points of the job's learning curves; of an investigation `split` is the name of a run."""
    rows = []
    of_variants = job.investigation_of is not None
    query = SeriesQuery(None if of_variants else SHOWN, MOST_POINTS)
    for key, columns in read_series(session, job.id, query).items():
        split, _, name = key.partition("_")
        if of_variants:
            split, _, name = name.rpartition(".")
            if name not in OF_VARIANTS:
                continue
        pairs = zip(columns["epoch"].tolist(), columns["value"].tolist(), strict=True)
        rows += [{"split": split, "name": name, "epoch": epoch, "value": value} for epoch, value in pairs]
    return rows


# matplotlib costs 60 MB: an API process that never draws never loads it


def draw_curves(job: Job, rows: list[dict[str, Any]], format: Literal["png", "svg"] = "png") -> bytes:
    """The picture's bytes. Raises a 404 problem while there is nothing to draw."""
    from trainkit.plots import curves

    if not rows:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no metrics yet.")
    if job.investigation_of is not None:
        return _draw_variants(job, rows, format)
    return curves(rows, best_epoch=(job.result or {}).get("best_epoch"), title=job.name, format=format)


def _draw_variants(job: Job, rows: list[dict[str, Any]], format: Literal["png", "svg"]) -> bytes:
    from trainkit.plots.compared_runs import curves_of_runs

    points: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        points.setdefault(row["split"], {}).setdefault(row["name"], []).append((row["epoch"], row["value"]))
    names = sorted(points, key=lambda name: (name != "base", name))
    runs = {
        name: {metric: _series(points[name][metric]) for metric in OF_VARIANTS if metric in points[name]}
        for name in names
    }
    return curves_of_runs(job.name, runs, format)


def _series(points: list[tuple[int, float]]) -> Series:
    epochs = np.array([epoch for epoch, _ in points], np.int64)
    return Series(epochs, epochs, np.array([value for _, value in points], np.float64))


def draw_confusion(job: Job, format: Literal["png", "svg"] = "png") -> bytes:
    """The picture's bytes. Raises a 404 problem while there is nothing to draw."""
    from trainkit.plots import confusion

    evaluation = job.evaluation or {}
    matrix, classes = evaluation.get("confusion_matrix"), evaluation.get("classes")
    if not matrix or not classes:
        raise HttpProblem(404, "no_plot", f"The job is {job.state} and has no confusion matrix.")
    return confusion(matrix, classes, title=job.name, format=format)
