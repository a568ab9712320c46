"""Webhooks over HTTP: made, changed, listed, refused; secrets shown once; strangers see nothing."""

from __future__ import annotations

import base64
from typing import Any, get_args

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.database import db_now
from service.jobs.states import State
from service.outbox.tables import WebhookAttempt, WebhookDelivery
from service.webhooks import service as webhooks
from service.webhooks.schemas import EventName
from tests.support.api import Served, assert_problem
from tests.support.webhook_receiver import Receiver, deliveries, detail, hook, receiving, send_due

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
URL = "http://127.0.0.1:9/hook"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def test_every_state_has_an_event() -> None:
    states = {f"job.{state}" for state in get_args(State)}
    assert set(get_args(EventName)) == states | {"*", "job.*", "job.metric_threshold"}


def test_a_webhook_is_made_shown_changed_and_deleted(service: Served) -> None:
    answer = service.client.post("/v1/webhooks", json={"url": URL, "description": "ci"})
    assert answer.status_code == 201
    webhook = answer.json()
    assert answer.headers["location"] == f"/v1/webhooks/{webhook['id']}"
    assert webhook["id"].startswith("wh_")
    assert len(base64.b64decode(webhook["secret"].removeprefix("whsec_"))) == 32
    assert (webhook["events"], webhook["thresholds"], webhook["active"], webhook["labels"]) == (["job.*"], [], True, {})
    place = f"/v1/webhooks/{webhook['id']}"
    shown = service.client.get(place).json()
    assert shown == {name: value for name, value in webhook.items() if name != "secret"}
    assert webhook["secret"] not in service.client.get("/v1/webhooks").text
    job = service.submit()
    sides = dict.fromkeys(("above", "at_least", "at_most"))
    changes: dict[str, Any] = {
        "format": "slack",
        "events": ["job.failed"],
        "thresholds": [{"metric": "val_loss", "below": 0.5, **sides}],
        "labels": {"team": "vision"},
        "job": job,
        "active": False,
        "url": URL + "/2",
        "description": "",
    }
    changed = service.client.patch(place, json=changes).json()
    assert {name: changed[name] for name in changes} == changes
    assert changed["disabled_reason"] == "a client disabled it"
    changed = service.client.patch(place, json={"active": True, "job": None, "labels": {}, "thresholds": []}).json()
    assert (changed["disabled_reason"], changed["job"], changed["labels"], changed["thresholds"]) == (
        None,
        None,
        {},
        [],
    )
    assert (changed["events"], changed["url"]) == (["job.failed"], URL + "/2"), "what is left out stays"
    assert service.client.delete(place).status_code == 204
    assert_problem(service.client.get(place), 404, "not_found")


def test_lists_are_cut_and_go_on(service: Served) -> None:
    ids = [hook(service, URL)["id"] for _ in range(3)]
    first = service.client.get("/v1/webhooks?limit=2").json()
    assert [one["id"] for one in first["data"]] == ids[:0:-1]
    rest = service.client.get(f"/v1/webhooks?limit=2&after={first['next']}").json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (ids[:1], False)
    for _ in range(3):
        assert service.client.post(f"/v1/webhooks/{ids[0]}/test").status_code == 202
    page = service.client.get(f"/v1/webhooks/{ids[0]}/deliveries?limit=2&state=pending").json()
    assert (len(page["data"]), page["has_more"]) == (2, True)
    assert deliveries(service, ids[0], "&type=job.failed") == []


@pytest.mark.parametrize(
    ("changes", "pointer", "says"),
    [
        ({"url": "http://127.0.0.2/"}, "/url", "not on the public internet"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "/url", "not on the public internet"),
        ({"url": "ftp://example.com/"}, "/url", "https://"),
        ({"url": "https://user:word@127.0.0.1/"}, "/url", "user name"),
        ({"url": "https://nowhere.invalid/"}, "/url", "cannot be resolved"),
        ({"url": "https://ex ample.com/"}, "/url", "printable ASCII"),
        ({"url": ""}, "/url", "printable ASCII"),
        ({"events": ["job.faild"]}, "/events/0", 'Did you mean "job.failed"?'),
        ({"events": []}, "/events", "both empty"),
        ({"events": ["job.metric_threshold"]}, "/events", "both empty"),
        ({"thresholds": [{"metric": "val_loss"}]}, "/thresholds/0", "give one of `above`, `below`"),
        ({"thresholds": [{"metric": "val_loss", "above": 1, "below": 0}]}, "/thresholds/0", "give one of"),
        ({"thresholds": [{"metric": "accuracy", "above": 1}]}, "/thresholds/0/metric", "pattern"),
        (
            {"thresholds": [{"metric": "val_f1", "above": 1}, {"metric": "val_f1", "above": 1.0}]},
            "/thresholds",
            "twice",
        ),
        ({"secret": "whsec_short"}, "/secret", "24 to 64 bytes"),
        ({"secret": SECRET.removeprefix("whsec_")}, "/secret", "whsec_"),
        ({"secret": "whsec_" + base64.b64encode(bytes(65)).decode()}, "/secret", "24 to 64 bytes"),
        ({"job": "job_none"}, "/job", "no job"),
        ({"labels": {"a b": "c"}}, "/labels/a b", 'the key "a b"'),
        ({"evnts": ["*"]}, "/evnts", "unknown field"),
    ],
)
@SQLITE
def test_what_is_wrong_is_said_where_it_is(service: Served, changes: dict[str, Any], pointer: str, says: str) -> None:
    errors = assert_problem(service.client.post("/v1/webhooks", json={"url": URL, **changes}), 422, "invalid_request")[
        "errors"
    ]
    assert [error["pointer"] for error in errors] == [pointer]
    assert says in errors[0]["message"] + errors[0]["hint"]
    assert service.client.get("/v1/webhooks").json()["data"] == []


@SQLITE
def test_a_change_is_checked_as_the_whole(service: Served) -> None:
    place = f"/v1/webhooks/{hook(service, URL)['id']}"
    for change in (
        {"url": "http://127.0.0.2/"},
        {"events": []},
        {"url": None},
        {"job": "job_none"},
        {"secret": SECRET},
    ):
        assert_problem(service.client.patch(place, json=change), 422, "invalid_request")
    assert service.client.get(place).json()["url"] == URL


def test_another_project_sees_none_of_it(service: Served) -> None:
    webhook = hook(service, URL)
    queued = service.client.post(f"/v1/webhooks/{webhook['id']}/test").json()
    stranger = service.client_for("another")
    place = f"/v1/webhooks/{webhook['id']}"
    message = f"{place}/deliveries/{queued['id']}"
    requests: list[tuple[str, str, Any]] = [
        ("GET", place, None),
        ("PATCH", place, {"active": False}),
        ("DELETE", place, None),
        ("POST", f"{place}/rotate", None),
        ("POST", f"{place}/test", None),
        ("GET", f"{place}/deliveries", None),
        ("GET", message, None),
        ("POST", f"{message}/redeliver", None),
    ]
    for method, path, body in requests:
        assert_problem(stranger.request(method, path, json=body), 404, "not_found")
    other_webhook = stranger.post("/v1/webhooks", json={"url": URL}).json()["id"]
    for tail in ("", "/redeliver"):
        wrong = f"/v1/webhooks/{other_webhook}/deliveries/{queued['id']}{tail}"
        assert_problem(stranger.request("POST" if tail else "GET", wrong), 404, "not_found")
    assert_problem(stranger.post("/v1/webhooks", json={"url": URL, "job": service.submit()}), 422, "invalid_request")
    assert [one["id"] for one in stranger.get("/v1/webhooks").json()["data"]] == [other_webhook]
    assert service.client.get(place).json()["active"]


@SQLITE
def test_readers_look_and_writers_change(service: Served) -> None:
    webhook = hook(service, URL)
    reader = service.client_for("default", "viewer")
    assert reader.get(f"/v1/webhooks/{webhook['id']}/deliveries").status_code == 200
    assert_problem(reader.post("/v1/webhooks", json={"url": URL}), 403, "forbidden")
    assert_problem(reader.post(f"/v1/webhooks/{webhook['id']}/test"), 403, "forbidden")


@SQLITE
def test_a_project_has_so_many_and_a_webhook_so_many_tests(service: Served) -> None:
    object.__setattr__(service.context.settings, "max_webhooks", 2)
    webhook = hook(service, URL)
    hook(service, URL)
    assert_problem(service.client.post("/v1/webhooks", json={"url": URL}), 409, "too_many_webhooks")
    assert service.client_for("another").post("/v1/webhooks", json={"url": URL}).status_code == 201
    for _ in range(webhooks.MAX_PENDING_TESTS):
        assert service.client.post(f"/v1/webhooks/{webhook['id']}/test").status_code == 202
    assert_problem(service.client.post(f"/v1/webhooks/{webhook['id']}/test"), 429, "too_many_tests")


def test_a_rotated_secret_is_valid_beside_the_old_one_for_a_while(service: Served) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url, secret=SECRET)
        assert webhook["secret"] == SECRET
        place = f"/v1/webhooks/{webhook['id']}"
        rotated = service.client.post(f"{place}/rotate").json()
        assert rotated["secret"] not in (SECRET, "")
        assert rotated["previous_secret_until"] > rotated["updated_at"]
        got = try_out(service, receiver, place)
        assert got.headers["webhook-signature"].count("v1,") == 2
        for secret in (SECRET, rotated["secret"]):
            assert got.verify(secret)["type"] == "webhook.test"
        with service.sessions.begin() as session:
            session.execute(update(webhooks.Webhook).values(previous_until=db_now(plus=-1)))
        got = try_out(service, receiver, place)
        got.verify(rotated["secret"])
        with pytest.raises(Exception, match="No matching signature"):
            got.verify(SECRET)
        at_once = service.client.post(f"{place}/rotate", json={"overlap_seconds": 0, "secret": SECRET}).json()
        assert (at_once["secret"], at_once["previous_secret_until"]) == (SECRET, None)
        with pytest.raises(Exception, match="No matching signature"):
            try_out(service, receiver, place).verify(rotated["secret"])
        assert_problem(service.client.post(f"{place}/rotate", json={"secret": SECRET}), 422, "invalid_request")


def try_out(service: Served, receiver: Receiver, place: str) -> Any:
    assert service.client.post(f"{place}/test").status_code == 202
    send_due(service)
    return receiver.got[-1]


def test_a_delivery_is_sent_again_with_the_same_id_and_bytes(service: Served) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url)
        place = f"/v1/webhooks/{webhook['id']}"
        receiver.says(200, b"thanks\x00")
        queued = service.client.post(f"{place}/test").json()
        assert (queued["type"], queued["state"], queued["attempts"]) == ("webhook.test", "pending", 0)
        send_due(service)
        for times in (2, 3):
            again = service.client.post(f"{place}/deliveries/{queued['id']}/redeliver")
            assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, queued["id"], "pending")
            assert send_due(service) == 1
            assert len(receiver.got) == times
        assert {(got.id, got.body) for got in receiver.got} == {(queued["id"], receiver.got[0].body)}
        shown = detail(service, {"webhook": webhook["id"], "id": queued["id"]})
        assert (shown["state"], shown["attempts"], shown["status_code"]) == ("delivered", 3, 200)
        assert shown["payload"] == receiver.got[0].payload
        assert [(one["number"], one["status_code"], one["error"]) for one in shown["history"]] == [
            (number, 200, None) for number in (1, 2, 3)
        ]
        assert shown["history"][0]["response"] == "thanks\N{REPLACEMENT CHARACTER}"
        service.client.patch(place, json={"active": False})
        assert_problem(service.client.post(f"{place}/deliveries/{queued['id']}/redeliver"), 409, "webhook_disabled")
        assert_problem(service.client.post(f"{place}/test"), 409, "webhook_disabled")


def test_deleting_a_webhook_takes_what_waits_with_it(service: Served) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url)
        service.client.post(f"/v1/webhooks/{webhook['id']}/test")
        send_due(service)
        service.client.post(f"/v1/webhooks/{webhook['id']}/test")
        assert service.client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
        assert send_due(service) == 0
    with service.sessions() as session:
        assert (session.query(WebhookDelivery).count(), session.query(WebhookAttempt).count()) == (0, 0)


def test_old_deliveries_are_forgotten_and_what_waits_is_not(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.webhooks.repository.DELETE_BATCH", 2)
    with receiving() as receiver:
        webhook = hook(service, receiver.url)
        ids = [service.client.post(f"/v1/webhooks/{webhook['id']}/test").json()["id"] for _ in range(5)]
        send_due(service)
        waiting = service.client.post(f"/v1/webhooks/{webhook['id']}/test").json()["id"]
        old = db_now(plus=-webhooks.KEPT_SECONDS - 1)
        with service.sessions.begin() as session:
            session.execute(update(WebhookDelivery).values(created_at=old))
            session.execute(update(WebhookDelivery).where(WebhookDelivery.id != ids[2]).values(last_attempt_at=old))
        webhooks.delete_old_deliveries(service.sessions)
        assert [one["id"] for one in deliveries(service, webhook["id"])] == [ids[2], waiting]
        with service.sessions() as session:
            assert {one.delivery_id for one in session.query(WebhookAttempt)} == {ids[2]}


def test_deliveries_are_deleted_a_few_at_a_time(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "DELETED_AT_ONCE", 4)
    webhook = service.client.post("/v1/webhooks", json={"url": URL, "events": ["job.failed"]}).json()["id"]
    for _ in range(9):
        service.client.post(f"/v1/webhooks/{webhook}/test").raise_for_status()
    sizes: list[int] = []
    delete_some = webhooks.repository.delete_some_deliveries

    def count(session: Session, webhook_id: str, most: int) -> int:
        sizes.append(delete_some(session, webhook_id, most))
        return sizes[-1]

    monkeypatch.setattr(webhooks.repository, "delete_some_deliveries", count)
    assert service.client.delete(f"/v1/webhooks/{webhook}").status_code == 204
    assert sizes == [4, 4, 1]
    assert service.client.get(f"/v1/webhooks/{webhook}").status_code == 404
    assert service.client.delete(f"/v1/webhooks/{webhook}").status_code == 404
