"""Workers say that they are alive; one of them keeps house."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from service.database import db_now
from service.jobs import attempts, leases
from service.jobs.tables import Job
from service.roles import Role
from service.workers.names import worker_alias
from service.workers.repository import alive, claim_housekeeping, record_heartbeat, remove, remove_silent
from service.workers.tables import Worker
from tests.support.api import Served

ABOUT: dict[str, Any] = {
    "host": "node-1",
    "pid": 42,
    "queues": ["train"],
    "slots": 1,
    "device": "cpu",
    "versions": {"python": "3.11"},
}


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_only_an_operator_sees_hosts_and_processes(service: Served, role: Role) -> None:
    with service.sessions.begin() as session:
        versions = {"python": "3.11", "confinement": "seccomp"}
        record_heartbeat(session, "node-1/42", **{**ABOUT, "versions": versions})
    (worker,) = service.client_for("default", role).get("/v1/workers").json()["data"]
    assert (worker["host"], worker["pid"]) == (None, None)
    assert worker["id"] == worker_alias("node-1/42")
    assert worker["versions"] == {"python": "3.11"}
    (seen,) = service.client_for("default", "viewer", "operator").get("/v1/workers").json()["data"]
    assert (seen["id"], seen["host"], seen["pid"], seen["versions"]) == ("node-1/42", "node-1", 42, versions)


def test_answers_about_a_job_name_no_host(service: Served) -> None:
    """Events, attempts, errors and log lines; also with the key of an operator, who has the worker's log."""
    job = service.submit()
    with service.sessions.begin() as session:
        claimed = leases.claim(session, "train", "secret-host/4711", 30)
        assert claimed is not None
        attempts.interrupted(session, session.get_one(Job, job), "lost", 0)
    texts = [service.client.get(f"/v1/jobs/{job}{path}").text for path in ("", "/events", "/attempts")]
    assert not [text for text in texts if "secret-host" in text or "4711" in text]
    assert worker_alias("secret-host/4711") in texts[1]
    assert service.client.get(f"/v1/jobs/{job}/attempts").json()["data"][0]["worker"] == worker_alias(
        "secret-host/4711"
    )


def test_workers_are_listed_while_they_are_seen(service: Served) -> None:
    for name in ("a", "b", "b"):
        with service.sessions.begin() as session:
            record_heartbeat(session, name, **ABOUT)
    listed = service.client.get("/v1/workers").json()["data"]
    assert [(w["id"], w["host"], w["queues"]) for w in listed] == [
        ("a", "node-1", ["train"]),
        ("b", "node-1", ["train"]),
    ]
    with service.sessions.begin() as session:
        remove(session, "a")
        session.execute(update(Worker).where(Worker.id == "b").values(seen_at=db_now(plus=-60)))
    assert service.client.get("/v1/workers").json()["data"] == []
    with service.sessions.begin() as session:
        assert session.get(Worker, "b") is not None
        session.execute(update(Worker).values(seen_at=db_now(plus=-7200)))
        remove_silent(session, 100)
    with service.sessions() as session:
        assert session.get(Worker, "b") is None
        assert alive(session) == []


def test_one_keeps_house_at_a_time(service: Served) -> None:
    def take(owner: str, seconds: float) -> bool:
        with service.sessions.begin() as session:
            return claim_housekeeping(session, owner, seconds)

    assert take("a", 30)
    assert not take("b", 30)
    assert take("a", -1), "its own turn may be renewed"
    assert take("b", 30), "a turn that is over goes to whoever asks"
    assert not take("a", 30)


def test_a_worker_shows_what_it_trains(service: Served) -> None:
    """Slots count for all projects; jobs are named to their own project alone."""
    job = service.submit()
    with service.sessions.begin() as session:
        record_heartbeat(session, "node-1/42", **ABOUT)
        record_heartbeat(session, "node-1/43", **ABOUT)
        assert leases.claim(session, "train", "node-1/42", 30) is not None
    busy, idle = service.client.get("/v1/workers").json()["data"]
    name = service.client.get(f"/v1/jobs/{job}").json()["name"]
    assert (busy["busy_slots"], busy["jobs"]) == (1, [{"id": job, "name": name, "state": "starting"}])
    assert (idle["busy_slots"], idle["jobs"]) == (0, [])
    other, _ = service.client_for("another", "viewer").get("/v1/workers").json()["data"]
    assert (other["busy_slots"], other["jobs"]) == (1, [])
