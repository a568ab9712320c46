"""Mirrors in tests: make one, copy what is due, look at how far it has come."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from service.database import db_now
from service.mirrors.sender import MirrorSender
from service.outbox.tables import MirroredJob, WebhookCircuit
from service.secret_box import SecretBox
from service.webhooks.target_policy import TargetPolicy
from tests.support.api import Served


def create_mirror(service: Served, **fields: Any) -> dict[str, Any]:
    """Create a mirror; its answer."""
    answer = service.client.post("/v1/mirrors", json={"kind": "mlflow", **fields})
    assert answer.status_code == 201, answer.text
    mirror: dict[str, Any] = answer.json()
    return mirror


def mirror_sender(service: Served) -> MirrorSender:
    """A new sender: what it knows it has from the database."""
    box = SecretBox(service.context.settings)
    return MirrorSender(service.context, TargetPolicy(("127.0.0.1",)), box)


def copy_due(service: Served) -> int:
    """A new sender copies all that is due, however soon it was copied before; returns how many copies it began."""
    sender, begun = mirror_sender(service), 0
    with service.sessions.begin() as session:
        soon = MirroredJob.next_attempt_at < db_now(plus=3)
        session.execute(update(MirroredJob).where(soon).values(next_attempt_at=db_now()))
    while started := sender.start_due():
        begun += started
        assert sender.drain(120)
    return begun


def let_retry(service: Served) -> None:
    """The time of every pause is over."""
    with service.sessions.begin() as session:
        session.execute(update(WebhookCircuit).values(open_until=db_now()))
        due = update(MirroredJob).where(MirroredJob.state == "pending")
        session.execute(due.values(next_attempt_at=db_now(), claimed_until=None))


def mirrored(service: Served, mirror: dict[str, Any], job: str) -> dict[str, Any]:
    """How far a job has come."""
    answer = service.client.get(f"/v1/mirrors/{mirror['id']}/jobs/{job}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown
