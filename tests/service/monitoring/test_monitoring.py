"""`/metrics` of the API: right by hand-counted numbers, harmless, and readable by Prometheus' own tools."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event, text, update
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.database import after_commit, db_now, make_engine
from service.jobs import attempts
from service.jobs.tables import Job
from service.monitoring import gauges
from service.monitoring.gauges import StateGauges
from service.monitoring.repository import current_counts, total_counts
from service.sessions import session_factory
from service.settings import Settings
from service.workers.repository import record_heartbeat
from tests.support.api import Served, row
from tests.support.prometheus_text import Scrape
from trainkit.spec.failures import failure

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
TOKEN = "a-token-for-scrapes"
ROUTE = "/v1/jobs/{job_id}"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scrape queries anew."""
    monkeypatch.setattr(gauges, "CURRENT_CACHE_SECONDS", 0.0)
    monkeypatch.setattr(gauges, "TOTAL_CACHE_SECONDS", 0.0)


def scrape(service: Served) -> Scrape:
    answer = service.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


@SQLITE
def test_prometheus_own_tools_read_it(service: Served, promtool: str) -> None:
    job = service.submit()
    service.client.get(f"/v1/jobs/{job}")
    answer = service.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    checked = subprocess.run([promtool, "check", "metrics"], input=answer.text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@SQLITE
def test_both_formats_say_the_same(service: Served) -> None:
    job = service.submit()
    plain = service.client.get("/metrics")
    headers = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain; q=0.5"}
    answer = service.client.get("/metrics", headers=headers)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    first, second = Scrape(plain.text), Scrape(answer.text, openmetrics=True)
    assert {f.name for f in first.families if f.name.startswith("trainkit")} == {
        f.name for f in second.families if f.name.startswith("trainkit")
    }
    assert all(family.documentation for family in first.families)
    assert job not in plain.text
    for odd in ("application/openmetrics-text; version=x; escaping=y", "*/*;q=", "\xff"):
        assert service.client.get("/metrics", headers={"Accept": odd.encode("latin-1")}).status_code == 200


@SQLITE
def test_requests_are_counted_by_template(service: Served) -> None:
    job = service.submit()
    before = scrape(service)
    for _ in range(3):
        service.client.get(f"/v1/jobs/{job}")
    service.client.get("/v1/jobs/job_none")
    for path in ("/nowhere", "/v1/nothing/at/all", f"/{job}"):
        service.client.get(path)
    TestClient(service.app).get(f"/v1/jobs/{job}")
    service.client.request("BREW", "/v1/jobs")
    service.client.put("/v1/datasets?name=twelve", content=b"twelve bytes")
    after = scrape(service)

    def more(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    counted = "trainkit_http_requests_total"
    assert more(counted, method="GET", route=ROUTE, status="2xx") == 3
    assert more(counted, method="GET", route=ROUTE, status="4xx") == 1
    assert more(counted, method="GET", route="(none)", status="4xx") == 4
    assert more(counted, method="OTHER", route="/v1/jobs", status="4xx") == 1
    assert more("trainkit_http_request_duration_seconds_count", method="GET", route=ROUTE) == 4
    assert more("trainkit_http_received_bytes_total", route="/v1/datasets") == 12
    assert after.get("trainkit_http_requests_in_progress") == 1  # the scrape itself
    assert not any(job in label for label in after.label("route"))
    assert after.label("method") <= {"GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "OTHER"}


@SQLITE
def test_whoever_waits_is_told_apart(service: Served) -> None:
    job = service.submit()
    duration = {"method": "GET", "route": f"{ROUTE}/metrics"}
    streams = {"method": "GET", "route": f"{ROUTE}/stream"}
    before = scrape(service)
    waiter = threading.Thread(target=service.client.get, args=(f"/v1/jobs/{job}/metrics?wait=10",))
    waiter.start()
    deadline = time.monotonic() + 30
    while not (waiting := scrape(service).get("trainkit_http_waiting_readers", kind="long_poll")):
        assert time.monotonic() < deadline
    assert waiting == 1
    claimed = service.claim()
    service.append(claimed, row("loss", 0.5))
    waiter.join()
    service.finish(claimed)
    with service.client.stream("GET", f"/v1/jobs/{job}/stream") as stream:
        assert "event: end" in stream.read().decode()
    after = scrape(service)
    for kind in ("long_poll", "stream"):
        assert after.get("trainkit_http_waiting_readers", kind=kind) == 0
    counted = "trainkit_http_request_duration_seconds_count"
    assert after.get(counted, **duration) == before.get(counted, **duration)
    assert after.get(counted, **streams) == before.get(counted, **streams)
    assert after.get("trainkit_http_requests_total", method="GET", route=f"{ROUTE}/stream", status="2xx") >= 1


def test_gauges_count_the_state(service: Served) -> None:
    """Two queued (one of them due later), one running with an expired lease, one done; two datasets; one worker."""
    first, second, third, late = (service.submit() for _ in range(4))
    service.client.put("/v1/datasets?name=unchecked", content=b"nobody has looked")
    done, running = service.claim(), service.claim()
    assert (done.job_id, running.job_id) == (first, second)
    service.append(done, row("loss", 1.0), row("loss", 0.5))
    service.finish(done)
    with service.sessions.begin() as session:
        for job, changes in (
            (running.job_id, {"lease_expires_at": db_now(plus=-1)}),
            (third, {"updated_at": db_now(plus=-100)}),
            (late, {"updated_at": db_now(plus=-500), "not_before": db_now(plus=60)}),
        ):
            session.execute(update(Job).where(Job.id == job).values(**changes))
        about: dict[str, Any] = {"host": "h", "pid": 1, "slots": 2, "device": "cpu", "versions": {}}
        record_heartbeat(session, "h/1", queues=["data", "predict"], **about)
    found = scrape(service)
    states = {"queued": 2, "running": 1, "succeeded": 1, "failed": 0, "validating": 0}
    assert {state: found.get("trainkit_jobs", state=state) for state in states} == states
    assert len([1 for name, _ in found.values if name == "trainkit_jobs"]) == 11
    assert found.get("trainkit_queue_waiting", queue="train") == 1
    assert 100 <= found.get("trainkit_queue_oldest_seconds", queue="train") < 400
    assert found.get("trainkit_queue_waiting", queue="data") == 1
    workers = {queue: found.get("trainkit_workers", queue=queue) for queue in ("train", "data", "predict")}
    assert workers == {"train": 0, "data": 1, "predict": 1}
    assert found.get("trainkit_workers_slots", queue="data") == 2
    assert found.get("trainkit_leases_expired") == 1
    assert (found.get("trainkit_datasets", state="ready"), found.get("trainkit_datasets", state="validating")) == (4, 1)
    assert found.get("trainkit_metric_points") == 2
    assert found.get("trainkit_database_up") == 1
    assert found.total("trainkit_build_info") == 1
    assert found.get("trainkit_database_pool_connections_limit") in (15, 30)


@SQLITE
def test_what_changes_by_the_second_is_counted_by_index(service: Served) -> None:
    plans: list[str] = []
    looking = False

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if looking and statement.startswith("SELECT"):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(step[-1] for step in cursor.fetchall())

    event.listen(service.context.engine, "before_cursor_execute", explain)
    with service.sessions() as session:
        looking = True
        current_counts(session)
        looking = False
    event.remove(service.context.engine, "before_cursor_execute", explain)
    tables = [
        plan for plan in plans if any(name in plan for name in ("jobs", "datasets", "inference_requests", "uploads"))
    ]
    assert len(tables) >= 6, plans
    assert all(plan.startswith("SEARCH") and "INDEX" in plan for plan in tables), tables


def test_ends_are_counted_once_and_only_when_they_have_happened(service: Served) -> None:
    service.submit()
    service.submit()
    before = scrape(service)
    claimed = service.claim()
    broken = failure("process_killed", "killed")
    with service.sessions() as session:
        attempts.fail(session, claimed.claim, failure("not_trainable", "no"))
        session.rollback()
    with service.sessions.begin() as session:
        attempts.fail(session, claimed.claim, failure("not_trainable", "no"))
    other = service.claim()
    with service.sessions.begin() as session:
        job = session.get_one(Job, other.job_id)
        attempts.interrupted(session, job, "killed", 5, error=broken)
    assert service.client.post(f"/v1/jobs/{other.job_id}/cancel").status_code == 200
    after = scrape(service)

    def more(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    nothing = {"layer": "", "code": ""}
    spec = {"layer": "spec", "code": "not_trainable"}
    assert more("trainkit_jobs_ended_total", state="failed", stop_reason="", **spec) == 1
    assert more("trainkit_jobs_ended_total", state="cancelled", stop_reason="", **nothing) == 1
    assert more("trainkit_attempts_ended_total", outcome="failed", **spec) == 1
    assert more("trainkit_attempts_ended_total", outcome="lost", layer="platform", code="process_killed") == 1
    assert more("trainkit_attempts_started_total", queue="train") == 2
    assert more("trainkit_job_queued_seconds_count", queue="train") == 2


@SQLITE
def test_a_rollback_forgets_and_a_savepoint_does_not_tell(service: Served) -> None:
    calls: list[str] = []
    with service.sessions() as session:
        session.execute(text("SELECT 1"))
        after_commit(session, lambda: calls.append("rolled back"))
        session.rollback()
        after_commit(session, lambda: calls.append("kept"))
        with session.begin_nested():
            session.execute(text("SELECT 1"))
        assert calls == []
        session.commit()
        session.execute(text("SELECT 1"))
        session.commit()
    assert calls == ["kept"]


@SQLITE
def test_a_token_opens_it_and_nothing_else(settings: Settings) -> None:
    from dataclasses import replace

    app = create_app(replace(settings, metrics_token=TOKEN))
    for given, path, status in (
        (TOKEN, "/metrics", 200),
        (TOKEN, "/metrics/", 401),
        (TOKEN, "/v1/jobs", 401),
        (TOKEN, "/v1/keys", 401),
        (TOKEN, "/metrics/../v1/jobs", 401),
        (TOKEN + "x", "/metrics", 401),
        ("", "/metrics", 401),
        ("\xff", "/metrics", 401),
    ):
        client = TestClient(app, headers={"Authorization": f"Bearer {given}".encode("latin-1")})
        assert client.get(path, follow_redirects=False).status_code == status, (given, path)
    assert TestClient(create_app(settings), headers={"Authorization": "Bearer "}).get("/metrics").status_code == 401
    app.state.context.engine.dispose()


@SQLITE
def test_a_key_needs_the_scope_operator(service: Served) -> None:
    """The numbers are those of all projects, and an admin is one of a project."""
    refused = service.client_for("default", "admin").get("/metrics")
    assert refused.status_code == 403
    assert "operator" in refused.json()["detail"]
    assert service.client_for("default", "operator").get("/metrics").status_code == 200


@SQLITE
def test_the_broker_is_named_with_its_known_holes(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "trainkit_broker_info{" not in service.client.get("/metrics").text, "nobody answers"
    monkeypatch.setattr(service.context.doorbell, "_server", (time.monotonic(), ("redis", "6.2.14")))
    found = service.client.get("/metrics").text
    assert 'trainkit_broker_info{server="redis",version="6.2.14"} 1.0' in found
    assert "trainkit_broker_vulnerabilities 2.0" in found


@SQLITE
def test_a_database_that_is_away_is_told(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.auth.KEEP_SECONDS", 0.0)
    assert scrape(service).get("trainkit_database_up") == 1

    def away(*_: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr("service.auth.authenticate", away)
    monkeypatch.setattr(gauges, "current_counts", away)
    found = Scrape(service.client.get("/metrics").text)
    assert found.get("trainkit_database_up") == 0
    assert ("trainkit_jobs", frozenset({("state", "queued")})) not in found.values
    assert found.total("trainkit_http_requests_total") > 0
    assert service.client.get("/v1/jobs").json()["code"] == "database_unavailable"
    stranger = TestClient(service.app, headers={"Authorization": f"Bearer tk_{'0' * 8}_{'0' * 40}"})
    assert stranger.get("/metrics").json()["code"] == "database_unavailable"


def test_a_database_that_hangs_holds_no_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "MAX_WAIT_SECONDS", 0.05)
    release = threading.Event()
    calls = []

    def hang() -> Any:
        calls.append(1)
        release.wait(30)
        raise OperationalError("SELECT", {}, Exception("gone"))

    registry = CollectorRegistry()
    registry.register(StateGauges(hang))  # type: ignore[arg-type]
    for _ in range(3):
        assert Scrape(generate_latest(registry).decode()).get("trainkit_database_up") == 0
    release.set()
    assert calls == [1], "one query at a time, however many scrapes"


def test_scrapes_share_a_query(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "CURRENT_CACHE_SECONDS", 60.0)
    queries = []
    engine = make_engine(migrated_url)
    collector = StateGauges(session_factory(engine))

    def count_queries(session: Any) -> Any:
        queries.append(1)
        return current_counts(session)

    monkeypatch.setattr(gauges, "current_counts", count_queries)
    registry = CollectorRegistry()
    registry.register(collector)
    for _ in range(5):
        assert Scrape(generate_latest(registry).decode()).get("trainkit_database_up") == 1
    assert queries == [1]
    with session_factory(engine)() as session:
        assert total_counts(session).points == 0
    engine.dispose()


def test_counts_that_take_long_are_counted_less_often(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "CURRENT_CACHE_SECONDS", 0.01)
    monkeypatch.setattr(gauges, "CHEAP_SECONDS", 0.0001)
    queries = []
    engine = make_engine(migrated_url)
    collector = StateGauges(session_factory(engine))

    def count_slowly(session: Any) -> Any:
        queries.append(1)
        time.sleep(0.2)
        return current_counts(session)

    monkeypatch.setattr(gauges, "current_counts", count_slowly)
    for _ in range(5):
        list(collector.collect())
        time.sleep(0.02)
    assert queries == [1], "0.2 s are two thousand times as long: the counts are kept for 20 s"
    engine.dispose()
