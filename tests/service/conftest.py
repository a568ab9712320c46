"""The API in process, on both databases, with nobody listening to its bell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service.app import create_app
from service.context import Context
from service.datasets import intake
from service.keys.service import create_key
from service.migrate import upgrade
from service.settings import Settings

FACTS: dict[str, Any] = {
    "kind": "images",
    "samples": 1000,
    "input_shape": [1, 8, 8],
    "input_dtype": "uint8",
    "classes": {"a": 500, "b": 500},
    "target_type": "class",
}


@dataclass
class Service:
    """An application, its parts, and a client with a key for everything."""

    app: FastAPI
    client: TestClient
    context: Context

    @property
    def sessions(self) -> sessionmaker[Session]:
        return self.context.sessions

    def client_for(self, project: str, *scopes: Any) -> TestClient:
        """A client with a new key of that project."""
        with self.sessions.begin() as session:
            key = create_key(session, project, "test", scopes or ("read", "write", "admin"))
        return TestClient(self.app, headers={"Authorization": f"Bearer {key}"}, raise_server_exceptions=False)

    def ready_dataset(self, client: TestClient | None = None, name: str = "d", **facts: Any) -> str:
        """Upload some bytes and say that their check went well."""
        body = np.random.default_rng(abs(hash(name))).bytes(100)
        answer = (client or self.client).put(f"/v1/datasets?name={name}", content=body)
        assert answer.status_code == 201, answer.text
        with self.sessions.begin() as session:
            claimed = intake.claim(session, "tests", 30)
            assert claimed is not None
            intake.ready(session, claimed.dataset_id, claimed.fence, {**FACTS, **facts}, {}, "prepared/x")
        return str(answer.json()["id"])


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        broker_url=f"redis+socket://{tmp_path}/nobody.sock",
        storage_url=str(tmp_path / "storage"),
        home=tmp_path,
        scratch=tmp_path / "scratch",
        max_upload_bytes=1 << 20,
        predict_seconds=1,
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    upgrade(settings.database_url)
    app = create_app(settings)
    made = Service(app, TestClient(app), app.state.context)
    with TestClient(app):
        made.client = made.client_for("default")
        yield made


@pytest.fixture
def submit(service: Service) -> Callable[..., str]:
    """Submit a small job on a ready dataset; returns its id."""

    def send(**changes: Any) -> str:
        spec = {"dataset": service.ready_dataset(name=f"d{len(changes)}"), "model": {"kind": "mlp"}, **changes}
        answer = service.client.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return send
