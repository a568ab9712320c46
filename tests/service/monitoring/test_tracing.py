"""Spans of requests, for a collector that listens; and nothing of OpenTelemetry for whoever did not ask."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service import tracing
from service.app import create_app
from service.settings import Settings
from tests.support.api import Served
from tests.support.otlp_collector import attributes, collector

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
ROOT = Path(__file__).parents[3]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@SQLITE
def test_a_span_of_every_request(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as heard:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", heard.url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
        app = create_app(replace(settings, tracing=True))
        service = Served(app, TestClient(app, raise_server_exceptions=False), app.state.context)
        client = service.client_for("default")
        job = service.submit(client)
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert client.get(f"/v1/jobs/{job}", headers=sent).status_code == 200
        assert client.get("/v1/jobs/none").status_code == 404
        assert service.client.get("/v1/jobs").status_code == 401
        for quiet in ("/healthz", "/readyz", "/metrics"):
            client.get(quiet)
        app.state.spans.shutdown()
        app.state.context.engine.dispose()
    assert {service for service, _ in heard.spans} == {"trainkit-api"}
    spans = [span for _, span in heard.spans]
    names = [span.name for span in spans]
    assert names[:2] == ["PUT /v1/datasets", "POST /v1/jobs"]
    assert names[2:4] == ["GET /v1/jobs/{job_id}"] * 2
    assert len(spans) == 5
    assert not any(job in name for name in names)
    found = spans[2]
    assert (found.trace_id.hex(), found.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(found)["http.route"] == "/v1/jobs/{job_id}"
    assert spans[3].trace_id.hex() != TRACE
    assert "tk_" not in str(spans)


LOOK = """
import sys
from fastapi.testclient import TestClient
from service.app import create_app
from service.migrate import upgrade
from service.settings import Settings
import worker.supervisor, worker.instrumentation
settings = Settings.from_env()
upgrade(settings.database_url)
with TestClient(create_app(settings)) as client:
    assert client.get("/healthz").status_code == 200
# FastAPI itself imports the API, which does nothing without an SDK
parts = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation", "opentelemetry.proto")
print([name for name in sys.modules if name.startswith(parts)])
"""


def test_without_the_variable_nothing_is_imported(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRAINKIT_"))}
    environment = {**kept, "TRAINKIT_HOME": str(tmp_path), "TRAINKIT_BROKER_URL": "memory://"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_what_asks_for_it() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    assert not Settings.from_env({}).tracing
    assert Settings.from_env(endpoint).tracing
    assert Settings.from_env({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}).tracing
    assert Settings.from_env({"TRAINKIT_OTEL": "1"}).tracing
    assert not Settings.from_env({**endpoint, "TRAINKIT_OTEL": "0"}).tracing


@SQLITE
def test_without_the_packages_it_serves_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "NEEDED", (*tracing.NEEDED, "opentelemetry_of_tomorrow.sdk"))
    wanting = replace(settings, tracing=True)
    assert not tracing.is_enabled(wanting)
    app = create_app(wanting)
    assert TestClient(app).get("/healthz").status_code == 200
    assert "opentelemetry_of_tomorrow.sdk is not installed (pip install 'trainkit[otel]')" in caplog.text
    app.state.context.engine.dispose()
