"""Limits answer 413 with the limit, before a byte is read where the size is said."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import quota
from service.datasets import intake
from service.errors import HttpProblem
from service.jobs.tables import Artifact, Checkpoint, Job
from service.models.tables import Model
from service.settings import Settings
from tests.support.api import FACTS, Served
from tests.support.tus_requests import begun, create, head, patch

QUOTA = 1000
CHECKPOINT = {"fence": 1, "step": 1, "epoch": 1, "sha256": "0" * 64, "metric_seq": 0}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, max_storage_bytes=QUOTA, max_upload_bytes=600)


def files(service: Served) -> list[Path]:
    return [path for path in service.context.storage.root.rglob("*") if path.is_file()]


def put(service: Served, name: str, body: bytes | Iterator[bytes], **headers: str) -> tuple[int, str, int | None]:
    answer = service.client.put(f"/v1/datasets?name={name}", content=body, headers=headers)
    shown = answer.json()
    return answer.status_code, shown.get("code", ""), shown.get("limit_bytes")


def test_a_single_upload_has_a_limit(service: Served) -> None:
    assert put(service, "d", b"x" * 601) == (413, "too_large", 600)
    assert put(service, "d", iter([b"x" * 400, b"x" * 400])) == (413, "too_large", 600)
    answer = create(service.client, 601)
    assert (answer.status_code, answer.json()["limit_bytes"], "600" in answer.json()["detail"]) == (413, 600, True)
    assert files(service) == []


def test_a_project_has_a_quota(service: Served) -> None:
    assert put(service, "a", b"a" * 600)[0] == 201
    assert put(service, "b", b"b" * 401) == (413, "quota_exceeded", QUOTA)
    assert put(service, "b", iter([b"b" * 200, b"b" * 201])) == (413, "quota_exceeded", QUOTA)
    form = service.client.post("/v1/datasets", files={"file": ("b.csv", b"b" * 401)})
    assert (form.status_code, form.json()["code"]) == (413, "quota_exceeded")
    answer = create(service.client, 401)
    assert (answer.status_code, answer.json()["code"], answer.json()["limit_bytes"]) == (413, "quota_exceeded", QUOTA)
    assert "600 are taken" in answer.json()["detail"]
    assert len(files(service)) == 1
    assert put(service, "b", b"b" * 400)[0] == 201
    stranger = service.client_for("another").put("/v1/datasets?name=a", content=b"a" * 600)
    assert stranger.status_code == 201, "each project has its own"


def test_bytes_that_the_project_has_cost_nothing(service: Served) -> None:
    assert put(service, "a", b"a" * 600)[0] == 201
    digest = base64.b64encode(hashlib.sha256(b"a" * 600).digest()).decode()
    assert put(service, "same", b"a" * 600, **{"Content-Digest": f"sha-256=:{digest}:"})[0] == 201
    assert put(service, "b", b"b" * 400)[0] == 201


def test_open_uploads_count_with_their_whole_length(service: Served) -> None:
    where = begun(service.client, 600)
    assert create(service.client, 401).status_code == 413
    assert put(service, "b", b"b" * 401)[0] == 413
    assert patch(service.client, where, 0, b"x" * 600).status_code == 204
    assert create(service.client, 401).status_code == 413
    other = begun(service.client, 400)
    assert service.client.delete(other, headers={"Tus-Resumable": "1.0.0"}).status_code == 204
    assert create(service.client, 400).status_code == 201


def test_an_upload_of_unknown_length_ends_at_the_quota(service: Served) -> None:
    assert put(service, "a", b"a" * 600)[0] == 201
    where = begun(service.client, None)
    assert patch(service.client, where, 0, b"x" * 300).status_code == 204
    over = patch(service.client, where, 300, b"x" * 101)
    assert (over.status_code, head(service.client, where).headers["upload-offset"]) == (413, "300")
    assert patch(service.client, where, 300, b"", **{"Upload-Length": "401"}).json()["code"] == "quota_exceeded"
    assert "trainkit-dataset" in patch(service.client, where, 300, b"x" * 100, **{"Upload-Length": "400"}).headers


def test_deleting_makes_room(service: Served) -> None:
    answer = service.client.put("/v1/datasets?name=a", content=b"a" * 600)
    assert put(service, "b", b"b" * 500)[0] == 413
    assert service.client.delete(f"/v1/datasets/{answer.json()['id']}").status_code == 204
    assert put(service, "b", b"b" * 500)[0] == 201


def test_what_is_kept_counts_as_what_is_uploaded(service: Served) -> None:
    answer = service.client.put("/v1/datasets?name=a", content=b"a" * 100)
    with service.context.sessions.begin() as session:
        claimed = intake.claim(session, "worker", 30.0)
        assert claimed is not None
        intake.check_quota(session, service.context.settings, claimed.claim, 900)
        with pytest.raises(HttpProblem, match=r"100 by datasets.* needs 901 more"):
            intake.check_quota(session, service.context.settings, claimed.claim, 901)
        intake.ready(session, claimed.claim, FACTS, {}, "prepared/x", 500)
    assert put(service, "b", b"b" * 401)[:2] == (413, "quota_exceeded")
    job = service.client.post("/v1/jobs", json={"dataset": answer.json()["id"], "model": {"kind": "mlp"}}).json()["id"]
    now = datetime.now(UTC)
    with service.context.sessions.begin() as session:
        who = session.get_one(Job, job)
        who.record_bytes = 0  # these are tested in usage/test_row_bytes.py
        session.add(Checkpoint(**CHECKPOINT, id="ckpt_1", job_id=job, storage_key="x", bytes=150, created_at=now))
        session.add(Artifact(job_id=job, name="p", storage_key="y", media_type="z", bytes=50, created_at=now))
        model = {"name": "m", "kind": "mlp", "storage_key": "models/x", "manifest": {}, "metrics": {}}
        times = {"created_at": now, "updated_at": now}
        session.add(Model(**model, **times, id="mdl_1", project_id=who.project_id, job_id=job, bytes=199))
    over = service.client.put("/v1/datasets?name=b", content=b"b" * 2).json()
    assert over["code"] == "quota_exceeded"
    for shown in (
        "999 are taken",
        "100 by datasets",
        "500 by prepared",
        "150 by checkpoints",
        "50 by artifacts",
        "199 by models",
    ):
        assert shown in over["detail"]
    assert put(service, "b", b"b")[0] == 201
    quota._counted.clear()
    refused = service.client.post("/v1/jobs", json={"dataset": answer.json()["id"], "model": {"kind": "mlp"}})
    assert (refused.status_code, refused.json()["code"]) == (413, "quota_exceeded")
    assert service.client.delete("/v1/models/mdl_1").status_code == 204
    again = service.client.post("/v1/jobs", json={"dataset": answer.json()["id"], "model": {"kind": "mlp"}})
    assert again.status_code == 201


class TestOpenUploads:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, max_storage_bytes=None, max_open_uploads=3, max_open_upload_bytes=1000)

    def test_their_number_is_limited(self, service: Served) -> None:
        first = begun(service.client, 1)
        for _ in range(2):
            begun(service.client, 1)
        for _ in range(2):
            refused = create(service.client, 1)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_uploads")
            assert "3 uploads of this project are unfinished" in refused.json()["detail"]
        assert create(service.client_for("another"), 1).status_code == 201, "each project has its own"
        assert patch(service.client, first, 0, b"x").status_code == 204
        assert create(service.client, 1).status_code == 201, "a finished one makes room"

    def test_what_they_declare_is_limited(self, service: Served) -> None:
        begun(service.client, 600)
        refused = create(service.client, 401)
        assert (refused.status_code, refused.json()["code"]) == (413, "too_many_open_bytes")
        assert "1000 bytes together; they have 600, and this needs 401 more" in refused.json()["detail"]
        deferred = begun(service.client, None)
        assert patch(service.client, deferred, 0, b"x" * 401).status_code == 413
        assert patch(service.client, deferred, 0, b"", **{"Upload-Length": "401"}).status_code == 413
        assert patch(service.client, deferred, 0, b"x" * 400, **{"Upload-Length": "400"}).status_code == 204
