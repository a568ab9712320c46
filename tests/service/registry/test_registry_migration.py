"""Models and datasets of before the registry get names, versions and the lineage that can still be told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import MetaData, select

from service.database import make_engine
from service.datasets.references import DATASETS
from service.jobs.model_registration import spec_digest
from service.migrate import upgrade
from service.models.references import MODELS
from service.models.tables import Model
from service.registry import repository, service
from service.registry.tables import RegisteredName
from service.sessions import session_factory

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AT = {"created_at": NOW, "updated_at": NOW}
RESOLVED = {
    "name": "n",
    "labels": {},
    "dataset": {"id": "ds_2"},
    "model": {"kind": "mlp"},
    "start_from": {"model": "mdl_0"},
}
COUNTS = dict.fromkeys(("attempts", "interruptions", "priority", "fence", "peer_decisions", "compacted_seq"), 0)
NUMBERS = {"max_attempts": 3, "next_seq": 1, "next_event_seq": 1, "next_decision_seq": 1, "next_log_seq": 1}
JOB: dict[str, Any] = {"id": "job_1", "project_id": "p", "name": "digits", "dataset_id": "ds_2", "queue": "train"}
JOB |= {"labels": {}, "spec": {}, "resolved": RESOLVED, "state": "succeeded", "metrics_last": {}, "metrics_best": {}}
MODEL: dict[str, Any] = {
    "project_id": "p",
    "job_id": None,
    "kind": "mlp",
    "storage_key": "k",
    "metrics": {},
    "bytes": 1,
}
MODEL |= {"created_at": NOW}


@pytest.mark.postgresql
def test_what_was_trained_before_is_registered(database_url: str) -> None:
    upgrade(database_url, "0023")
    engine = make_engine(database_url)
    old = MetaData()
    old.reflect(engine)
    manifest = {"spec": {"dataset": {"id": "ds_gone"}, "model": {"kind": "mlp"}}, "versions": {"trainkit": "0.0.9"}}
    models = {
        "mdl_0": ("digits", None, {}),
        "mdl_1": ("digits", "job_1", manifest),
        "mdl_2": ("a/b@c:7", None, manifest),
        "mdl_3": ("", None, {}),
    }
    with engine.begin() as connection:
        tables = old.tables
        connection.execute(tables["projects"].insert(), {"id": "p", "name": "p", "created_at": NOW})
        blob = {"sha256": "a" * 64, "bytes": 9, "storage_key": "blobs/aa/x", "created_at": NOW}
        connection.execute(tables["blobs"].insert(), blob)
        for version in (1, 2):
            dataset = {"id": f"ds_{version}", "project_id": "p", "name": "d", "version": version, "state": "ready"}
            stored = {"blob_sha256": "a" * 64, "bytes": 9, "prepared_bytes": 0, "interruptions": 0, "fence": 2}
            connection.execute(tables["datasets"].insert(), {**dataset, **stored, **AT})
        connection.execute(tables["jobs"].insert(), {**JOB, **COUNTS, **NUMBERS, **AT})
        for identifier, (name, job, described) in models.items():
            row = {**MODEL, "id": identifier, "name": name, "job_id": job, "manifest": described}
            connection.execute(tables["models"].insert(), row)
    engine.dispose()
    upgrade(database_url)
    engine = make_engine(database_url)
    with session_factory(engine)() as session:
        found = {row.id: row for row in session.scalars(select(Model))}
        assert {one: (row.name, row.version) for one, row in found.items()} == {
            "mdl_0": ("digits", 1),
            "mdl_1": ("digits", 2),
            "mdl_2": ("a-b-c-7", 1),
            "mdl_3": ("", None),
        }
        assert all((row.updated_at, row.labels, row.notes) == (NOW, {}, None) for row in found.values())
        assert found["mdl_1"].lineage == {
            "job": "job_1",
            "dataset": {"id": "ds_2", "name": "d", "version": 2, "sha256": "a" * 64},
            "spec_sha256": spec_digest(RESOLVED),
            "parents": ["mdl_0"],
            "trainkit": "0.0.9",
        }
        gone = {"id": "ds_gone", "name": None, "version": None, "sha256": None}
        assert (found["mdl_2"].lineage["dataset"], found["mdl_3"].lineage["dataset"]) == (gone, None)
        counted = {(row.resource, row.name): row.last_version for row in session.scalars(select(RegisteredName))}
        assert counted == {("dataset", "d"): 2, ("model", "digits"): 2, ("model", "a-b-c-7"): 1}
        assert service.resolve_reference(session, "p", MODELS, "digits").id == "mdl_1"
        assert service.resolve_reference(session, "p", DATASETS, "d:1").id == "ds_1"
        assert repository.next_version(session, "p", DATASETS, "d") == 3
    engine.dispose()
