"""Workers say that they are alive; one of them keeps house."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from service.database import db_now
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
        remove_silent(session)
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
