"""Archived projects come to rest: what was under way ends gracefully, as a client's stop does.

A request that was let in just before the archiving may still have added work: each round looks again.
"""

from __future__ import annotations

import logging
import time

from sqlalchemy.orm import Session

from service.background import repository
from service.context import Context
from service.database import in_short_transactions, reading
from service.experiments import repository as experiments
from service.experiments.service import stop as stop_experiment
from service.jobs import service as jobs
from service.principal import service_principal
from service.projects.repository import archived_ids

log = logging.getLogger(__name__)
BATCH = 500
ROUND_SECONDS = 3.0


def stop_archived_work(context: Context) -> int:
    """Stop experiments and jobs of archived projects, for ROUND_SECONDS at most; returns how many were found."""
    deadline = time.monotonic() + ROUND_SECONDS
    with reading(context.sessions) as session:
        projects = archived_ids(session)
    return sum(_stop_work(context, project_id, deadline) for project_id in projects)


def _stop_work(context: Context, project_id: str, deadline: float) -> int:
    who = service_principal(project_id)
    with reading(context.sessions) as session:
        experiment_ids = experiments.open_in(session, project_id, BATCH)
        job_ids = repository.unstopped_jobs(session, project_id, BATCH)

    def stop(session: Session, job_id: str) -> None:
        jobs.stop(session, who, job_id, "best", None)

    for experiment_id in experiment_ids:
        stop_experiment(context, who, experiment_id, "stop")
    in_short_transactions(context.sessions, job_ids, stop, deadline)
    if found := len(experiment_ids) + len(job_ids):
        log.info("project=%s is archived: %d experiments and jobs are asked to stop", project_id, found)
    return found
