"""Sending: signed, again until it is answered or a day is over, never by two at once, and nobody waits for the slow."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.database import db_now, reading
from service.jobs.tables import Job
from service.outbox.tables import WebhookDelivery
from service.secret_box import SecretBox
from service.settings import Settings
from service.webhooks import delivery_queue, repository, transport
from service.webhooks.sender import MAX_PER_PROJECT, MAX_PER_WEBHOOK
from service.webhooks.signing import sign
from tests.support.api import Served
from tests.support.stack import wait_for
from tests.support.webhook_receiver import (
    Got,
    deliveries,
    detail,
    forget_claims,
    hook,
    let_pass,
    receiving,
    send_due,
    sender,
)

pytestmark = pytest.mark.postgresql

ROOT = Path(__file__).parents[3]
SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def queue_tests(service: Served, webhook: dict[str, Any], count: int) -> list[str]:
    """Queue so many test messages; their ids."""
    answers = [service.client.post(f"/v1/webhooks/{webhook['id']}/test") for _ in range(count)]
    return [str(answer.json()["id"]) for answer in answers]


def test_the_signature_is_the_one_of_the_standard() -> None:
    """The vector of the Standard Webhooks libraries' own tests."""
    body = b'{"test": 2432232314}'
    signed = sign(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_message_is_signed_so_that_both_libraries_accept_it(service: Served) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url + "?a=b", events=["job.queued"])
        job = service.submit(name="Zahlen π", labels={"ort": "Köln"})
        assert send_due(service) == 1
        (got,) = receiver.got
        assert got.verify(webhook["secret"])["data"]["job"]["name"] == "Zahlen π"
        tampered = Got(got.path, got.headers, got.body.replace(b"queued", b"failed"))
        with pytest.raises(Exception, match="No matching signature"):
            tampered.verify(webhook["secret"])
        assert (got.path, got.headers["Content-Type"]) == ("/hook?a=b", "application/json")
        assert got.headers["User-Agent"] == f"trainkit/{version('trainkit')}"
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["id"], shown["state"], shown["attempts"]) == (got.id, "delivered", 1)
        assert (shown["status_code"], shown["error"], shown["next_attempt_at"]) == (204, None, None)
        assert shown["first_attempt_at"] == shown["last_attempt_at"]
        assert detail(service, shown)["payload"] == got.payload
        assert got.payload["data"]["job"]["id"] == job
        assert send_due(service) == 0


def test_a_failed_one_is_tried_again_for_a_day_across_restarts(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_queue, "JITTER", 0.0)
    with receiving() as receiver:
        receiver.says(503, b"later")
        webhook = hook(service, receiver.url)
        (delivery,) = queue_tests(service, webhook, 1)
        waits: list[float] = []
        while True:
            assert send_due(service) == 1, "by a sender that knows nothing of those before"
            (shown,) = deliveries(service, webhook["id"])
            assert (shown["attempts"], shown["status_code"]) == (len(waits) + 1, 503)
            if shown["state"] != "pending":
                break
            assert send_due(service) == 0, "not before its time"
            waits.append(let_pass(service))
        # 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, then every 4 h: the 13th comes after 85,355 s, a 14th would after 99,755
        planned = [5, 30, 120, 600, 1800, 3600, 7200, *[14400] * 5]
        assert [round(wait / 5) * 5 for wait in waits] == planned
        assert (shown["state"], shown["error"]) == ("failed", "the receiver answered 503")
        assert len(receiver.got) == 13
        assert {(got.id, got.body) for got in receiver.got} == {(delivery, receiver.got[0].body)}
        for got in receiver.got:
            got.verify(webhook["secret"])
        history = detail(service, shown)["history"]
        assert [one["number"] for one in history] == list(range(1, 14))
        assert {one["response"] for one in history} == {"later"}
        receiver.says(200)
        service.client.post(f"/v1/webhooks/{webhook['id']}/deliveries/{delivery}/redeliver")
        send_due(service)
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["state"], shown["attempts"], shown["error"]) == ("delivered", 14, None)


def test_redelivering_begins_a_round_of_its_own(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_queue, "JITTER", 0.0)
    with receiving() as receiver:
        receiver.says(500)
        webhook = hook(service, receiver.url)
        (delivery,) = queue_tests(service, webhook, 1)
        send_due(service)
        with service.sessions.begin() as session:
            long_ago = db_now(plus=-30 * 3600)
            session.execute(update(WebhookDelivery).values(first_attempt_at=long_ago, next_attempt_at=db_now()))
        send_due(service)
        assert deliveries(service, webhook["id"])[0]["state"] == "failed", "a day is over, though nobody could try"
        service.client.post(f"/v1/webhooks/{webhook['id']}/deliveries/{delivery}/redeliver")
        send_due(service)
        assert round(let_pass(service)) == 5
        assert (len(receiver.got), deliveries(service, webhook["id"])[0]["state"]) == (3, "pending")


def test_pauses_grow_and_are_never_quite_the_same() -> None:
    for tries, seconds in enumerate([*delivery_queue.RETRY_SECONDS, 14400, 14400], 1):
        pauses = [delivery_queue.retry_delay(tries).total_seconds() for _ in range(50)]
        assert len(set(pauses)) > 40
        assert all(0.9 * seconds <= pause <= 1.1 * seconds for pause in pauses)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@SQLITE
def test_a_redirect_is_not_followed(service: Served, status: int) -> None:
    with receiving() as receiver, receiving() as elsewhere:
        receiver.says(status, Location=elsewhere.url)
        webhook = hook(service, receiver.url)
        queue_tests(service, webhook, 1)
        send_due(service)
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["state"], shown["status_code"]) == ("pending", status)
        assert shown["error"] == f"the receiver answered {status}: redirects are not followed"
        assert (len(receiver.got), elsewhere.got) == (1, [])


def test_gone_disables_the_webhook_and_says_why(service: Served) -> None:
    with receiving() as receiver:
        receiver.says(410)
        webhook = hook(service, receiver.url)
        place = f"/v1/webhooks/{webhook['id']}"
        queue_tests(service, webhook, 1)
        send_due(service)
        queued = service.submit()
        shown = service.client.get(place).json()
        assert (shown["active"], shown["disabled_reason"]) == (False, "the receiver answered 410 Gone")
        (delivery,) = deliveries(service, webhook["id"])
        assert (delivery["state"], delivery["status_code"], delivery["next_attempt_at"]) == ("failed", 410, None)
        assert service.job(queued)["state"] == "queued"
        receiver.says(200)
        assert service.client.patch(place, json={"active": True}).json()["disabled_reason"] is None
        service.client.post(f"/v1/jobs/{queued}/cancel")
        send_due(service)
        assert [got.payload["type"] for got in receiver.got] == ["webhook.test", "job.cancelled"]


def test_what_comes_due_while_the_webhook_is_disabled_fails(service: Served) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url)
        queue_tests(service, webhook, 3)
        service.client.patch(f"/v1/webhooks/{webhook['id']}", json={"active": False})
        assert send_due(service) == 0
        assert receiver.got == []
        shown = deliveries(service, webhook["id"])
        assert {(one["state"], one["error"], one["attempts"]) for one in shown} == {
            ("failed", "the webhook is disabled", 0)
        }


def test_what_waits_goes_to_the_new_url(service: Served) -> None:
    with receiving() as receiver, receiving() as other:
        receiver.says(500)
        webhook = hook(service, receiver.url)
        queue_tests(service, webhook, 1)
        send_due(service)
        service.client.patch(f"/v1/webhooks/{webhook['id']}", json={"url": other.url})
        let_pass(service)
        send_due(service)
        assert [len(one.got) for one in (receiver, other)] == [1, 1]


def test_a_slow_receiver_and_its_project_hold_no_others(service: Served) -> None:
    release = threading.Event()
    with receiving() as slow, receiving() as quick:

        def wait(_: Got) -> Any:
            assert release.wait(60)
            return 200, {}, b""

        slow.answer = wait
        hooks = [hook(service, slow.url) for _ in range(3)]
        for webhook in hooks:
            queue_tests(service, webhook, 5)
        other_client = service.client_for("another")
        other = other_client.post("/v1/webhooks", json={"url": quick.url}).json()["id"]
        one = sender(service)
        try:
            while one.start_due():
                pass
            assert len(slow.wait_for(MAX_PER_PROJECT)) == MAX_PER_PROJECT == 2 * MAX_PER_WEBHOOK
            for count in range(1, 4):
                assert other_client.post(f"/v1/webhooks/{other}/test").status_code == 202
                # a slot is free again only when the result of its message is recorded, after it was received
                assert wait_for(one.start_due) == 1
                quick.wait_for(count)
            assert len(slow.got) == MAX_PER_PROJECT
        finally:
            release.set()
        assert one.drain(60)
        send_due(service)
        assert (len({got.id for got in slow.got}), len(slow.got)) == (15, 15)


def test_two_senders_never_send_the_same_attempt(service: Served) -> None:
    with receiving() as receiver:
        ids = [name for _ in range(3) for name in queue_tests(service, hook(service, receiver.url), 8)]
        together = threading.Barrier(3)
        problems: list[BaseException] = []

        def compete() -> None:
            one = sender(service)
            together.wait()
            try:
                while one.start_due() or not one.drain(0):
                    one.drain(60)
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=compete) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        send_due(service)
        assert problems == []
        assert sorted(got.id for got in receiver.got) == sorted(ids)


def test_a_claim_is_one_sender_s_until_it_ends_and_void_afterwards(service: Served) -> None:
    registered = hook(service, "http://127.0.0.1:9/")
    (delivery,) = queue_tests(service, registered, 1)
    box = SecretBox(service.context.settings)
    with service.sessions.begin() as session:
        first = delivery_queue.claim(session, delivery, 0, box)
        assert first is not None
        assert delivery_queue.claim(session, delivery, 0, box) is None
        assert delivery_queue.claim(session, delivery, first.claim.fence, box) is None
    with reading(service.sessions) as session:
        assert repository.projects_with_due(session) == []
    forget_claims(service)
    with reading(service.sessions) as session:
        (project,) = repository.projects_with_due(session)
        assert repository.due(session, project, 5, ()) == [(delivery, first.claim.fence, registered["id"])]
        assert repository.due(session, project, 5, (registered["id"],)) == []
    with service.sessions.begin() as session:
        second = delivery_queue.claim(session, delivery, first.claim.fence, box)
    assert second is not None
    for claimed, state in ((first, None), (second, "delivered")):
        with service.sessions.begin() as session:
            assert delivery_queue.record(session, claimed, delivery_queue.PostResult(200, None, "", 0.1)) == state


def test_a_clock_that_was_set_back_keeps_nothing_waiting(service: Served) -> None:
    with receiving() as receiver:
        queue_tests(service, hook(service, receiver.url), 1)
        with service.sessions.begin() as session:
            ahead = db_now(plus=10 * 86400)
            session.execute(update(WebhookDelivery).values(next_attempt_at=ahead, claimed_until=ahead))
        assert send_due(service) == 1


@SQLITE
def test_nobody_there_is_a_failed_attempt(service: Served) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        webhook = hook(service, f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        queue_tests(service, webhook, 1)
        send_due(service)
    (shown,) = deliveries(service, webhook["id"])
    assert (shown["state"], shown["status_code"]) == ("pending", None)
    assert shown["error"].startswith("no connection: ")


ANSWERS = {
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 200_000,
}


@pytest.mark.parametrize("kind", ANSWERS)
@SQLITE
def test_answers_that_are_none(service: Served, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                try:
                    connection.sendall(ANSWERS[kind])
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
                except OSError:
                    pass  # it has hung up, as it should

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        webhook = hook(service, f"http://127.0.0.1:{server.getsockname()[1]}/")
        queue_tests(service, webhook, 1)
        send_due(service)
        thread.join(60)
    (shown,) = deliveries(service, webhook["id"])
    assert (shown["state"], shown["attempts"], shown["status_code"]) == ("pending", 1, None)
    assert shown["error"].startswith("the connection broke")


@SQLITE
def test_a_byte_at_a_time_holds_no_sender(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes soon enough for a time-out between two reads; the whole has an end all the same."""
    monkeypatch.setattr(transport, "TOTAL_SECONDS", 0.4)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.02)
                except OSError:
                    ended.set()

        threading.Thread(target=drip, daemon=True).start()
        webhook = hook(service, f"http://127.0.0.1:{server.getsockname()[1]}/")
        queue_tests(service, webhook, 1)
        send_due(service)
        assert ended.wait(60)
    (shown,) = deliveries(service, webhook["id"])
    assert re.fullmatch(r"no complete answer within .* s(: .*)?", shown["error"])


@SQLITE
def test_of_a_large_answer_the_beginning_is_kept(service: Served) -> None:
    with receiving() as receiver:
        receiver.says(500, b"\xff\x00" + b"x" * (1 << 22))
        webhook = hook(service, receiver.url)
        queue_tests(service, webhook, 1)
        send_due(service)
        (shown,) = deliveries(service, webhook["id"])
        (attempt,) = detail(service, shown)["history"]
        assert attempt["response"] == "\N{REPLACEMENT CHARACTER}" * 2 + "x" * 998
        assert shown["error"] == "the receiver answered 500"


@SQLITE
def test_a_defect_of_ours_is_a_failed_attempt_and_not_an_endless_one(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(transport, "_post", broken)
    webhook = hook(service, "http://127.0.0.1:9/")
    queue_tests(service, webhook, 1)
    send_due(service)
    (shown,) = deliveries(service, webhook["id"])
    assert (shown["state"], shown["attempts"], shown["error"]) == ("pending", 1, "not sent: RuntimeError")


def housekeeping(settings: Settings, **more: str) -> subprocess.Popen[bytes]:
    """A worker's housekeeping process on that database."""
    environment = {
        **os.environ,
        "TRAINKIT_HOME": str(settings.home),
        "TRAINKIT_DATABASE_URL": settings.database_url,
        "TRAINKIT_STORAGE_URL": settings.storage_url,
        "TRAINKIT_BROKER_URL": settings.broker_url,
        "TRAINKIT_SECRET_KEY": ",".join(settings.secret_keys),
        "TRAINKIT_WEBHOOK_ALLOW": "127.0.0.0/8",
        **more,
    }
    return subprocess.Popen([sys.executable, "-m", "worker.housekeeping"], env=environment, cwd=ROOT)


@pytest.mark.parametrize(
    ("migrated_url", "point", "sent"),
    [("sqlite", "after_webhook_send", 2), ("postgresql", "before_webhook_send", 1)],
    indirect=["migrated_url"],
)
def test_a_sender_that_is_killed_loses_nothing(
    service: Served, settings: Settings, tmp_path: Path, point: str, sent: int
) -> None:
    with receiving() as receiver:
        webhook = hook(service, receiver.url, events=["job.queued"])
        service.submit()
        first = housekeeping(settings, TRAINKIT_FAILPOINTS=f"{point}=kill@{tmp_path}/killed")
        try:
            assert first.wait(60) == -signal.SIGKILL
        finally:
            first.kill()
        assert len(receiver.got) == sent - 1
        (shown,) = deliveries(service, webhook["id"])
        assert (shown["state"], shown["attempts"]) == ("pending", 0)
        assert send_due(service) == 0, "the dead one's claim still holds"
        forget_claims(service)
        second = housekeeping(settings)
        try:
            receiver.wait_for(sent)
            until_delivered(service, webhook)
        finally:
            second.terminate()
        assert second.wait(60) == 0
        assert {(got.id, got.body) for got in receiver.got} == {(shown["id"], receiver.got[0].body)}
        assert len(receiver.got) == sent
        for got in receiver.got:
            got.verify(webhook["secret"])


def until_delivered(service: Served, webhook: dict[str, Any]) -> None:
    end = time.monotonic() + 60
    while deliveries(service, webhook["id"])[0]["state"] != "delivered":
        assert time.monotonic() < end
        time.sleep(0.02)


@SQLITE
def test_the_receiver_of_the_documentation_receives(service: Served) -> None:
    code = (ROOT / "docs" / "how-to" / "webhooks.md").read_text().split("```python\n")[1].split("```")[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert code.count('("", 8000)') == 1
    code = code.replace('("", 8000)', f'("127.0.0.1", {port})')
    webhook = hook(service, f"http://127.0.0.1:{port}/", events=["job.queued"])
    environment = {**os.environ, "WEBHOOK_SECRET": webhook["secret"]}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 60
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert time.monotonic() < end
                time.sleep(0.02)
            job = service.submit()
            send_due(service)
            (shown,) = deliveries(service, webhook["id"])
            assert (shown["state"], shown["status_code"]) == ("delivered", 204)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("job.queued ")
            assert job in line
        finally:
            process.terminate()


@SQLITE
def test_a_slow_receiver_holds_up_no_housekeeping(service: Served, settings: Settings) -> None:
    """A lost worker's job is queued again, and is told so to another, while a message has no answer."""
    release = threading.Event()
    with receiving() as slow, receiving() as quick:
        slow.answer = lambda _: (200 if release.wait(60) else 500, {}, b"")
        hook(service, slow.url, events=["job.running"])
        hook(service, quick.url, events=["job.queued"])
        job = service.submit()
        service.claim()
        process = housekeeping(settings)
        try:
            slow.wait_for(1)
            with service.sessions.begin() as session:
                session.execute(update(Job).values(lease_expires_at=db_now(plus=-1)))
            messages = quick.wait_for(2)
            assert messages[1].payload["data"]["event"]["from"] == "running"
            assert service.job(job)["state"] == "queued"
        finally:
            release.set()
            process.terminate()
        assert process.wait(60) == 0
