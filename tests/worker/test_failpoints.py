"""A worker killed at each named point: the next one finishes the job, and its log has neither gap nor double."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.background.lease_expiry import expire_leases
from service.database import db_now
from service.jobs.states import WITH_WORKER
from service.jobs.tables import Job
from service.models.tables import Model
from tests.support.logged_rows import logged_rows
from tests.support.worker_context import Place
from worker import processes
from worker.context import make_context
from worker.supervisor import claim_and_supervise

POINTS = (
    *("after_claim", "before_fork", "after_metric_ship", "before_checkpoint_row"),
    *("after_attainable", "before_finish", "after_finish"),
)
EPOCHS = 12


@pytest.mark.parametrize("point", POINTS)
def test_killed_there_once(place: Place, tmp_path: Path, point: str) -> None:
    job = place.submit(place.table(), train={"epochs": EPOCHS, "checkpoint_seconds": 0, "seed": 2})
    settings = place.context.settings
    marker = tmp_path / "killed"
    place.context.engine.dispose()

    def work() -> None:
        os.environ["TRAINKIT_FAILPOINTS"] = f"{point}=kill@{marker}"
        claim_and_supervise(make_context(settings), "train")

    worker = processes.fork(work, log=tmp_path / "worker.log")
    assert worker.wait().signal == signal.SIGKILL, (tmp_path / "worker.log").read_text()
    assert marker.exists()

    with place.context.sessions.begin() as session:
        lost = update(Job).where(Job.state.in_(WITH_WORKER)).values(lease_expires_at=db_now(plus=-1))
        session.execute(lost)
    expire_leases(place.context.sessions, 20)
    assert claim_and_supervise(place.context, "train") == (point != "after_finish")

    row = place.job(job)
    assert row.state == "succeeded"
    assert (row.attempts, row.interruptions) == (0, 0 if point == "after_finish" else 1)
    with place.context.sessions() as session:
        rows = logged_rows(session, job)
        assert session.scalar(select(func.count()).select_from(Model)) == 1
    assert [entry.seq for entry in rows] == list(range(1, len(rows) + 1))
    live = [e.row.epoch for e in rows if (e.row.split, e.row.name) == ("val", "loss") and not e.superseded]
    assert live == list(range(1, EPOCHS + 1))
