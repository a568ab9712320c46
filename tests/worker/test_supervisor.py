"""One attempt at one job with a real training process: every way that it can end."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import psutil
import pytest
from sqlalchemy import delete, update

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.database import db_now
from service.jobs import repository
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.tables import Artifact, Job
from service.models.tables import Model
from tests.support.transactions import transact
from tests.support.worker_context import Place
from tests.support.worker_runs import LONG, epochs_seen, meanwhile, run_one, training_process, wait_for_epochs
from worker import shutdown, supervisor


def test_a_job_goes_from_the_queue_to_a_model(place: Place) -> None:
    job = place.submit(place.table(), train={"epochs": 3, "seed": 1})
    assert run_one(place)
    assert not run_one(place)
    row = place.job(job)
    assert (row.state, row.stop_reason, row.phase) == ("succeeded", "completed", None)
    assert [epoch for epoch, _ in epochs_seen(place, job)] == [1, 2, 3]
    assert row.result is not None
    assert row.result["test"]["accuracy"] >= 0
    assert row.evaluation is not None
    assert row.runtime is not None
    with place.context.sessions() as session:
        model = session.get_one(Model, row.result["model"])
        names = {artifact.name for artifact in repository.artifacts(session, job)}
        log = session.get_one(Artifact, (job, "log.txt"))
    assert (place.context.storage.local_path(model.storage_key) / "model.safetensors").exists()
    assert names == {"log.txt", "curves.png", "confusion.png"}
    assert "best so far" in place.context.storage.local_path(log.storage_key).read_text()
    assert place.attempts(job)[0].outcome == "succeeded"
    assert list(place.context.settings.scratch.iterdir()) == []


def test_stop_keeps_a_model_and_cancel_does_not(place: Place) -> None:
    dataset = place.table()
    for command, state in (("stop", "stopped"), ("cancel", "cancelled")):
        job = place.submit(dataset, train=LONG, name=command)

        def act(job: str = job, command: str = command) -> None:
            wait_for_epochs(place, job, 2)
            if command == "stop":
                transact(place.service, jobs.stop, place.who, job, "best", None)
            else:
                transact(place.service, jobs.cancel, place.who, job)

        with meanwhile(act):
            run_one(place)
        row = place.job(job)
        assert row.state == state
        assert (row.result is not None) == (command == "stop")
        assert place.attempts(job)[0].outcome == state


def test_a_cancel_that_came_before_the_claim_starts_nothing(place: Place) -> None:
    job = place.submit(place.table())
    with place.context.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job).values(requested_action={"action": "cancel"}))
    assert run_one(place)
    assert place.job(job).state == "cancelled"
    assert epochs_seen(place, job) == []


def test_a_killed_training_process_is_an_interruption_and_the_next_attempt_equals_an_undisturbed_run(
    place: Place,
) -> None:
    dataset, train = place.table(), {"epochs": 60, "checkpoint_seconds": 0, "seed": 1}
    calm = place.submit(dataset, train=train)
    run_one(place)
    job = place.submit(dataset, train=train)

    def act() -> None:
        wait_for_epochs(place, job, 3)
        training_process(place).kill()

    with meanwhile(act):
        run_one(place)
    row = place.job(job)
    assert (row.state, row.attempts, row.interruptions) == ("queued", 0, 1)
    with place.context.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job).values(not_before=None))
    assert run_one(place)
    assert place.job(job).state == "succeeded"
    assert epochs_seen(place, job) == epochs_seen(place, calm)
    first, second = place.attempts(job)
    assert first.outcome == "lost"
    assert first.error is not None
    assert "SIGKILL" in first.error["message"]
    assert second.resumed_from_step is not None
    assert (first.resume, second.resume) == (None, {"exact": True, "reason": None})


def test_a_crash_is_a_failed_attempt_with_its_signal(place: Place) -> None:
    job = place.submit(place.table(), train=LONG)

    def act() -> None:
        wait_for_epochs(place, job, 1)
        training_process(place).send_signal(signal.SIGSEGV)

    with meanwhile(act):
        run_one(place)
    row = place.job(job)
    assert (row.state, row.attempts, row.interruptions) == ("queued", 1, 0)
    assert row.error is not None
    assert "SIGSEGV (exit 139)" in row.error["message"]


def test_a_stopping_worker_hands_the_job_back_with_a_checkpoint(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(shutdown, "requested", stop.is_set)
    job = place.submit(place.table(), train={"epochs": 100_000, "seed": 1})

    def act() -> None:
        wait_for_epochs(place, job, 2)
        stop.set()

    with meanwhile(act):
        run_one(place)
    row = place.job(job)
    assert (row.state, row.attempts, row.interruptions, row.not_before) == ("queued", 0, 0, None)
    assert place.attempts(job)[0].outcome == "handed_back"
    with place.context.sessions() as session:
        (kept,) = jobs_repository.checkpoints(session, job)
    assert kept.metric_seq == row.next_seq - 1


def test_of_two_checkpoints_a_damaged_one_is_passed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(shutdown, "requested", stop.is_set)
    job = place.submit(place.table(), train=LONG)

    def stored() -> list[Any]:
        with place.context.sessions() as session:
            return list(jobs_repository.checkpoints(session, job))

    def act() -> None:
        while len(stored()) < 2:
            time.sleep(0.02)
        stop.set()

    with meanwhile(act):
        run_one(place)
    newest, before = stored()
    place.context.storage.local_path(newest.storage_key).write_bytes(b"damaged")
    stop.clear()

    def finish() -> None:
        while len(place.attempts(job)) < 2 or place.job(job).state != "running":
            time.sleep(0.02)
        transact(place.service, jobs.stop, place.who, job, "last", None)

    with meanwhile(finish):
        run_one(place)
    assert place.job(job).state == "stopped"
    assert place.attempts(job)[1].resumed_from_step == before.step
    epochs = [epoch for epoch, _ in epochs_seen(place, job)]
    assert epochs[: before.epoch] == list(range(1, before.epoch + 1))
    assert len(epochs) == len(set(epochs))


def test_a_supervisor_whose_job_was_given_away_kills_its_process_and_writes_nothing(place: Place) -> None:
    job = place.submit(place.table(), train=LONG)
    orphan: list[psutil.Process] = []
    rows: list[int] = []

    def act() -> None:
        wait_for_epochs(place, job, 2)
        orphan.append(training_process(place))
        with place.context.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job).values(fence=Job.fence + 1, lease_expires_at=db_now()))
        rows.append(place.job(job).next_seq)

    with meanwhile(act):
        run_one(place)
    assert not orphan[0].is_running()
    assert place.job(job).next_seq == rows[0]
    assert place.job(job).state == "running"


def test_a_database_that_stays_away_ends_the_training_before_the_lease_does(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    job = place.submit(place.table(), train=LONG)
    supervisors: list[supervisor.Supervisor] = []
    original = supervisor.Supervisor._watch

    def watch(self: supervisor.Supervisor, shipper: Any) -> Any:
        supervisors.append(self)
        self.lease.seconds = 1.0
        return original(self, shipper)

    def away(*_: Any) -> None:
        raise OperationalError("x", {}, Exception("connection refused"))

    def act() -> None:
        wait_for_epochs(place, job, 2)
        monkeypatch.setattr(supervisor.leases, "renew", away)
        monkeypatch.setattr(supervisor.leases, "requested_action", away)
        supervisors[0].lease._due = 0.0
        supervisors[0].lease._deadline = time.monotonic() + 0.5

    monkeypatch.setattr(supervisor.Supervisor, "_watch", watch)
    with meanwhile(act):
        run_one(place)
    assert supervisors[0].lease.lost
    assert supervisors[0].process.child is not None
    assert supervisors[0].process.child.exit is not None
    assert place.job(job).state == "running"


def test_a_model_that_is_deleted_before_it_is_needed_fails_the_job_with_a_pointer(place: Place) -> None:
    dataset = place.table()
    other = place.submit(dataset, train={"epochs": 1})
    run_one(place)
    job = place.submit(dataset, start_from={"job": other})
    with place.context.sessions.begin() as session:
        session.execute(delete(Model).where(Model.job_id == other))
    assert run_one(place)
    row = place.job(job)
    assert row.state == "failed"
    assert row.error is not None
    assert (row.error["code"], row.error["evidence"]["pointer"]) == ("source_unavailable", "/start_from/job")


def test_transfer_from_a_job_takes_its_model(place: Place) -> None:
    dataset = place.table()
    first = place.submit(dataset, train={"epochs": 1})
    run_one(place)
    job = place.submit(dataset, train={"epochs": 1}, start_from={"job": first, "head": "keep"})
    run_one(place)
    assert place.job(job).state == "succeeded"


def test_data_that_is_not_in_the_storage_is_said_with_what_to_do(place: Place) -> None:
    dataset = place.table()
    job = place.submit(dataset)
    for file in (place.context.storage.root / "prepared").rglob("*"):
        if file.is_file():
            os.remove(file)  # noqa: PTH107
    run_one(place)
    row = place.job(job)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["code"] == "data_damaged"
    assert dataset in row.error["message"]
    assert "TRAINKIT_STORAGE_URL" in row.error["hint"]
    assert str(place.context.settings.home) not in row.error["message"]
