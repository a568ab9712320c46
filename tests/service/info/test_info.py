"""What an installation tells of itself: enough to use it, and nothing that helps to attack it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.keys.service import create_key
from service.settings import Settings
from service.workers import repository as workers
from tests.support.api import Served, assert_problem
from trainkit.version import __version__

WORKER: dict[str, Any] = {
    "host": "secret-host",
    "pid": 4711,
    "queues": ["train", "predict"],
    "slots": 2,
    "memory_bytes": 8 << 30,
    "accelerator_bytes": None,
    "versions": {},
}


@pytest.mark.postgresql
def test_it_tells_version_workers_and_limits(service: Served, settings: Settings) -> None:
    found = service.client_for("default", "viewer").get("/v1/info").json()
    kind = "postgresql" if settings.database_url.startswith("postgresql") else "sqlite"
    assert (found["version"], found["api_version"], found["database"]) == (__version__, "v1", kind)
    assert (found["devices"], found["broker"]) == ([], "redis")
    assert set(found["features"].values()) == {False}
    assert found["limits"]["upload_bytes"] == settings.max_upload_bytes
    assert found["limits"]["key_days"] is None
    with service.sessions.begin() as session:
        for number, device in enumerate(("cuda:0", "cuda:1", "cpu")):
            accelerator = (number + 1) << 30 if device != "cpu" else None
            about = {**WORKER, "device": device, "accelerator_bytes": accelerator}
            workers.record_heartbeat(session, f"secret-worker-{number}", **about)
    found = service.client.get("/v1/info").json()
    assert found["devices"] == [
        {"device": "cpu", "workers": 1, "train_slots": 2, "memory_bytes": 8 << 30, "accelerator_bytes": None},
        {"device": "cuda", "workers": 2, "train_slots": 4, "memory_bytes": 8 << 30, "accelerator_bytes": 2 << 30},
    ]
    assert (found["features"]["cuda"], found["features"]["predictions"]) == (True, True)


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_it_tells_no_secret(settings: Settings, tmp_path: Path) -> None:
    secretive = replace(
        settings,
        broker_url="amqp://user:hunter2hunter2@broker.internal/",
        metrics_token="token-of-metrics",
        file_roots=(tmp_path / "private",),
        s3_buckets=("secret-bucket",),
        cors_origins=("https://app.example.com",),
        max_requests_per_key=0,
    )
    app = create_app(secretive)
    with app.state.context.sessions.begin() as session:
        workers.record_heartbeat(session, "secret-worker", device="cpu", **WORKER)
        operator = create_key(session, None, "operator", operator=True)
    bare = TestClient(app)
    assert_problem(bare.get("/v1/info"), 401, "key_missing")
    answer = bare.get("/v1/info", headers={"Authorization": f"Bearer {operator}"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["broker"], found["limits"]["requests_at_once"]) == ("rabbitmq", None)
    features = found["features"]
    assert (features["file_sources"], features["s3_sources"], features["cross_origin"]) == (True, True, True)
    for secret in ("hunter2", "internal", "token-of", "private", "secret", "4711", "example.com", str(tmp_path)):
        assert secret not in answer.text, secret
    app.state.context.engine.dispose()
