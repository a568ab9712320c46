"""Housekeeping deletes what is kept no longer, and a trimmed job can still be continued."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.background.housekeeping import TaskRunner
from service.database import db_now
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.tables import Job
from tests.support.transactions import transact
from tests.support.worker_context import Place
from tests.support.worker_runs import run_one, texts


def test_an_old_job_is_trimmed_and_its_continuation_still_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job = place.submit(place.table(), train={"epochs": 3, "seed": 1, "checkpoint_seconds": 0})
    assert run_one(place)
    with place.context.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job).values(finished_at=db_now(plus=-91 * 86400)))
    stray = place.context.storage.root / "checkpoints" / job / "9-9-stray"
    stray.write_bytes(b"x")

    monkeypatch.setattr(time, "time", lambda begun=time.time(): begun + 7200)
    assert TaskRunner(place.service).run_due() == 0
    monkeypatch.undo()
    assert not stray.exists()
    assert texts(place, job) == []
    row = place.job(job)
    assert row.purged is not None
    assert set(row.purged) >= {"logs"}
    with place.context.sessions() as session:
        (newest,) = jobs_repository.checkpoints(session, job)
    assert place.context.storage.exists(newest.storage_key)
    longer, new = transact(place.service, jobs.resume, place.service, place.who, job, 2)
    assert new
    assert run_one(place)
    assert place.job(longer.id).state == "succeeded"
    assert any(f"step {newest.step}" in text for text in texts(place, longer.id))
