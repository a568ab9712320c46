"""What is kept no longer goes, with its files, from ended jobs alone; and every answer says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.background.orphans import remove_orphans
from service.background.retention import apply_retention
from service.database import db_now
from service.jobs import attempts
from service.jobs import repository as jobs_repository
from service.jobs.leases import ClaimedJob
from service.jobs.tables import Job
from service.settings import Settings
from tests.support.api import Served, post_job, read_stream, record_checkpoint, row

pytestmark = pytest.mark.postgresql

AT_ONCE = -1.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, checkpoints_days=30, checkpoints_kept=1, logs_days=90, metrics_days=200)


def files(service: Served, folder: str) -> set[str]:
    root = service.context.storage.root
    return {str(path.relative_to(root)) for path in (root / folder).rglob("*") if path.is_file()}


def retain(service: Served) -> None:
    apply_retention(service.sessions, service.context.storage, service.context.settings)


def stored(service: Served, key: str) -> Path:
    path = service.context.storage.local_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def aged(service: Served, job: str, days: float) -> None:
    with service.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job).values(finished_at=db_now(plus=-days * 86400)))


def running(service: Served) -> tuple[str, ClaimedJob]:
    """A job with everything that can be removed."""
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0), row("loss", 0.5, 2))
    service.say(claimed, "one", "two", "three")
    key = f"artifacts/{job}/1-log.txt"
    stored(service, key)
    with service.sessions.begin() as session:
        attempts.save_artifact(session, claimed.claim, attempts.StoredFile("log.txt", key, "text/plain", 1))
    record_checkpoint(service, claimed, 1)
    record_checkpoint(service, claimed, 2)
    return job, claimed


def ended(service: Served, days: float) -> str:
    job, claimed = running(service)
    service.finish(claimed, stop_reason="early_stop")
    aged(service, job, days)
    return job


def events(service: Served, job: str) -> list[dict[str, Any]]:
    found = service.client.get(f"/v1/jobs/{job}/events").json()["data"]
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    return [event for event in found if event["kind"] == "retention"]


def get(service: Served, job: str, path: str) -> tuple[int, Any]:
    answer = service.client.get(f"/v1/jobs/{job}{path}")
    return answer.status_code, answer.json() if "json" in answer.headers["content-type"] else answer.text


def test_older_checkpoints_go_first_and_the_newest_stays(service: Served) -> None:
    job, young = ended(service, 31), ended(service, 29)
    before = service.job(job)["updated_at"]
    for _ in range(2):
        retain(service)
    assert {file for file in files(service, "checkpoints") if job in file} == {f"checkpoints/{job}/1/2"}
    assert len([file for file in files(service, "checkpoints") if young in file]) == 2
    (event,) = events(service, job)
    assert (event["actor"], event["data"], event["from"], event["to"]) == (
        "housekeeping",
        {"checkpoints": 1},
        None,
        None,
    )
    assert event["reason"] == "removed 1 checkpoint"
    shown = service.job(job)
    assert set(shown["purged"]) == {"checkpoints"}
    assert shown["updated_at"] > before
    assert get(service, job, "/logs")[0] == 200
    assert events(service, young) == []
    assert service.job(young)["purged"] is None
    resumed = post_job(service, f"{job}/resume", {"extra_epochs": 2})
    assert (resumed.status_code, resumed.json()["parent"]["step"]) == (201, 2)


def test_logs_and_metrics_are_gone_with_a_reason(service: Served) -> None:
    job = ended(service, 201)
    retain(service)
    retain(service)
    (event,) = events(service, job)
    assert event["data"] == {"checkpoints": 1, "logs": 3, "metrics": 2}
    assert files(service, "artifacts") == set()
    for path, reason in (
        ("/logs", "logs_days"),
        ("/logs?format=json&wait=5", "logs_days"),
        ("/metrics?wait=5", "metrics_days"),
        ("/metrics/series", "metrics_days"),
        ("/metrics.csv", "metrics_days"),
        ("/plots/curves.png", "metrics_days"),
    ):
        status, problem = get(service, job, path)
        assert (status, problem["code"], problem["removed_at"] is not None) == (410, "removed", True), path
        assert reason in problem["detail"]
        assert problem["removed_at"] == service.job(job)["purged"]["logs" if "logs" in path else "metrics"]["at"]
    assert get(service, job, "/decisions")[0] == get(service, job, "/evaluation")[0] == 200
    messages = read_stream(service, job)
    assert [kind for kind, _, _ in messages] == ["event"] * 5 + ["end"]
    for place, (_, identifier, _) in enumerate(messages[:-1]):
        assert read_stream(service, job, headers={"Last-Event-ID": identifier}) == messages[place + 1 :]


def test_a_job_that_has_not_ended_is_never_touched(service: Served) -> None:
    jobs = []
    for state in ("running", "paused", "queued"):
        job, claimed = running(service)
        if state == "paused":
            with service.sessions.begin() as session:
                session.execute(update(Job).where(Job.id == job).values(state="pausing"))
                attempts.hand_back(session, claimed.claim, "x")
        elif state == "queued":
            with service.sessions.begin() as session:
                attempts.hand_back(session, claimed.claim, "x")
        aged(service, job, 1000)
        jobs.append(job)
        stored(service, f"checkpoints/{job}/stray")
    before = files(service, "checkpoints")
    object.__setattr__(service.context.settings, "jobs_days", 1)
    retain(service)
    remove_orphans(service.sessions, service.context.storage, AT_ONCE)
    assert files(service, "checkpoints") == before
    for job in jobs:
        assert (service.job(job)["purged"], events(service, job)) == (None, [])
        assert get(service, job, "/logs")[0] == get(service, job, "/metrics")[0] == 200


def test_a_project_has_rules_of_its_own(service: Served) -> None:
    (project,) = service.client.get("/v1/projects").json()["data"]
    wish = {"checkpoints_days": 1, "checkpoints_kept": 0, "logs_days": None, "metrics_days": 1}
    answer = service.client.patch(f"/v1/projects/{project['id']}", json={"settings": wish})
    assert answer.status_code == 200, answer.text
    job = ended(service, 500)
    retain(service)
    assert set(service.job(job)["purged"]) == {"checkpoints", "metrics"}
    assert files(service, "checkpoints") == set()
    assert get(service, job, "/logs")[0] == 200


def test_going_on_from_a_removed_checkpoint_is_refused_with_the_reason(service: Served) -> None:
    object.__setattr__(service.context.settings, "checkpoints_kept", 0)
    job = ended(service, 31)
    fork = post_job(service, f"{job}/fork", {"patch": {"name": "f"}}).json()["id"]
    retain(service)
    for action, body in (("fork", {"patch": {}}), ("resume", {"extra_epochs": 1})):
        answer = post_job(service, f"{job}/{action}", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_removed")
        assert "checkpoints_days" in answer.json()["detail"]
    assert post_job(service, f"{job}/retry").status_code == 201
    # a branch that waits has the bytes under a name of its own
    remove_orphans(service.sessions, service.context.storage, AT_ONCE)
    with service.sessions() as session:
        (checkpoint,) = jobs_repository.checkpoints(session, fork)
    assert service.context.storage.open(checkpoint.storage_key).read() == b"state at 2"
    assert files(service, "checkpoints") == {checkpoint.storage_key}


def test_a_checkpoint_that_is_lost_without_retention_is_said_too(service: Served) -> None:
    job = ended(service, 1)
    for file in files(service, "checkpoints"):
        (service.context.storage.root / file).unlink()
    answer = post_job(service, f"{job}/resume", {"extra_epochs": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_checkpoint")


def test_whole_jobs_go_at_last_and_their_models_stay(service: Served) -> None:
    object.__setattr__(service.context.settings, "jobs_days", 300)
    job = ended(service, 301)
    kept = ended(service, 299)
    retain(service)
    assert service.client.get(f"/v1/jobs/{job}").status_code == 404
    assert service.client.get(f"/v1/jobs/{kept}").status_code == 200
    assert not [file for file in files(service, "") if job in file]
    assert len(service.client.get("/v1/models").json()["data"]) == 2


def test_several_at_once_take_everything_once(service: Served) -> None:
    jobs = [ended(service, 201) for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(retain, service) for _ in range(3)]:
            done.result()
    for job in jobs:
        (event,) = events(service, job)
        assert event["data"] == {"checkpoints": 1, "logs": 3, "metrics": 2}


def test_orphans_are_found_when_they_are_old(service: Served) -> None:
    job = ended(service, 1)
    storage = service.context.storage
    for key in (f"models/{job}/1/model.json", f"artifacts/{job}/1-plot.png"):
        stored(service, key)
    kept = files(service, "checkpoints") | {f"artifacts/{job}/1-log.txt", f"models/{job}/1/model.json"}
    orphans = [
        f"checkpoints/{job}/1-9-abc",
        "checkpoints/job_gone/0/7",
        "artifacts/job_gone/1-log.txt",
        f"models/{job}/7/model.json",
        "models/job_gone/1/model.json",
    ]
    for key in orphans:
        stored(service, key)
    stored(service, "checkpoints/notes.txt")
    remove_orphans(service.sessions, storage, 3600)
    assert all((storage.root / key).exists() for key in orphans), "young files are left alone"
    remove_orphans(service.sessions, storage, AT_ONCE)
    remove_orphans(service.sessions, storage, AT_ONCE)
    found = files(service, "checkpoints") | files(service, "artifacts") | files(service, "models")
    assert found == kept | {"checkpoints/notes.txt"}
    assert not (storage.root / "checkpoints" / "job_gone").exists()
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    remove_orphans(service.sessions, storage, AT_ONCE)
    assert files(service, "models") == {f"models/{job}/1/model.json"}, "a model outlives its job"
    assert not (storage.root / "checkpoints" / job).exists()
