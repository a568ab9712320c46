"""What happens though nobody asks: lost workers, unheard bells, waiting jobs, old rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError

from service import process_identity
from service.background.dispatch import admit_waiting_jobs, redispatch
from service.background.housekeeping import HousekeepingTask, TaskRunner, delete_old_rows
from service.background.lease_expiry import expire_leases, release_ended, repair_clock_skew
from service.database import db_now
from service.datasets import intake
from service.datasets.tables import DatasetVersion
from service.inference_requests import repository as inference_requests
from service.jobs import attempts, checkpoints, leases
from service.jobs import service as jobs
from service.jobs.service import ADMITTED_AT_ONCE
from service.jobs.tables import IdempotencyKey, Job
from service.leases import StaleFence
from service.workers import repository as workers
from service.workers.tables import Housekeeping
from tests.support.api import FACTS, Served, error_of

pytestmark = pytest.mark.postgresql


def due_now(service: Served) -> None:
    """Let the pause of every queued job be over."""
    with service.sessions.begin() as session:
        session.execute(update(Job).values(not_before=None))


def expire_and_redispatch(service: Served, ring: Callable[[str], object], lease_seconds: float) -> None:
    """The tasks of a round that look at times."""
    repair_clock_skew(service.sessions, lease_seconds)
    expire_leases(service.sessions, 3)
    redispatch(service.sessions, ring)


def lose(service: Served) -> leases.ClaimedJob:
    """A worker that claims a job and is never heard of again."""
    return service.claim(lease_seconds=-1)


def test_an_expired_lease_is_a_new_attempt_until_too_many(service: Served) -> None:
    job = service.submit()
    for lost in range(3):
        claimed = lose(service)
        assert expire_leases(service.sessions, 2) == 1
        shown = service.job(job)
        assert (shown["interruptions"], shown["failures"], shown["attempts"]) == (lost + 1, 0, lost + 1)
        due_now(service)
    assert (shown["state"], shown["error"]["code"], shown["error"]["retryable"]) == ("failed", "worker_lost", True)
    tries = service.client.get(f"/v1/jobs/{job}/attempts").json()["data"]
    assert [(a["attempt"], a["outcome"]) for a in tries] == [(n, "lost") for n in range(1, claimed.claim.fence + 1)]
    assert expire_leases(service.sessions, 2) == 0


def test_each_further_loss_waits_longer(service: Served) -> None:
    job = service.submit()
    pauses = []
    for _ in range(4):
        lose(service)
        expire_leases(service.sessions, 10)
        with service.sessions() as session:
            due, now = session.execute(select(Job.not_before, db_now()).where(Job.id == job)).one()
        pauses.append(0 if due is None else round((due - now) / timedelta(seconds=1)))
        due_now(service)
    assert pauses == [0, 1, 2, 4]


def test_what_comes_further_each_time_may_be_lost_for_ever(service: Served) -> None:
    job = service.submit()
    step = None
    for number in range(1, 8):
        claimed = service.claim(lease_seconds=-1, start=False)
        with service.sessions.begin() as session:
            attempts.start(session, claimed.claim, resumed_from_step=step)
        step = 10 * number
        with service.sessions.begin() as session:
            kept = {"step": step, "epoch": number, "storage_key": f"c/{number}", "sha256": "0" * 64, "size": 1}
            checkpoints.record(session, claimed.claim, **kept)
        assert expire_leases(service.sessions, 2) == 1
        shown = service.job(job)
        assert (shown["state"], shown["interruptions"]) == ("queued", number)
        with service.sessions() as session:
            assert session.get_one(Job, job).not_before is None, "and goes on at once"
    for lost in range(3):
        claimed = service.claim(lease_seconds=-1, start=False)
        with service.sessions.begin() as session:
            attempts.start(session, claimed.claim, resumed_from_step=step)
        expire_leases(service.sessions, 2)
        assert service.job(job)["state"] == ("queued" if lost < 2 else "failed"), "no further than the last checkpoint"
        due_now(service)


def test_leases_of_an_ended_process_are_given_back_at_once_and_those_of_others_are_kept(service: Served) -> None:
    """After SIGKILL a job waited for its lease of 30 s, though its host knew that the owner was dead."""
    rang: list[str] = []
    job, other = service.submit(), service.submit()
    claimed = {one.job_id: one for one in (service.claim(), service.claim())}
    service.client.put("/v1/datasets?name=later", content=b"more bytes")
    project = service.client.get("/v1/projects").json()["data"][0]["id"]
    with service.sessions.begin() as session:
        dataset = intake.claim(session, "worker-1", 30)
        inference_requests.add(session, project, "predict", "m", b"", "text/plain")
        request = inference_requests.claim(session, "worker-1", 60)
        session.execute(update(Job).where(Job.id == other).values(lease_process="elsewhere"))
    assert dataset is not None
    assert request is not None
    assert release_ended(service.sessions, 3, rang.append) == 0, "this process holds them, and lives"
    identity = process_identity.current()
    assert release_ended(service.sessions, 3, rang.append, lambda process: process == identity) == 3
    assert sorted(rang) == ["data", "predict", "train"]
    shown = service.job(job)
    assert (shown["state"], shown["interruptions"], shown["failures"]) == ("queued", 1, 0)
    assert service.job(other)["state"] == "running", "its owner cannot be seen: the lease runs"
    assert service.claim("worker-2").job_id == job
    with service.sessions.begin() as session:
        assert intake.claim(session, "worker-2", 30) is not None
        assert inference_requests.claim(session, "worker-2", 60) is not None
    # the old owner was alive after all: its fence is stale
    with pytest.raises(StaleFence), service.sessions.begin() as session:
        attempts.start(session, claimed[job].claim)
    with pytest.raises(StaleFence), service.sessions.begin() as session:
        intake.invalid(session, dataset.claim, {})
    with pytest.raises(StaleFence), service.sessions.begin() as session:
        inference_requests.answer(session, request.claim, b"", "text/plain")


def test_a_lease_that_is_renewed_is_left_alone(service: Served) -> None:
    job = service.submit()
    claimed = lose(service)
    with service.sessions.begin() as session:
        leases.renew(session, claimed.claim, 30)
    assert expire_leases(service.sessions, 5) == 0
    assert service.job(job)["state"] == "running"


def test_a_cancel_that_nobody_obeyed_is_obeyed_when_the_worker_is_lost(service: Served) -> None:
    job = service.submit()
    lose(service)
    service.client.post(f"/v1/jobs/{job}/cancel")
    expire_leases(service.sessions, 5)
    shown = service.job(job)
    assert (shown["state"], shown["interruptions"]) == ("cancelled", 0)


def test_a_stop_that_meets_a_lost_worker_is_kept_for_the_next(service: Served) -> None:
    job = service.submit()
    lose(service)
    service.client.post(f"/v1/jobs/{job}/stop", json={"keep": "last"})
    expire_leases(service.sessions, 5)
    assert service.job(job)["state"] == "queued"
    assert service.claim().requested_action == {"action": "stop", "keep": "last"}


def test_work_that_no_worker_has_taken_is_rung_for_until_one_has(service: Served) -> None:
    rung: list[str] = []
    redispatch(service.sessions, rung.append)
    assert rung == []
    service.submit()
    service.client.put("/v1/datasets?name=unchecked", content=b"bytes")
    redispatch(service.sessions, rung.append)
    assert rung == ["data", "train"]
    service.claim()
    redispatch(service.sessions, rung.append)
    assert rung == ["data", "train", "data"]


def test_redispatch_writes_nothing_however_long_the_queue_is(service: Served) -> None:
    """It noted the message in every queued job, every three seconds: 80 MB of write-ahead log at 10,000 of them."""
    dataset = service.ready_dataset()
    for _ in range(3):
        service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}}).raise_for_status()
    written: list[str] = []

    def note(connection: object, cursor: object, statement: str, *more: object) -> None:
        if not statement.startswith(("SELECT", "BEGIN")):
            written.append(statement)

    event.listen(service.context.engine, "before_cursor_execute", note)
    redispatch(service.sessions, lambda queue: None)
    repair_clock_skew(service.sessions, 30)
    event.remove(service.context.engine, "before_cursor_execute", note)
    assert written == []


def test_who_makes_work_due_rings_for_it(service: Served) -> None:
    job = service.submit()
    lose(service)
    rung: list[str] = []
    expire_leases(service.sessions, 5, rung.append)
    assert (service.job(job)["state"], rung) == ("queued", ["train"])
    waiting = service.client.put("/v1/datasets?name=late", content=b"late").json()["id"]
    spec = {"dataset": waiting, "model": {"kind": "mlp"}}
    jobs_waiting = [service.client.post("/v1/jobs", json=spec).json()["id"] for _ in range(ADMITTED_AT_ONCE + 1)]
    admit_waiting_jobs(service.sessions, rung.append)
    assert rung == ["train"]
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "w", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, FACTS, {}, "prepared/x")
    admit_waiting_jobs(service.sessions, rung.append)
    assert {service.job(one)["state"] for one in jobs_waiting} == {"queued"}
    assert rung == ["train", "train", "train"], "one transaction admits a few, so that others get their turn"


def test_work_that_waits_for_its_pause_is_not_rung_for(service: Served) -> None:
    service.submit()
    with service.sessions.begin() as session:
        session.execute(update(Job).values(not_before=db_now(plus=60)))
    rung: list[str] = []
    redispatch(service.sessions, rung.append)
    assert rung == []


def test_a_job_waits_for_its_dataset_and_is_then_admitted_or_failed(service: Served) -> None:
    dataset = service.client.put("/v1/datasets?name=slow", content=b"some bytes").json()["id"]
    good = service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}}).json()
    bad = service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "lstm"}}).json()
    assert (good["state"], bad["state"]) == ("validating", "validating")
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "w", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, FACTS, {}, "prepared/x")
    rung: list[str] = []
    admit_waiting_jobs(service.sessions)
    redispatch(service.sessions, rung.append)
    assert service.job(good["id"])["state"] == "queued"
    failed = service.job(bad["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "invalid_spec")
    assert failed["error"]["evidence"]["errors"][0]["pointer"] == "/model/kind"
    assert "train" in rung


def test_jobs_of_an_unusable_dataset_fail_with_its_reason(service: Served) -> None:
    dataset = service.client.put("/v1/datasets?name=broken", content=b"not data").json()["id"]
    waiting = service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}}).json()["id"]
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "w", 30)
        assert claimed is not None
        error = error_of("unknown_kind", "it is no dataset")
        intake.invalid(session, claimed.claim, error)
    admit_waiting_jobs(service.sessions)
    failed = service.job(waiting)
    assert (failed["state"], failed["error"]["layer"]) == ("failed", "data")
    assert "it is no dataset" in failed["error"]["message"]


def test_old_idempotency_keys_are_forgotten(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    for key in ("old", "new"):
        service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key})
    with service.sessions.begin() as session:
        old = update(IdempotencyKey).where(IdempotencyKey.key == "old")
        session.execute(old.values(created_at=db_now(plus=-4 * 86400)))
    delete_old_rows(service.context)
    with service.sessions() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["new"]


def test_admitting_twice_changes_nothing(service: Served) -> None:
    job = service.submit()
    with service.sessions.begin() as session:
        assert jobs.admit_waiting(session, service.job(job)["dataset"]["id"]) == 0


def set_back(service: Served, hours: float) -> None:
    """The database's clock goes back: every time that is stored now lies that much further ahead."""
    ahead = timedelta(hours=hours)
    with service.sessions.begin() as session:
        for job in session.scalars(select(Job)):
            for name in ("lease_expires_at", "not_before"):
                if (at := getattr(job, name)) is not None:
                    setattr(job, name, at + ahead)
        for dataset in session.scalars(select(DatasetVersion)):
            if dataset.lease_expires_at is not None:
                dataset.lease_expires_at += ahead
        for house in session.scalars(select(Housekeeping)):
            house.expires_at += ahead


def test_a_clock_that_is_set_back_an_hour_holds_nothing_up(service: Served) -> None:
    lost, waiting = service.submit(), service.submit()
    claimed = lose(service)
    assert claimed.job_id == lost
    alive = service.claim(lease_seconds=30)
    assert alive.job_id == waiting
    with service.sessions.begin() as session:
        assert workers.claim_housekeeping(session, "a dead one", 10)
    set_back(service, 1)
    with service.sessions.begin() as session:
        assert workers.claim_housekeeping(session, "another", 10), "the dead one's turn does not last an hour"
    rung: list[str] = []
    expire_and_redispatch(service, rung.append, lease_seconds=0.0)
    assert service.job(lost)["state"] in ("starting", "queued")
    expire_and_redispatch(service, rung.append, lease_seconds=0.0)
    assert service.job(lost)["state"] == "queued"
    assert "train" in rung


def test_a_clock_that_is_set_back_leaves_the_living_alone(service: Served) -> None:
    job = service.submit()
    claimed = service.claim(lease_seconds=30)
    set_back(service, 1)
    expire_and_redispatch(service, lambda _: None, lease_seconds=30)
    with service.sessions.begin() as session:
        leases.renew(session, claimed.claim, 30)
    expire_and_redispatch(service, lambda _: None, lease_seconds=30)
    assert (service.job(job)["state"], service.job(job)["interruptions"]) == ("running", 0)


def test_a_clock_that_is_set_forward_makes_a_new_attempt_and_no_second_writer(service: Served) -> None:
    job = service.submit()
    claimed = service.claim(lease_seconds=30)
    set_back(service, -1)  # as if an hour had passed
    expire_and_redispatch(service, lambda _: None, lease_seconds=30)
    assert service.job(job)["state"] == "queued"
    with service.sessions.begin() as session, pytest.raises(StaleFence):
        leases.renew(session, claimed.claim, 30)
    again = service.claim()
    assert (again.job_id, again.claim.fence) == (job, claimed.claim.fence + 1)


def test_housekeeping_continues_after_a_failed_task_and_keeps_intervals(service: Served) -> None:
    calls: list[str] = []

    def fail(_context: Any) -> None:
        calls.append("broken")
        raise RuntimeError("a defect")

    tasks = (
        HousekeepingTask("broken", 3600.0, fail),
        HousekeepingTask("seldom", 3600.0, lambda _: calls.append("seldom")),
    )
    housekeeping = TaskRunner(
        service.context, (*tasks, HousekeepingTask("often", 0.0, lambda _: calls.append("often")))
    )
    assert [housekeeping.run_due() for _ in range(3)] == [1, 0, 0]
    assert calls == ["broken", "seldom", "often", "often", "often"]


def test_housekeeping_raises_when_the_database_is_away(service: Served) -> None:
    def fail(_context: Any) -> None:
        raise OperationalError("SELECT 1", {}, Exception("no connection"))

    with pytest.raises(OperationalError):
        TaskRunner(service.context, (HousekeepingTask("away", 0.0, fail),)).run_due()


def test_housekeeping_runs_every_task(service: Served) -> None:
    service.submit()
    assert TaskRunner(service.context).run_due() == 0
