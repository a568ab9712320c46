"""Read a job's record for its diagnosis: metric log, result, and the dataset's report."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.datasets import attainable
from service.datasets import repository as datasets
from service.errors import HttpProblem
from service.jobs.tables import Job
from service.metrics.series import SeriesQuery, read_series
from trainkit.diagnose.attainable import Attainable, attainable_key
from trainkit.diagnose.record import Record, Series
from trainkit.spec import DatasetFacts, JobSpec

MAX_POINTS = 2000
"""Of each series: evaluations are seldom more, and extremes are kept."""


def record_of(session: Session, job: Job) -> Record:
    """Return the record that a diagnosis is computed from. Raises a 409 problem while the dataset is being checked."""
    dataset = datasets.by_id(session, job.dataset_id)
    if job.resolved is None or dataset.facts is None:
        detail = f"The job is {job.state}: its spec was never completed with the dataset's facts."
        raise HttpProblem(409, "not_ready", detail, headers={"Retry-After": "1"})
    found = read_series(session, job.id, SeriesQuery(None, MAX_POINTS))
    return Record(
        spec=JobSpec.model_validate(job.resolved),
        facts=DatasetFacts.model_validate(dataset.facts),
        series={name: Series(columns["step"], columns["epoch"], columns["value"]) for name, columns in found.items()},
        report=dataset.report or {},
        evaluation=job.evaluation,
        state=job.state,
        stop_reason=job.stop_reason,
        document=job.spec,
        attainable=attainable_of(session, job),
    )


def attainable_of(session: Session, job: Job) -> Attainable | None:
    """Return what references reach on the job's dataset and split: measured with the job itself, or with one before it."""
    found = (job.evaluation or {}).get("attainable")
    if found is None and job.resolved is not None:
        key = attainable_key(JobSpec.model_validate(job.resolved))
        found = attainable.kept(datasets.by_id(session, job.dataset_id).report, key)
    return None if found is None else Attainable.from_dict(found)
