"""Many webhooks to one failing host: few of them, few attempts, and nobody else waits for them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from service.database import db_now
from service.outbox.tables import WebhookCircuit, WebhookDelivery
from service.webhooks import delivery_queue
from service.webhooks.service import delete_old_deliveries
from service.webhooks.target_policy import host_of
from tests.support.api import Served, assert_problem
from tests.support.webhook_receiver import deliveries, hook, let_pass, receiving, send_due

pytestmark = pytest.mark.postgresql
DAY = 86400.0


def queue_one_each(service: Served, webhooks: list[dict[str, Any]]) -> None:
    for webhook in webhooks:
        assert service.client.post(f"/v1/webhooks/{webhook['id']}/test").status_code == 202


def allow(service: Served, **settings: int) -> None:
    for name, value in settings.items():
        object.__setattr__(service.context.settings, name, value)


def test_fifty_webhooks_to_a_failing_host_make_as_many_attempts_a_day_as_one(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 webhooks tried 13 times each: 650 attempts in a day for one event."""
    monkeypatch.setattr(delivery_queue, "JITTER", 0.0)
    allow(service, max_webhooks_per_host=0)
    with receiving() as receiver:
        receiver.says(503)
        webhooks = [hook(service, f"{receiver.url}?n={number}") for number in range(12)]
        queue_one_each(service, webhooks)
        passed = 0.0
        while passed < DAY:
            send_due(service)
            with service.sessions.begin() as session:
                (circuit,) = session.query(WebhookCircuit).all()
                assert circuit.open_until is not None
            passed += cool_down(service)
        # the first ones that are under way together, then one for each time that the circuit lets one pass
        assert len(receiver.got) < 50 < 12 * 13
        receiver.says(200)
        cool_down(service)
        send_due(service)
        with service.sessions.begin() as session:
            assert session.query(WebhookCircuit).all() == [], "one answer, and the others follow"
        let_pass(service)
        send_due(service)
        states = {shown["state"] for webhook in webhooks for shown in deliveries(service, webhook["id"])}
        assert states <= {"delivered", "failed"}
        assert "delivered" in states


def cool_down(service: Served) -> float:
    """Let the time pass until the circuit lets an attempt pass; returns the seconds."""
    with service.sessions.begin() as session:
        from service.database import db_time

        (circuit,) = session.query(WebhookCircuit).all()
        assert circuit.open_until is not None
        now = db_time(session)
        by = max(circuit.open_until - now, now - now)
        circuit.open_until = now
        for row in session.query(WebhookDelivery).filter_by(state="pending"):
            row.next_attempt_at = row.next_attempt_at and row.next_attempt_at - by
            row.first_attempt_at = row.first_attempt_at and row.first_attempt_at - by
    return by.total_seconds()


def test_another_project_reaches_the_same_host_all_the_time(service: Served) -> None:
    """Else whoever sends nonsense to a host that many use would cut all others off from it."""
    other = service.client_for("other")
    with receiving() as receiver:
        receiver.says(404)
        webhook = hook(service, receiver.url)
        queue_one_each(service, [webhook] * 5)
        for _ in range(delivery_queue.FAILURES_TO_OPEN):
            send_due(service)
            with service.sessions.begin() as session:
                session.execute(update(WebhookDelivery).values(next_attempt_at=db_now()))
        assert send_due(service) == 0, "cut off"
        receiver.says(200)
        stranger = other.post("/v1/webhooks", json={"url": receiver.url}).json()
        other.post(f"/v1/webhooks/{stranger['id']}/test")
        assert send_due(service) == 1
        (shown,) = other.get(f"/v1/webhooks/{stranger['id']}/deliveries").json()["data"]
        assert shown["state"] == "delivered"


def test_what_waited_a_day_for_a_failing_host_has_failed_and_says_why(service: Served) -> None:
    webhook, sound = hook(service, "http://127.0.0.1:9/hook"), hook(service, "http://127.0.0.1:19/hook")
    queue_one_each(service, [webhook, sound])
    with service.sessions.begin() as session:
        session.execute(update(WebhookDelivery).values(next_attempt_at=db_now(plus=-DAY - 60)))
    owner = service.client.get("/v1/projects").json()["data"][0]["id"]
    with service.sessions.begin() as session:
        cut_off = {"project_id": owner, "host": "127.0.0.1:9", "failures": 9, "open_until": db_now(plus=600)}
        session.execute(WebhookCircuit.__table__.insert().values(**cut_off))
    delete_old_deliveries(service.sessions)
    (shown,), (waiting,) = deliveries(service, webhook["id"]), deliveries(service, sound["id"])
    assert (shown["state"], shown["error"]) == ("failed", delivery_queue.CUT_OFF)
    assert waiting["state"] == "pending", "the service was away for a day: this one is still to be sent"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.org/a", "example.org:443"),
        ("https://example.org.:443/b?c", "example.org:443"),
        ("http://example.org", "example.org:80"),
        ("https://example.org:8443/", "example.org:8443"),
        ("https://[2606:4700::1111]/", "2606:4700::1111:443"),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host


def test_a_project_has_so_many_webhooks_to_one_host(service: Served) -> None:
    allow(service, max_webhooks_per_host=2)
    first = hook(service, "http://127.0.0.1:8001/a")
    hook(service, "http://127.0.0.1:8001/b")
    refused = service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:8001/c"})
    assert "127.0.0.1:8001" in assert_problem(refused, 409, "too_many_webhooks")["detail"]
    elsewhere = hook(service, "http://127.0.0.1:8002/a")
    moved = {"url": "http://127.0.0.1:8001/c"}
    assert_problem(service.client.patch(f"/v1/webhooks/{elsewhere['id']}", json=moved), 409, "too_many_webhooks")
    assert service.client.patch(f"/v1/webhooks/{first['id']}", json=moved).status_code == 200, "it is one of the two"
