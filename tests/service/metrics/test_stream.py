"""The live stream tells the same as polling, in order, once, and ends."""

from __future__ import annotations

import threading

import pytest

from tests.support.api import Message, Served, read_stream, row
from tests.support.example_checks import event_schemas, schema_errors


def seqs(messages: list[Message]) -> list[int]:
    return [r["seq"] for kind, _, data in messages if kind == "metric" for r in data]


@pytest.fixture
def ended(service: Served) -> str:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, *(row("loss", n, n) for n in range(1200)))
    service.say(claimed, "slow disk", level="warning")
    service.finish(claimed)
    return job


def test_everything_in_order_and_the_end_last(service: Served, ended: str) -> None:
    messages = read_stream(service, ended)
    kinds = [kind for kind, _, _ in messages]
    assert kinds == ["event", "event", "event", "log", "metric", "metric", "metric", "event", "end"]
    assert [data["to"] for kind, _, data in messages if kind == "event"] == [
        "queued",
        "starting",
        "running",
        "succeeded",
    ]
    assert seqs(messages) == list(range(1, 1201))
    assert messages[3][2]["message"] == "slow disk"
    assert messages[-1][2] == {"state": "succeeded", "stop_reason": "completed"}
    polled = service.client.get(f"/v1/jobs/{ended}/metrics?limit=5000").json()["data"]
    assert [r for kind, _, data in messages if kind == "metric" for r in data] == polled


def test_every_message_is_as_the_document_says(service: Served, ended: str) -> None:
    messages = read_stream(service, ended)
    events = event_schemas(service.app.openapi(), "/v1/jobs/{job_id}/stream")
    assert {kind for kind, _, _ in messages} == set(events)
    for kind, _, data in messages:
        assert not list(schema_errors(service.app.openapi(), events[kind], data)), kind


def test_coming_back_at_any_message_misses_and_repeats_nothing(service: Served, ended: str) -> None:
    messages = read_stream(service, ended)
    for place in range(len(messages) - 1):
        identifier = messages[place][1]
        assert read_stream(service, ended, headers={"Last-Event-ID": identifier}) == messages[place + 1 :]
        assert read_stream(service, ended, f"?after={identifier}") == messages[place + 1 :]


def test_who_has_seen_the_end_need_not_come_back(service: Served, ended: str) -> None:
    last = read_stream(service, ended)[-1][1]
    answer = service.client.get(f"/v1/jobs/{ended}/stream", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.content) == (204, b"")


def test_after_takes_a_plain_metric_seq(service: Served, ended: str) -> None:
    assert seqs(read_stream(service, ended, "?after=1199")) == [1200]


def test_what_comes_while_listening_is_told(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0))

    def work() -> None:
        for step in range(2, 5):
            service.append(claimed, row("loss", 1 / step, step))
        service.finish(claimed)

    later = threading.Timer(0.6, work)
    later.start()
    messages = read_stream(service, job)
    later.join()
    assert seqs(messages) == [1, 2, 3, 4]
    assert messages[-1][0] == "end"


@pytest.mark.parametrize("cursor", ["x", "1.2.3.4", "-1", "1.", "9" * 30, "1.2.END", "\u0661"])
@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_a_cursor_is_checked(service: Served, cursor: str) -> None:
    job = service.submit()
    answer = service.client.get(f"/v1/jobs/{job}/stream", params={"after": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor")


def test_a_stranger_s_stream_is_not_there(service: Served, ended: str) -> None:
    assert service.client_for("other").get(f"/v1/jobs/{ended}/stream").status_code == 404
