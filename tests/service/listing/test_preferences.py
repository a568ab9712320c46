"""`Prefer: wait` on submit, and parts of downloads."""

from __future__ import annotations

import threading
import time

import pytest

from service.jobs.attempts import StoredFile
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@pytest.mark.postgresql
def test_submit_waits_for_the_end_when_that_is_preferred(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}

    def train() -> None:
        time.sleep(0.3)
        service.finish(service.claim())

    worker = threading.Thread(target=train)
    worker.start()
    answer = service.client.post("/v1/jobs", json=spec, headers={"Prefer": "respond-async, wait=20"})
    worker.join()
    assert (answer.status_code, answer.json()["state"]) == (201, "succeeded")
    assert (answer.headers["preference-applied"], answer.headers["location"]) == (
        "wait=20",
        f"/v1/jobs/{answer.json()['id']}",
    )
    answer = service.client.post("/v1/jobs", json=spec, headers={"Prefer": "wait=0"})
    assert (answer.json()["state"], answer.headers["preference-applied"]) == ("queued", "wait=0")
    for other in ("handling=lenient", "wait=soon", "await=3"):
        assert "preference-applied" not in service.client.post("/v1/jobs", json=spec, headers={"Prefer": other}).headers


@SQLITE
def test_a_file_can_be_read_in_parts(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    content = b"0123456789" * 1000
    part = service.context.storage.new_part()
    part.write_bytes(content)
    key = f"artifacts/{job}/1/table.csv"
    service.context.storage.adopt(part, key)
    service.finish(claimed, files=[StoredFile("table.csv", key, "text/csv", len(content))])
    path = f"/v1/jobs/{job}/artifacts/table.csv"
    whole = service.client.get(path)
    tag = whole.headers["etag"]
    assert (whole.content, whole.headers["accept-ranges"]) == (content, "bytes")
    middle = service.client.get(path, headers={"Range": "bytes=10-19"})
    assert (middle.status_code, middle.content) == (206, content[10:20])
    assert middle.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert "content-encoding" not in middle.headers
    assert service.client.get(path, headers={"Range": "bytes=-5"}).content == content[-5:]
    assert service.client.get(path, headers={"Range": "bytes=5-", "If-Range": tag}).status_code == 206
    assert service.client.get(path, headers={"Range": "bytes=5-", "If-Range": '"other"'}).status_code == 200
    assert service.client.get(path, headers={"Range": "bytes=99999-"}).status_code == 416
    assert service.client.get(path, headers={"If-None-Match": tag}).status_code == 304
