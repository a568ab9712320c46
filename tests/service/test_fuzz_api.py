"""Generated requests for every route: no answer is the service's fault, each has the form that OpenAPI declares."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.settings import Settings
from tests.support.api import Served, row
from tests.support.tus_requests import begun

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
NEED_A_WORKER = ("predict", "evaluate", "preview.png", "init-report")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[FastAPI]:
    home = tmp_path_factory.mktemp("fuzz")
    shutil.copyfile(migrated_sqlite, home / "trainkit.db")
    app = create_app(
        Settings.from_env(
            {
                "TRAINKIT_HOME": str(home),
                "TRAINKIT_BROKER_URL": "memory://",
                "TRAINKIT_PREDICT_SECONDS": "0.1",
                "TRAINKIT_WEBHOOK_ALLOW": "127.0.0.1",
            }
        )
    )
    yield app
    app.state.context.engine.dispose()


# a stream has no end to wait for: it has tests of its own
OPERATIONS = [
    (method, path)
    for path, item in create_app(Settings.from_env({})).openapi()["paths"].items()
    for method in item
    if not path.endswith("/stream")
]


@pytest.fixture(scope="module")
def served(app: FastAPI) -> Served:
    service = Served(app, TestClient(app), app.state.context)
    service.client = service.client_for("default")
    return service


@pytest.fixture(scope="module")
def known(served: Served) -> dict[str, str]:
    """Ids of things that are there, so that requests reach beyond a 404."""
    job = served.submit()
    claimed = served.claim()
    served.say(claimed, "one", "two")
    served.append(claimed, row("loss", 1.0), row("loss", float("nan"), 2), row("accuracy", 0.5))
    model = served.finish(claimed)
    upload = begun(served.client, 1000).rsplit("/", 1)[1]
    webhook = served.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    return {
        "job_id": job,
        "model_id": model,
        "dataset_id": served.job(job)["dataset"]["id"],
        "upload_id": upload,
        "webhook_id": webhook,
        "delivery_id": served.client.post(f"/v1/webhooks/{webhook}/test").json()["id"],
    }


@pytest.fixture(scope="module")
def schema(app: FastAPI, served: Served) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=dict(served.client.headers))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: str(value).replace("/", "|"))
def test_generated_requests(
    schema: Any, served: Served, known: dict[str, str], method: str, path: str, mode: GenerationMode
) -> None:
    authorization = {"Authorization": served.client.headers["Authorization"]}

    @given(schema[path][method.upper()].as_strategy(generation_mode=mode))
    @settings(max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case) -> None:
        if method != "delete":
            case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
        answer = case.call(headers=authorization)
        if answer.status_code != 503 or not path.endswith(NEED_A_WORKER):
            case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "a route that takes nothing has no wrong input"
