"""What is told: each event that is committed, once, to whom it concerns; thresholds once a job."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sqlalchemy

from service.background.lease_expiry import expire_leases
from service.jobs import attempts
from service.jobs.tables import Job
from service.jobs.transitions import transition
from service.metrics import service as metrics
from service.outbox import repository
from service.outbox import service as outbox
from service.outbox.tables import WebhookCrossing, WebhookDelivery
from tests.support.api import Served, row
from tests.support.webhook_receiver import deliveries, detail, hook

pytestmark = pytest.mark.postgresql

URL = "http://127.0.0.1:9/hook"


def kinds(service: Served, webhook: dict[str, Any]) -> list[str]:
    return [one["type"] for one in deliveries(service, webhook["id"])]


def test_every_change_of_a_job_is_told_as_its_events_stand(service: Served) -> None:
    every, ends = hook(service, URL), hook(service, URL, events=["job.succeeded", "job.failed"])
    job = service.submit(name="first", labels={"team": "vision"})
    service.finish(service.claim())
    events = service.client.get(f"/v1/jobs/{job}/events").json()["data"]
    payloads = [detail(service, one)["payload"] for one in deliveries(service, every["id"])]
    assert [one["type"] for one in payloads] == ["job.queued", "job.starting", "job.running", "job.succeeded"]
    for event, one in zip(events, payloads, strict=True):
        assert {name: one["data"]["event"][name] for name in ("seq", "from", "to", "reason")} == {
            name: event[name] for name in ("seq", "from", "to", "reason")
        }
        assert one["timestamp"] == one["data"]["event"]["at"]
        assert one["timestamp"][:23] == event["at"][:23], "the time of the event, in milliseconds"
        assert one["data"]["job"]["state"] == event["to"]
    assert payloads[-1]["data"]["job"] == {
        "id": job,
        "name": "first",
        "state": "succeeded",
        "stop_reason": "completed",
        "error_code": None,
        "labels": {"team": "vision"},
        "url": f"/v1/jobs/{job}",
    }
    assert kinds(service, ends) == ["job.succeeded"]


def test_ends_that_housekeeping_and_clients_bring_are_told_too(service: Served) -> None:
    webhook = hook(service, URL, events=["job.failed", "job.cancelled", "job.stopped"])
    service.submit()
    lost = service.claim(lease_seconds=-1)
    expire_leases(service.sessions, 0)
    (failed,) = deliveries(service, webhook["id"])
    assert (failed["type"], failed["job"]) == ("job.failed", lost.job_id)
    assert detail(service, failed)["payload"]["data"]["job"]["error_code"] == "worker_lost"
    service.client.post(f"/v1/jobs/{service.submit()}/cancel")
    stopped = service.submit()
    claimed = service.claim()
    service.client.post(f"/v1/jobs/{stopped}/stop")
    service.finish(claimed, "client_stop")
    assert kinds(service, webhook) == ["job.failed", "job.cancelled", "job.stopped"]


def test_what_is_not_committed_is_not_told(service: Served) -> None:
    webhook = hook(service, URL)
    job = service.submit()
    with service.sessions() as session:
        transition(session, session.get_one(Job, job), "cancelled", actor="test")
        assert session.query(WebhookDelivery).filter_by(type="job.cancelled").count() == 1
        session.rollback()
    assert (kinds(service, webhook), service.job(job)["state"]) == (["job.queued"], "queued")
    with service.sessions.begin() as session:
        one = session.get_one(Job, job)
        session.expunge(one)
        assert transition(session, session.get_one(Job, job), "cancelled", actor="test")
        assert not transition(session, one, "cancelled", actor="too late"), "who loses the race tells nothing"
    assert kinds(service, webhook) == ["job.queued", "job.cancelled"]


def test_only_the_jobs_it_is_about(service: Served) -> None:
    job_id = service.submit(labels={"team": "vision", "stage": "ci"})
    of_job = hook(service, URL, job=job_id)
    of_labels = hook(service, URL, labels={"team": "vision", "stage": "ci"})
    off = hook(service, URL)
    service.client.patch(f"/v1/webhooks/{off['id']}", json={"active": False})
    other = service.submit(labels={"team": "vision"})
    stranger = service.client_for("another")
    other_webhook = stranger.post("/v1/webhooks", json={"url": URL}).json()
    for job in (job_id, other):
        service.client.post(f"/v1/jobs/{job}/cancel")
    for webhook in (of_job, of_labels):
        assert [(one["job"], one["type"]) for one in deliveries(service, webhook["id"])] == [(job_id, "job.cancelled")]
    assert kinds(service, off) == []
    assert stranger.get(f"/v1/webhooks/{other_webhook['id']}/deliveries").json()["data"] == []


def test_a_deleted_job_is_still_told_of(service: Served) -> None:
    webhook = hook(service, URL, events=["job.cancelled"], thresholds=[{"metric": "val_loss", "below": 1}])
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 0.5))
    service.client.post(f"/v1/jobs/{job}/cancel")
    with service.sessions.begin() as session:
        attempts.cancelled(session, claimed.claim)
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert [(one["job"], one["state"]) for one in deliveries(service, webhook["id"])] == [(job, "pending")] * 2
    with service.sessions() as session:
        assert session.query(WebhookCrossing).count() == 0


def test_a_webhook_that_is_deleted_meanwhile_costs_no_job_its_change(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed, stays = hook(service, URL), hook(service, URL)
    job = service.submit()
    subscriptions = repository.subscriptions

    def seen_and_then_deleted(session: Any, project: str) -> Any:
        found = subscriptions(session, project)
        if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
            service.client.delete(f"/v1/webhooks/{doomed['id']}")
        return found

    monkeypatch.setattr(repository, "subscriptions", seen_and_then_deleted)
    assert service.client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    assert service.job(job)["state"] == "cancelled"
    assert kinds(service, stays) == ["job.queued", "job.cancelled"]


THRESHOLDS = [{"metric": "val_accuracy", "above": 0.9}, {"metric": "val_loss", "below": 0.25}]


def test_a_threshold_is_told_once_at_the_first_row_beyond_it(service: Served) -> None:
    webhook = hook(service, URL, events=[], thresholds=THRESHOLDS)
    job = service.submit(name="first")
    claimed = service.claim()
    service.append(claimed, row("accuracy", 0.9, 1), row("loss", 0.25, 1), row("accuracy", 0.99, 1, "train"))
    service.append(claimed, row("accuracy", math.nan, 2), row("loss", -math.nan, 2))
    assert kinds(service, webhook) == [], "equal is not beyond, training is not validation, NaN is nowhere"
    service.append(claimed, row("lr", 0.1, 3, "train"), row("accuracy", 0.91, 3), row("accuracy", 0.95, 4))
    service.append(claimed, row("accuracy", 0.97, 5), row("accuracy", 0.2, 6), row("accuracy", 0.98, 7))
    (one,) = deliveries(service, webhook["id"])
    payload = detail(service, one)["payload"]
    assert (one["type"], one["job"], payload["type"]) == ("job.metric_threshold", job, "job.metric_threshold")
    event = payload["data"]["event"]
    assert (event["metric"], event["above"], event["value"]) == ("val_accuracy", 0.9, 0.91)
    assert (event["step"], event["epoch"], event["seq"]) == (3, 3, 7)
    logged = service.client.get(f"/v1/jobs/{job}/metrics?after=6&limit=1").json()["data"][0]
    assert (logged["seq"], logged["value"], logged["at"][:23]) == (7, 0.91, event["at"][:23])
    assert (payload["data"]["job"]["id"], payload["data"]["job"]["state"]) == (job, "running")
    service.append(claimed, row("loss", 0.2, 8))
    assert [
        detail(service, d)["payload"]["data"]["event"].get("below") for d in deliveries(service, webhook["id"])
    ] == [
        None,
        0.25,
    ]


def test_rows_that_are_run_again_tell_nothing_twice_and_each_job_for_itself(service: Served) -> None:
    webhook = hook(service, URL, events=[], thresholds=THRESHOLDS)
    first = service.submit()
    claimed = service.claim(lease_seconds=-1)
    service.append(claimed, row("accuracy", 0.5, 1), row("accuracy", 0.95, 2))
    expire_leases(service.sessions, 5)
    again = service.claim()
    with service.sessions.begin() as session:
        metrics.supersede_after(session, again.claim, 1)
    service.append(again, row("accuracy", 0.95, 2))
    service.submit()
    second = service.claim()
    service.append(second, row("accuracy", 0.96, 1))
    assert [one["job"] for one in deliveries(service, webhook["id"])] == [first, second.job_id]


def test_infinity_lies_beyond_and_json_can_say_so(service: Served) -> None:
    webhook = hook(service, URL, events=[], thresholds=[{"metric": "train_loss", "above": 1000}])
    service.submit()
    service.append(service.claim(), row("loss", math.inf, 1, "train"))
    (one,) = deliveries(service, webhook["id"])
    event = detail(service, one)["payload"]["data"]["event"]
    assert (event["value"], event["nonfinite"]) == (None, "inf")


def test_a_threshold_that_is_changed_is_another_one(service: Served) -> None:
    webhook = hook(service, URL, events=[], thresholds=THRESHOLDS[:1])
    service.submit()
    claimed = service.claim()
    service.append(claimed, row("accuracy", 0.95, 1))
    for thresholds in ([{"metric": "val_accuracy", "above": 0.97}], THRESHOLDS[:1]):
        service.client.patch(f"/v1/webhooks/{webhook['id']}", json={"thresholds": thresholds})
        service.append(claimed, row("accuracy", 0.96, 2))
    assert len(deliveries(service, webhook["id"])) == 1
    service.client.patch(
        f"/v1/webhooks/{webhook['id']}", json={"thresholds": [{"metric": "val_accuracy", "above": 0.97}]}
    )
    service.append(claimed, row("accuracy", 0.98, 3))
    assert len(deliveries(service, webhook["id"])) == 2


def test_a_flush_that_is_not_committed_crosses_nothing(service: Served) -> None:
    webhook = hook(service, URL, events=[], thresholds=THRESHOLDS)
    service.submit()
    claimed = service.claim()
    with service.sessions() as session:
        metrics.append(session, claimed.claim, [row("accuracy", 0.95)])
        assert session.query(WebhookCrossing).count() == 1
        session.rollback()
    assert kinds(service, webhook) == []
    service.append(claimed, row("accuracy", 0.95))
    assert kinds(service, webhook) == ["job.metric_threshold"]


def test_thresholds_look_at_the_jobs_they_are_about_only(service: Served) -> None:
    webhook = hook(service, URL, events=[], thresholds=THRESHOLDS, labels={"team": "vision"})
    service.submit()
    service.append(service.claim(), row("accuracy", 0.95))
    assert kinds(service, webhook) == []
    service.submit(labels={"team": "vision"})
    service.append(service.claim(), row("accuracy", 0.95))
    assert kinds(service, webhook) == ["job.metric_threshold"]


def test_who_watches_nothing_pays_one_look_a_flush(service: Served) -> None:
    hook(service, URL)
    service.submit()
    claimed = service.claim()
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(service.context.engine, "before_cursor_execute", note)
    service.append(claimed, row("accuracy", 0.95))
    sqlalchemy.event.remove(service.context.engine, "before_cursor_execute", note)
    assert len([statement for statement in statements if "webhook" in statement]) == 1


def test_names_tell_thresholds_apart() -> None:
    assert outbox.threshold_key({"metric": "val_f1", "above": 1}) == outbox.threshold_key(
        {"metric": "val_f1", "above": 1.0}
    )
    assert outbox.threshold_key({"metric": "val_f1", "above": 1}) == "val_f1 > 1.0"
    assert outbox.threshold_key({"metric": "val_f1", "below": 1e-7}) == "val_f1 < 1e-07"
