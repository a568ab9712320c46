"""What a worker may say of its job, and how an attempt ends."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from service.database import db_now
from service.jobs import attempts, leases
from service.jobs.tables import Job
from tests.support.api import Served, progress_of, row

pytestmark = pytest.mark.postgresql

OUT_OF_MEMORY: dict[str, Any] = {
    "code": "out_of_memory",
    "layer": "resource",
    "message": "m",
    "evidence": {},
    "retryable": True,
    "hint": "h",
}


def fail(service: Served, claimed: leases.ClaimedJob, **changes: Any) -> str:
    with service.sessions.begin() as session:
        return attempts.fail(session, claimed.claim, {**OUT_OF_MEMORY, **changes})


def due_now(service: Served) -> None:
    with service.sessions.begin() as session:
        session.execute(update(Job).values(not_before=None))


def test_a_good_end_brings_model_result_and_evaluation_at_once(service: Served) -> None:
    job = service.submit(name="digits")
    claimed = service.claim()
    with service.sessions.begin() as session:
        attempts.note(session, claimed.claim, phase="epoch 1/20", progress=progress_of(1))
    assert (service.job(job)["phase"], service.job(job)["progress"]["percent"]) == ("epoch 1/20", 5.0)
    model = service.finish(claimed, "early_stop")
    done = service.job(job)
    assert (done["state"], done["stop_reason"], done["phase"]) == ("succeeded", "early_stop", None)
    assert done["result"] == {
        "model": model,
        "best_epoch": 1,
        "stopped_epoch": 2,
        "test": {"accuracy": 0.9, "loss": 0.1},
        "verdict": None,
    }
    assert service.client.get(f"/v1/jobs/{job}/evaluation").json()["metrics"] == {"accuracy": 0.9}
    shown = service.client.get(f"/v1/models/{model}").json()
    assert (shown["job"], shown["name"], shown["metrics"]["accuracy"]) == (job, "digits", 0.9)


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("completed", "succeeded"),
        ("early_stop", "succeeded"),
        ("target_reached", "succeeded"),
        ("client_stop", "stopped"),
        ("time_limit", "stopped"),
    ],
)
@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_how_it_stopped_decides_the_state(service: Served, reason: str, state: str) -> None:
    job = service.submit()
    service.finish(service.claim(), reason)
    assert (service.job(job)["state"], service.job(job)["stop_reason"]) == (state, reason)


def test_while_stopping_the_log_still_grows(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.client.post(f"/v1/jobs/{job}/stop")
    assert service.append(claimed, row("loss", 1.0)) == (1, 1)
    service.finish(claimed, "client_stop")
    assert service.job(job)["state"] == "stopped"


def test_retryable_failures_are_tried_again_later_and_counted(service: Served) -> None:
    job = service.submit(resources={"max_attempts": 2})
    assert fail(service, service.claim()) == "queued"
    shown = service.job(job)
    assert (shown["state"], shown["failures"], shown["error"]["code"]) == ("queued", 1, "out_of_memory")
    with service.sessions.begin() as session:
        assert leases.claim(session, "train", "w", 30) is None, "not before its pause is over"
        assert session.scalar(select(Job.not_before > db_now()))
    due_now(service)
    assert fail(service, service.claim()) == "failed"
    shown = service.job(job)
    assert (shown["state"], shown["failures"], shown["attempts"], shown["interruptions"]) == ("failed", 2, 2, 0)
    outcomes = [a["outcome"] for a in service.client.get(f"/v1/jobs/{job}/attempts").json()["data"]]
    assert outcomes == ["failed", "failed"]


def test_what_cannot_get_better_is_not_tried_again(service: Served) -> None:
    job = service.submit()
    assert fail(service, service.claim(), retryable=False) == "failed"
    assert service.job(job)["failures"] == 1


def test_success_forgets_the_error_of_earlier_attempts(service: Served) -> None:
    job = service.submit()
    fail(service, service.claim())
    due_now(service)
    service.finish(service.claim())
    assert service.job(job)["error"] is None


def test_handing_back_costs_the_job_nothing(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    with service.sessions.begin() as session:
        attempts.hand_back(session, claimed.claim, "the worker stops")
    shown = service.job(job)
    assert (shown["state"], shown["failures"], shown["interruptions"]) == ("queued", 0, 0)
    assert shown["attempts"] == len(service.client.get(f"/v1/jobs/{job}/attempts").json()["data"]) == 1
    assert service.claim().claim.fence == claimed.claim.fence + 1


@pytest.mark.parametrize("way", ["handback", "fail", "lost"])
def test_a_cancelled_job_never_comes_back(service: Served, way: str) -> None:
    job = service.submit()
    claimed = service.claim()
    service.client.post(f"/v1/jobs/{job}/cancel")
    if way == "fail":
        assert fail(service, claimed) == "cancelled"
    else:
        with service.sessions.begin() as session:
            if way == "handback":
                attempts.hand_back(session, claimed.claim, "the worker stops")
            else:
                held = leases.lock_claimed(session, claimed.claim)
                assert attempts.interrupted(session, held, "killed", 5) == "cancelled"
    assert service.job(job)["state"] == "cancelled"


def test_what_auto_chose_is_kept_for_the_next_attempt(service: Served) -> None:
    service.submit()
    claimed = service.claim()
    with service.sessions.begin() as session:
        attempts.note(session, claimed.claim, runtime={"device": "cpu", "threads": 1})
        attempts.hand_back(session, claimed.claim, "the worker stops")
    assert service.claim().runtime == {"device": "cpu", "threads": 1}


def test_pausing_lets_the_worker_go_and_resuming_goes_on(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    for _ in range(2):
        assert service.client.post(f"/v1/jobs/{job}/pause").json()["state"] == "pausing"
    with service.sessions.begin() as session:
        assert leases.renew(session, claimed.claim, 30) == {"action": "pause"}
        attempts.give_up(session, leases.lock_claimed(session, claimed.claim), "paused", "client")
    assert service.job(job)["state"] == "paused"
    with service.sessions.begin() as session:
        assert leases.claim(session, "train", "w", 30) is None
    assert service.client.post(f"/v1/jobs/{job}/resume").json()["state"] == "queued"
    again = service.claim()
    assert (again.claim.fence, again.requested_action) == (2, None)
    assert service.client.post(f"/v1/jobs/{job}/resume").json()["state"] == "running", "already going on"


@pytest.mark.parametrize("way", ["handback", "fail", "lost"])
def test_an_attempt_that_dies_while_pausing_is_paused(service: Served, way: str) -> None:
    job = service.submit()
    claimed = service.claim()
    service.client.post(f"/v1/jobs/{job}/pause")
    if way == "fail":
        assert fail(service, claimed) == "paused"
    else:
        with service.sessions.begin() as session:
            if way == "handback":
                attempts.hand_back(session, claimed.claim, "the worker stops")
            else:
                attempts.interrupted(session, leases.lock_claimed(session, claimed.claim), "killed", 5)
    assert service.job(job)["state"] == "paused"
    service.client.post(f"/v1/jobs/{job}/resume")
    due_now(service)
    assert service.claim().requested_action is None


def test_files_are_listed_and_served_as_harmless(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    path = service.context.storage.new_part()
    path.write_bytes(b"<script>alert(1)</script>")
    key = f"artifacts/{job}/1-notes.html"
    service.context.storage.put_file(key, path)
    file = attempts.StoredFile("notes.html", key, "text/html", 25)
    with service.sessions.begin() as session:
        attempts.save_artifact(session, claimed.claim, file)
        attempts.save_artifact(session, claimed.claim, file)
    assert [a["name"] for a in service.client.get(f"/v1/jobs/{job}/artifacts").json()["data"]] == [
        "notes.html",
        "spec.yaml",
    ]
    answer = service.client.get(f"/v1/jobs/{job}/artifacts/notes.html")
    assert answer.content == b"<script>alert(1)</script>"
    assert (answer.headers["x-content-type-options"], answer.headers["content-security-policy"]) == (
        "nosniff",
        "sandbox",
    )
    assert service.client.get(f"/v1/jobs/{job}/artifacts/other").status_code == 404
    assert service.client.get(f"/v1/jobs/{job}/artifacts/..%2F..%2Fmigrated.db").status_code == 404


@pytest.mark.parametrize(("stop_reason", "epoch", "step"), [("completed", 20, 200), ("early_stop", 7, 66)])
def test_progress_of_a_job_with_a_result_is_complete(service: Served, stop_reason: str, epoch: int, step: int) -> None:
    job = service.submit()
    claimed = service.claim()
    reported = progress_of(6, step=66, percent=33.0, eta_seconds=9.0)
    with service.sessions.begin() as session:
        attempts.note(session, claimed.claim, progress=reported)
    assert service.job(job)["progress"]["percent"] == 33.0
    service.finish(claimed)
    with service.sessions.begin() as session:
        row = session.get_one(Job, job)
        row.stop_reason, row.result = stop_reason, {**(row.result or {}), "stopped_epoch": epoch}
    shown = service.job(job)
    assert shown["progress"] == {**reported, "percent": 100.0, "eta_seconds": 0.0, "epoch": epoch, "step": step}
    assert shown["attempts"] == len(service.client.get(f"/v1/jobs/{job}/attempts").json()["data"]) == 1
