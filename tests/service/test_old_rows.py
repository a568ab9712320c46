"""What an earlier version has stored is always answered, whatever the responses of this one hold."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import MetaData

from service.app import create_app
from service.database import make_engine
from service.migrate import upgrade
from service.openapi import operations
from service.response_model import StoredDocument
from service.settings import Settings
from tests.support.api import Served
from tests.support.old_rows import rows_of_the_eleventh_schema

SPEC = {"dataset": "ds_1", "model": {"kind": "mlp"}}
STORED: dict[str, dict[str, Any]] = {
    "jobs": {
        "state": "failed",
        "parent": {"job": "job_0"},
        "progress": {"epoch": 3},
        "error": {"code": "does_not_fit", "evidence": {}},
        "result": {"model": "mdl_1"},
        "evaluation": {"metrics": {"accuracy": 0.5}},
    },
    "datasets": {
        "facts": {"kind": "table", "samples": 3},
        "report": {"findings": [{}]},
        "progress": {},
        "error": {"code": "x"},
    },
    "uploads": {"error": {}},
    "experiments": {"state": "failed", "error": {}, "plan": {"kind": "kfold", "folds": 2, "spec": SPEC}},
}
"""What JSON the rows hold beside."""
MORE: dict[str, dict[str, Any]] = {
    "models": {"id": "mdl_1", "project_id": "p", "job_id": "job_1", "name": "m", "kind": "mlp", "labels": {}},
    "attempts": {"job_id": "job_1", "fence": 2, "worker": "w", "error": {"code": "does_not_fit"}},
    "decisions": {"job_id": "job_1", "seq": 1, "fence": 2, "step": 1, "epoch": 1, "rule": {}, "inputs": {}},
}
IDS = {
    **{"job_id": "job_1", "dataset": "ds_1", "model": "mdl_1", "experiment_id": "exp_1", "upload_id": "up_1"},
    **{
        "webhook_id": "wh_1",
        "delivery_id": "msg_1",
        "project_id": "p",
        "plot": "curves",
        "index": "0",
        "name": "log.txt",
    },
}


def subclasses(model: type[StoredDocument]) -> Iterator[type[StoredDocument]]:
    for one in model.__subclasses__():
        yield one
        yield from subclasses(one)


@pytest.mark.parametrize("model", list(subclasses(StoredDocument)), ids=lambda model: model.__name__)
def test_whatever_a_stored_document_lacks_has_a_default(model: type[StoredDocument]) -> None:
    model.model_validate({})
    schema = model.model_json_schema(mode="serialization")
    assert set(schema["required"]) == set(schema["properties"]), "clients may rely on every field"


@pytest.fixture
def old(database_url: str, settings_of_tests: Settings) -> Iterator[Served]:
    upgrade(database_url, "0011")
    engine, tables = make_engine(database_url), MetaData()
    tables.reflect(engine)
    rows = rows_of_the_eleventh_schema()
    now = rows["projects"][0]["created_at"]
    for name, row in MORE.items():
        times = {"created_at": now, "updated_at": now, "started_at": now, "at": now, "bytes": 9, "action": "continue"}
        times |= {"metrics": {}, "manifest": {}, "storage_key": "models/x"}
        rows[name] = [{column: value for column, value in {**times, **row}.items() if column in tables.tables[name].c}]
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            for row in rows.get(table.name, ()):
                connection.execute(table.insert(), {**row, **STORED.get(table.name, {})})
    engine.dispose()
    upgrade(database_url)
    app = create_app(settings_of_tests)
    served = Served(app, TestClient(app), app.state.context)
    with TestClient(app):
        served.client = served.client_for("p")
        yield served
    app.state.context.engine.dispose()


@pytest.fixture
def settings_of_tests(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        broker_url=f"redis+socket://{tmp_path}/nobody.sock",
        storage_url=str(tmp_path / "storage"),
        home=tmp_path,
        scratch=tmp_path / "scratch",
        secret_keys=(b64encode(bytes(32)).decode(),),
        predict_seconds=1,
    )


def test_rows_of_an_earlier_version_are_answered_by_every_get(old: Served) -> None:
    answered, failed = set(), {}
    for path, method, operation in operations(old.app.openapi()):
        if method != "get" or "text/event-stream" in str(operation["responses"].get("200")):
            continue
        address = re.sub(r"{(\w+)}", lambda found: IDS.get(found[1], "x"), path)
        if path.endswith("/comparison"):
            address += "?with=exp_1"
        answer = old.client.get(address)
        if answer.status_code == 500:
            failed[address] = answer.text[:300]
        elif answer.status_code == 200:
            answered.add(operation["operationId"])
    assert not failed, failed
    shown = {"getJob", "getJobEvaluation", "listJobAttempts", "listJobDecisions", "getDataset", "getDatasetReport"}
    assert answered >= shown | {"getModel", "getUpload", "getExperiment", "getWebhookDelivery", "getJobRecommendation"}
    job = old.client.get("/v1/jobs/job_1").json()
    assert job["error"]["code"] == "does_not_fit"
    assert (job["runtime"]["threads"], job["runtime"]["device"]) == (2, "")
    assert job["parent"] == {"job": "job_0", "relation": "fork", "step": None}
    assert job["purged"] == {"logs": {"at": None, "reason": "retention"}}
