"""Tickets that open one stream without a header: for a minute, for reading, and for nothing else."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.app import create_app
from service.database import db_now
from service.keys.tables import ApiKey
from service.logging import TextLines
from service.settings import Settings
from service.stream_tickets import service as stream_tickets
from tests.support.api import Served, assert_problem
from tests.support.otlp_collector import collector

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@pytest.fixture
def job(service: Served) -> str:
    """A job that has ended, so that its stream ends as well."""
    found = service.submit()
    service.finish(service.claim())
    return found


def ticket_for(client: TestClient, path: str) -> dict[str, Any]:
    answer = client.post("/v1/stream-tickets", json={"path": path})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.postgresql
def test_a_ticket_opens_its_stream_without_a_header(service: Served, job: str) -> None:
    found = ticket_for(service.client_for("default", "viewer"), f"/v1/jobs/{job}/stream")
    assert found["url"] == f"/v1/jobs/{job}/stream?ticket={found['ticket']}"
    end = datetime.fromisoformat(found["expires_at"])
    assert 50 < (end - datetime.now(UTC)).total_seconds() <= 61
    bare = TestClient(service.app)
    for query in ("", "&after=0"):
        answer = bare.get(found["url"] + query)
        assert answer.status_code == 200, answer.text
        assert "event: end" in answer.text
    # the browser comes back by itself with the same address
    last = re.findall(r"^id: (.+)$", answer.text, re.MULTILINE)[-1]
    assert bare.get(found["url"], headers={"Last-Event-ID": last}).status_code == 204
    # another process, with the same database
    other = create_app(service.context.settings)
    assert TestClient(other).get(found["url"]).status_code == 200
    other.state.context.engine.dispose()


@SQLITE
def test_a_ticket_opens_nothing_else(service: Served, job: str) -> None:
    stranger = service.submit()
    ticket = ticket_for(service.client, f"/v1/jobs/{job}/stream")["ticket"]
    bare = TestClient(service.app)
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/metrics", "/v1/jobs", "/openapi.json", f"/v1/jobs/{job}/stream/"):
        assert bare.get(f"{path}?ticket={ticket}").status_code == 401, path
    for path in (f"/v1/jobs/{stranger}/stream", "/v1/jobs/stream", f"/v1/../v1/jobs/{job}/stream//stream"):
        assert_problem(bare.get(f"{path}?ticket={ticket}"), 401, "ticket_invalid")
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert bare.request(method, f"/v1/jobs/{job}/stream?ticket={ticket}").status_code == 401, method
    assert bare.get(f"/v1/jobs/{job}/stream", headers={"Authorization": f"Bearer {ticket}"}).status_code == 401
    # a header counts alone: a wrong key is not mended by a ticket
    wrong = {"Authorization": f"Bearer tk_{'0' * 8}_{'0' * 40}"}
    assert_problem(bare.get(f"/v1/jobs/{job}/stream?ticket={ticket}", headers=wrong), 401, "key_invalid")


@SQLITE
def test_altered_tickets_are_refused(service: Served, job: str) -> None:
    path = f"/v1/jobs/{job}/stream"
    ticket = ticket_for(service.client, path)["ticket"]
    other = ticket_for(service.client_for("default"), path)["ticket"]
    kind, key_id, seconds, signature = ticket.split("_")
    altered = [
        f"{kind}_{key_id}_{int(seconds) + 1}_{signature}",
        f"{kind}_{key_id}_9{seconds}_{signature}",
        f"{kind}_{other.split('_')[1]}_{seconds}_{signature}",
        f"{kind}_{key_id}_{seconds}_{signature[:-1]}{'0' if signature[-1] != '0' else '1'}",
        f"{kind}_{key_id}_{seconds}_",
        f"{kind}_{key_id}_{seconds}_{'0' * 64}",
        f"{kind}_{'0' * 8}_{seconds}_{signature}",
        f"{kind}_{key_id}_{'9' * 5000}_{signature}",
        f"{ticket}%00",
        f"{ticket}&ticket={ticket}",
        "",
        "%F0%9F%92%A9",
    ]
    bare = TestClient(service.app)
    for wrong in altered:
        answer = bare.get(f"{path}?ticket={wrong}")
        assert answer.status_code in (401, 422), wrong
        assert answer.headers["content-type"] == "application/problem+json"
    assert bare.get(f"{path}?ticket={ticket}").status_code == 200


@SQLITE
def test_a_ticket_ends_with_its_minute_and_with_its_key(
    service: Served, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/jobs/{job}/stream"
    bare = TestClient(service.app)
    with monkeypatch.context() as patch:
        patch.setattr(stream_tickets, "SECONDS", 0)
        assert_problem(bare.get(ticket_for(service.client, path)["url"]), 401, "ticket_invalid")
    for change in ({"revoked_at": db_now()}, {"expires_at": db_now(plus=-1)}, {"secret_hash": "0" * 64}):
        client = service.client_for("default")
        found = ticket_for(client, path)
        assert bare.get(found["url"]).status_code == 200
        with service.sessions.begin() as session:
            session.execute(update(ApiKey).where(ApiKey.id == found["ticket"].split("_")[1]).values(**change))
        assert_problem(bare.get(found["url"]), 401, "ticket_invalid")


@SQLITE
def test_a_ticket_sees_the_project_of_its_key_only(service: Served, job: str) -> None:
    found = ticket_for(service.client_for("another"), f"/v1/jobs/{job}/stream")
    assert_problem(TestClient(service.app).get(found["url"]), 404, "not_found")


@SQLITE
def test_a_ticket_is_for_a_stream(service: Served) -> None:
    for path in (
        "/v1/jobs",
        "/v1/jobs/x/stream?after=1",
        "https://evil.example/stream",
        "//x/stream",
        "/v1/%2e/stream",
        "x" * 400,
    ):
        assert_problem(service.client.post("/v1/stream-tickets", json={"path": path}), 422, "invalid_request")
    assert_problem(
        TestClient(service.app).post("/v1/stream-tickets", json={"path": "/v1/jobs/x/stream"}), 401, "key_missing"
    )


@SQLITE
def test_a_ticket_is_never_logged_or_traced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with collector() as heard, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", heard.url)
        app = create_app(replace(settings, tracing=True))
        service = Served(app, TestClient(app), app.state.context)
        service.client = service.client_for("default")
        job = service.submit()
        service.finish(service.claim())
        found = ticket_for(service.client, f"/v1/jobs/{job}/stream")
        bare = TestClient(app)
        assert bare.get(f"{found['url']}&after=0").status_code == 200
        for refused in (
            f"{found['url']}0",
            f"/v1/jobs?ticket={found['ticket']}",
            f"/nowhere/stream?x=1&ticket={found['ticket']}",
        ):
            bare.get(refused)
            service.client.get(refused)
        app.state.spans.shutdown()
        app.state.context.engine.dispose()
    signature = found["ticket"].rpartition("_")[2]
    queries = [str(span) for _, span in heard.spans if "url.query" in str(span)]
    assert len(queries) >= 4
    assert signature not in str(heard.spans)
    assert any("ticket=REDACTED&after=0" in query for query in queries)
    assert caplog.records
    # the client of the tests is in this process as well, and logs its own addresses
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert [record for record in ours if signature in record.getMessage()] == []
    line = logging.LogRecord("x", logging.INFO, "x", 1, f"GET {found['url']}", (), None)
    assert signature not in TextLines().format(line)


@SQLITE
def test_guessing_tickets_counts_as_guessing_keys(settings: Settings) -> None:
    app = create_app(replace(settings, max_wrong_keys_per_minute=5))
    service = Served(app, TestClient(app), app.state.context)
    service.client = service.client_for("default")
    job = service.submit()
    service.finish(service.claim())
    right = ticket_for(service.client, f"/v1/jobs/{job}/stream")["url"]
    bare = TestClient(app)
    codes = [bare.get(f"/v1/jobs/{job}/stream?ticket=st_{'0' * 8}_1_{'0' * 64}").status_code for _ in range(8)]
    assert codes == [401] * 5 + [429] * 3
    assert bare.get(right).status_code == 429
    assert TestClient(app, client=("198.51.100.9", 1)).get(right).status_code == 200
    assert service.client.get("/v1/jobs").status_code == 200
    app.state.context.engine.dispose()
