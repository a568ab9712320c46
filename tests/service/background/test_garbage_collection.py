"""What nobody needs is removed; what somebody may need stays."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.background.garbage_collection import collect_garbage, finish_uploads
from service.database import db_now
from service.datasets import intake
from service.datasets.tables import Blob, DatasetVersion
from service.uploads.receive import locked_file
from service.uploads.tables import Upload
from tests.support.api import FACTS, Served
from tests.support.tus_requests import begun, patch

pytestmark = pytest.mark.postgresql

AT_ONCE = -1.0
BODY = b"0123456789"
SHA = hashlib.sha256(BODY).hexdigest()


def files(service: Served) -> set[str]:
    root = service.context.storage.root
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def finish(service: Served) -> list[str]:
    rung: list[str] = []
    finish_uploads(service.sessions, service.context.storage, rung.append)
    return rung


def collect(service: Served, grace: float = AT_ONCE) -> None:
    collect_garbage(service.sessions, service.context.storage, grace)


def stored(service: Served, key: str, body: bytes = BODY) -> Path:
    path = service.context.storage.local_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def test_expired_uploads_go_with_their_bytes(service: Served) -> None:
    old, new = begun(service.client, 10), begun(service.client, 10)
    done = begun(service.client, 10)
    for where in (old, new):
        patch(service.client, where, 0, b"01234")
    patch(service.client, done, 0, BODY)
    identifiers = [where.rsplit("/", 1)[1] for where in (old, done)]
    with service.sessions.begin() as session:
        session.execute(update(Upload).where(Upload.id.in_(identifiers)).values(expires_at=db_now(plus=-1)))
    finish(service)
    left = service.client.get("/v1/uploads").json()["data"]
    assert [upload["id"] for upload in left] == [new.rsplit("/", 1)[1]]
    assert files(service) == {f"uploads/{left[0]['id']}", f"blobs/{SHA[:2]}/{SHA}"}
    assert len(service.client.get("/v1/datasets").json()["data"]) == 1


def test_a_received_upload_becomes_a_dataset_though_nobody_asks(service: Served) -> None:
    identifier = begun(service.client, 10).rsplit("/", 1)[1]
    stored(service, f"uploads/{identifier}")
    with service.sessions.begin() as session:
        session.execute(update(Upload).values(state="received", received=10, sha256=SHA, expires_at=db_now(plus=-1)))
    assert finish(service) == ["data"]
    assert finish(service) == []
    (dataset,) = service.client.get("/v1/datasets").json()["data"]
    assert (dataset["sha256"], dataset["state"]) == (SHA, "validating")


def test_one_that_died_between_rename_and_commit_is_not_collected(service: Served) -> None:
    begun(service.client, 10)
    stored(service, f"blobs/{SHA[:2]}/{SHA}")
    with service.sessions.begin() as session:
        session.execute(update(Upload).values(state="received", received=10, sha256=SHA))
    collect(service)
    assert finish(service) == ["data"]
    assert files(service) == {f"blobs/{SHA[:2]}/{SHA}"}


def test_bytes_without_a_row_and_rows_without_a_dataset_go(service: Served) -> None:
    kept = service.client.put("/v1/datasets?name=d", content=b"kept").json()["sha256"]
    stored(service, f"blobs/{SHA[:2]}/{SHA}")
    orphan = hashlib.sha256(b"orphan").hexdigest()
    stored(service, f"blobs/{orphan[:2]}/{orphan}", b"orphan")
    with service.sessions.begin() as session:
        key = f"blobs/{orphan[:2]}/{orphan}"
        now = session.scalar(select(db_now()))
        session.add(Blob(sha256=orphan, bytes=6, storage_key=key, created_at=now))
    collect(service, 3600)
    assert len(files(service)) == 3, "young files are left alone"
    collect(service)
    assert files(service) == {f"blobs/{kept[:2]}/{kept}"}
    with service.sessions() as session:
        assert session.scalars(select(Blob.sha256)).all() == [kept]


def test_uploads_while_their_bytes_are_collected_never_lose_them(service: Served) -> None:
    """The same bytes are stored as an orphan, collected and uploaded, all at once."""
    key = f"blobs/{SHA[:2]}/{SHA}"
    for number in range(8):
        stored(service, key)
        with ThreadPoolExecutor(3) as pool:
            work = [pool.submit(collect, service) for _ in range(2)]
            answer = pool.submit(service.client.put, f"/v1/datasets?name=d{number}", content=BODY)
            for each in work:
                each.result()
        dataset = answer.result().json()["id"]
        assert service.context.storage.local_path(key).read_bytes() == BODY
        assert service.client.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_prepared_data_goes_with_its_dataset(service: Served) -> None:
    ready = service.client.put("/v1/datasets?name=a", content=b"a").json()["id"]
    checked = service.client.put("/v1/datasets?name=b", content=b"b").json()["id"]
    with service.sessions.begin() as session:
        first = intake.claim(session, "w", 30)
        assert first is not None
        intake.ready(session, first.claim, FACTS, {}, f"prepared/{ready}/{first.claim.fence}")
        session.execute(update(DatasetVersion).where(DatasetVersion.id == checked).values(fence=3))
    storage = service.context.storage
    keep = {f"prepared/{ready}/{first.claim.fence}/meta.json", f"prepared/{checked}/3/meta.json"}
    gone = {f"prepared/{ready}/9/meta.json", f"prepared/{checked}/2/meta.json", "prepared/ds_gone/1/meta.json"}
    for name in keep | gone:
        path = storage.root / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    collect(service, 3600)
    assert files(service) >= keep | gone
    collect(service)
    assert {name for name in files(service) if name.startswith("prepared")} == keep


def test_partial_files_without_an_upload_go_but_not_one_that_is_written(service: Served) -> None:
    known = begun(service.client, 10)
    patch(service.client, known, 0, b"01234")
    stored(service, "uploads/up_gone")
    writing = stored(service, "uploads/up_busy")
    old = stored(service, "incoming/x.part")
    os.utime(old, (time.time() - 90000,) * 2)
    with locked_file(writing):  # type: ignore[union-attr]
        collect(service)
        assert files(service) == {f"uploads/{known.rsplit('/', 1)[1]}", "uploads/up_busy"}
    collect(service)
    assert len(files(service)) == 1
    assert patch(service.client, known, 5, b"56789").status_code == 204
