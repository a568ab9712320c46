"""Request ids on every answer, a line for every request, and no secret in any of them."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.logging import bound, secrets_of, set_up
from service.settings import LogFormat, Settings
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
PASSWORD = "hunter2hunter2"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Setting up a log changes the whole process."""
    root, others = logging.getLogger(), [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error")]
    handlers, level = root.handlers[:], root.level
    settings = [(other.handlers, other.propagate) for other in others]
    yield
    logging.captureWarnings(False)
    logging.getLogger("uvicorn.access").disabled = False
    root.handlers[:] = handlers
    root.setLevel(level)
    for other, (kept, propagate) in zip(others, settings, strict=True):
        other.handlers, other.propagate = kept, propagate


def lines(capsys: pytest.CaptureFixture[str], logger: str = "service.access") -> list[dict[str, Any]]:
    """Every line is an object; those of one logger."""
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in entries if line["logger"] == logger]


@SQLITE
def test_every_answer_has_an_id_and_errors_say_it(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a defect")

    client, bare = service.client, TestClient(service.app)
    seen = set()
    for requester, path, status in (
        (client, "/v1/jobs", 200),
        (client, "/v1/jobs/job_none", 404),
        (client, "/nowhere", 404),
        (client, "/v1/jobs?limit=0", 422),
        (client, "/v1/jobs?x=%00", 422),
        (bare, "/v1/jobs", 401),
        (bare, "/healthz", 200),
        (client, "/v1/jobs/broken", 500),
    ):
        if status == 500:
            monkeypatch.setattr("service.jobs.routes.service.find", broken)
        answer = requester.get(path)
        assert answer.status_code == status, path
        identifier = answer.headers["x-request-id"]
        seen.add(identifier)
        if status >= 400:
            assert answer.json()["request_id"] == identifier, path
    assert len(seen) == 8


@SQLITE
def test_a_sane_id_of_the_client_is_taken(service: Served) -> None:
    for given in ("a", "Abc-1.2_3", "x" * 128):
        assert service.client.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    for given in ("", "x" * 129, "with space", 'a"b', "a\tb", "ü", "a;b"):
        response = service.client.get("/healthz", headers={"X-Request-Id": given.encode("latin-1")})
        assert response.headers["x-request-id"] != given
        assert len(response.headers["x-request-id"]) == 16


@SQLITE
def test_a_line_for_every_request(service: Served, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    job, key = service.submit(), service.key("default", "viewer")
    set_up(replace(settings, log_format="json"))
    service.client.get(f"/v1/jobs/{job}", headers={"X-Request-Id": "mine-1"})
    TestClient(service.app, headers={"Authorization": f"Bearer {key}x", "X-Request-Id": "mine-2"}).get("/v1/jobs")
    service.client.get("/healthz")
    service.client.get("/metrics")
    first, second = lines(capsys)
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert {name: first[name] for name in ("level", "method", "route", "status", "request_id")} == {
        "level": "info",
        "method": "GET",
        "route": "/v1/jobs/{job_id}",
        "status": 200,
        "request_id": "mine-1",
    }
    assert first["ms"] > 0
    assert first["project"].startswith("prj_")
    assert re.fullmatch(r"key:[0-9a-z]{8}", first["actor"])
    assert (second["route"], second["status"], second["request_id"]) == ("(none)", 401, "mine-2")
    assert "actor" not in second


@SQLITE
def test_a_defect_is_found_under_the_request_s_id(
    service: Served, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(f"cannot reach postgresql+psycopg://trainkit:{PASSWORD}@db/trainkit")

    monkeypatch.setattr("service.jobs.routes.service.find", broken)
    set_up(replace(settings, log_format="json"))
    answer = service.client.get("/v1/jobs/job_x")
    log = capsys.readouterr().err
    assert PASSWORD not in log
    entries = [json.loads(line) for line in log.splitlines()]
    (defect,) = (entry for entry in entries if entry["level"] == "error")
    assert defect["request_id"] == answer.json()["request_id"]
    assert "RuntimeError: cannot reach postgresql+psycopg://trainkit:***@db/trainkit" in defect["exception"]
    assert "\n" in defect["exception"]


@SQLITE
def test_no_secret_gets_through(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    key = "tk_0a1b2c3d_" + "k" * 40
    hidden = replace(
        settings, metrics_token="plain-metrics-token", database_url=f"postgresql+psycopg://trainkit:{PASSWORD}@db/x"
    )
    assert set(secrets_of(hidden)) == {"plain-metrics-token", PASSWORD}
    assert secrets_of(replace(settings, database_url="not a url")) == ()
    for form in ("text", "json"):
        set_up(replace(hidden, log_format=form))  # type: ignore[arg-type]
        log = logging.getLogger("service.tests")
        log.warning("header %s", {"Authorization": f"Bearer {key}"})
        log.warning("Basic dXNlcjpwYXNzd29yZA== and %s alone, plain-metrics-token", PASSWORD)
        log.warning("redis://:%s@broker:6379/0 and https://host:8321/path", "broker-secret")
        try:
            raise ValueError(key)
        except ValueError:
            log.exception("oh")
        output = capsys.readouterr().err
        for secret in ("k" * 40, "dXNlcjpwYXNzd29yZA", PASSWORD, "plain-metrics-token", "broker-secret"):
            assert secret not in output, form
        assert "tk_0a1b2c3d_***" in output
        assert "https://host:8321/path" in output
        assert "redis://:***@broker:6379/0" in output


@SQLITE
def test_lines_say_what_they_belong_to(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("worker.tests")

    def work() -> None:
        with bound(job="job_1", attempt=2, worker="host/7"):
            log.info("job=%s stored", "job_1")
            with bound(request_id="r"):
                log.info("said %s", "ü\n")
        log.info("done")

    set_up(settings)
    work()
    first, second, rest, third = capsys.readouterr().err.splitlines()
    assert first.endswith(" worker.tests job=job_1 stored attempt=2")
    assert " INFO " in first
    assert second.endswith(" worker.tests said ü")
    assert rest == "   job=job_1 attempt=2 request_id=r"  # indented: no line of its own
    assert third.endswith(" worker.tests done")
    set_up(replace(settings, log_format="json"))
    work()
    entries = lines(capsys, "worker.tests")
    assert [line["message"] for line in entries] == ["job=job_1 stored", "said ü\n", "done"]
    assert [(line.get("job"), line.get("attempt"), line.get("worker")) for line in entries] == [
        ("job_1", 2, "host/7"),
        ("job_1", 2, "host/7"),
        (None, None, None),
    ]
    assert entries[1]["request_id"] == "r"


def test_the_form_is_one_of_two() -> None:
    assert Settings.from_env({"TRAINKIT_LOG_FORMAT": "json"}).log_format == "json"
    assert Settings.from_env({"TRAINKIT_LOG_FORMAT": ""}).log_format == "text"
    with pytest.raises(ValueError, match="TRAINKIT_LOG_FORMAT is 'xml'; it may be text or json"):
        Settings.from_env({"TRAINKIT_LOG_FORMAT": "xml"})


@SQLITE
def test_uvicorn_and_warnings_speak_in_our_form(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("uvicorn.error")
    logging.getLogger("uvicorn").handlers = [logging.StreamHandler()]
    logger.setLevel(logging.INFO)  # a server in this process may have set another
    set_up(replace(settings, log_format="json"))
    logger.info("Application startup complete.", extra={"color_message": "x"})
    logging.getLogger("uvicorn.access").info("%s", "GET /v1/jobs/job_1?secret=1")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [entry["logger"] for entry in entries] == ["uvicorn.error", "py.warnings"]
    assert "careful" in entries[1]["message"]
    assert "color_message" not in entries[0]


@SQLITE
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_text_of_users_works_in_a_log(
    settings: Settings, capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    set_up(replace(settings, log_format=log_format))
    name = "a\n2026-01-01 00:00:00 ERROR 1 forged\r\x1b[2J\u2028b\u202ec\x9bd\x85e"
    logging.getLogger("worker.tests").info("dataset=%s ready", name)
    raw = capsys.readouterr().err
    assert not any(character in raw for character in "\r\x1b\u2028\u202e\x9b\x85")
    first, *rest = raw.splitlines()
    if log_format == "json":
        assert json.loads(first)["message"] == f"dataset={name} ready"
        assert not rest
    else:
        assert all(line.startswith("  ") for line in rest)
        assert "\\u001b[2J" in raw
