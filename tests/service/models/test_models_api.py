"""Models: found, downloaded, asked."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from typing import Any

import pytest
from sqlalchemy import update

from service.database import db_now
from service.inference_requests import repository as inference_requests
from service.inference_requests.tables import InferenceRequest
from service.leases import Claim, StaleFence
from service.models.service import OTHER_TYPES, check_request
from tests.support.api import Served
from trainkit.data.table.request_rows import TABLE_TYPES

TENSORS = bytes(range(256)) * 8192
HEADER = {"network.w": {"dtype": "U8", "shape": [len(TENSORS)], "data_offsets": [0, len(TENSORS)]}}
STORED_HEADER = json.dumps({"__metadata__": {"classes": '["a", "b"]'}, **HEADER}).encode()
WEIGHTS = len(STORED_HEADER).to_bytes(8, "little") + STORED_HEADER + TENSORS


@pytest.fixture
def model(service: Served) -> str:
    """A finished job's model, with files in storage."""
    service.submit(name="digits")
    claimed = service.claim()
    folder = service.context.storage.new_part()
    folder.mkdir()
    (folder / "model.json").write_text('{"format": 1}')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    key = f"models/{claimed.job_id}/{claimed.claim.fence}"
    service.context.storage.put_tree(key, folder)
    return service.finish(claimed, model_key=key)


def answering(service: Served, **reply: Any) -> threading.Thread:
    """A predict worker that answers the next question."""

    def work() -> None:
        for _ in range(200):
            with service.sessions.begin() as session:
                claimed = inference_requests.claim(session, "w", 30)
                if claimed is None:
                    continue
                if "error" in reply:
                    inference_requests.fail(session, claimed.claim, reply["error"])
                else:
                    body = json.dumps(reply).encode()
                    inference_requests.answer(session, claimed.claim, body, "application/json")
                return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_models_are_listed_shown_and_deleted(service: Served, model: str) -> None:
    (listed,) = service.client.get("/v1/models").json()["data"]
    shown = service.client.get(f"/v1/models/{model}").json()
    assert listed == {name: shown[name] for name in shown if name not in ("lineage", "manifest")}
    assert (listed["id"], listed["name"], listed["kind"]) == (model, "digits", "mlp")
    assert service.client.delete(f"/v1/models/{model}").status_code == 204
    assert service.client.get(f"/v1/models/{model}").status_code == 404
    assert not any(p.is_file() for p in (service.context.storage.root / "models").rglob("*"))


def test_a_model_outlives_its_job(service: Served, model: str) -> None:
    job = service.client.get(f"/v1/models/{model}").json()["job"]
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert service.client.get(f"/v1/models/{model}").json()["job"] is None
    assert service.client.get(f"/v1/models/{model}/download").status_code == 200


def test_the_download_is_a_zip_of_the_files(service: Served, model: str) -> None:
    answer = service.client.get(f"/v1/models/{model}/download?format=zip")
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == ["model.json", "model.safetensors"]
    assert archive.read("model.safetensors") == WEIGHTS
    assert service.client.get(f"/v1/models/{model}/download?format=pickle").status_code == 422


def test_the_onnx_file_is_made_by_a_worker_when_it_is_first_asked_for(service: Served, model: str) -> None:
    url = f"/v1/models/{model}/download?format=onnx"
    hint = "Its safetensors are there."
    error = {"code": "no_onnx", "message": "no such operator", "pointer": "", "hint": hint, "status": 409}
    thread = answering(service, error=error)
    refused = service.client.get(url)
    thread.join()
    assert (refused.status_code, refused.json()["code"]) == (409, "no_onnx")

    job = service.client.get(f"/v1/models/{model}").json()["job"]
    path = service.context.storage.local_path(f"models/{job}/1") / "model.onnx"
    path.write_bytes(b"a graph")  # as the worker does
    answer = service.client.get(url)
    assert (answer.status_code, answer.content) == (200, b"a graph")
    assert answer.headers["content-disposition"] == f'attachment; filename="{model}.onnx"'


def test_files_that_are_gone_are_said_to_be(service: Served, model: str) -> None:
    job = service.client.get(f"/v1/models/{model}").json()["job"]
    service.context.storage.delete(f"models/{job}/1")
    for form in ("safetensors", "zip", "onnx"):
        answer = service.client.get(f"/v1/models/{model}/download?format={form}")
        assert (answer.status_code, answer.json()["code"]) == (404, "files_missing")


def test_the_safetensors_download_is_one_file_with_the_manifest(service: Served, model: str) -> None:
    url = f"/v1/models/{model}/download"
    answer = service.client.get(url)
    assert answer.headers["content-type"] == "application/vnd.safetensors"
    assert answer.headers["content-disposition"] == f'attachment; filename="{model}.safetensors"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    length = int.from_bytes(answer.content[:8], "little")
    assert length % 8 == 0
    header = json.loads(answer.content[8 : 8 + length])
    assert header == {**HEADER, "__metadata__": {"classes": '["a", "b"]', "manifest": '{"format": 1}'}}
    assert answer.content[8 + length :] == TENSORS
    assert answer.content == service.client.get(f"{url}?format=safetensors").content


def test_any_part_of_the_safetensors_download_can_be_asked_for(service: Served, model: str) -> None:
    url = f"/v1/models/{model}/download"
    whole = service.client.get(url)
    size, tag = len(whole.content), whole.headers["etag"]
    begin = size - len(TENSORS)  # of the stored bytes
    for first, last in ((0, 0), (3, 20), (begin - 5, begin + 5), (begin, size - 1), (begin + 100_000, begin + 300_000)):
        part = service.client.get(url, headers={"Range": f"bytes={first}-{last}"})
        assert (part.status_code, part.content) == (206, whole.content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    assert service.client.get(url, headers={"Range": "bytes=-7"}).content == whole.content[-7:]
    assert service.client.get(url, headers={"Range": "bytes=9-", "If-Range": tag}).content == whole.content[9:]
    assert service.client.get(url, headers={"Range": "bytes=9-", "If-Range": '"other"'}).status_code == 200
    assert service.client.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    assert service.client.get(url, headers={"If-None-Match": tag}).status_code == 304
    head = service.client.head(url)
    assert (head.headers["content-length"], head.headers["etag"], head.content) == (str(size), tag, b"")


def test_an_ensemble_is_downloaded_as_a_zip(service: Served, model: str) -> None:
    job = service.client.get(f"/v1/models/{model}").json()["job"]
    folder = service.context.storage.local_path(f"models/{job}/1")
    (folder / "member-0").mkdir()
    (folder / "model.safetensors").rename(folder / "member-0" / "model.safetensors")
    (folder / "member-0" / "model.json").write_text("{}")
    answer = service.client.get(f"/v1/models/{model}/download")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_safetensors")
    assert "`format=zip`" in answer.json()["detail"]
    archive = zipfile.ZipFile(io.BytesIO(service.client.get(f"/v1/models/{model}/download?format=zip").content))
    assert sorted(archive.namelist()) == ["member-0/model.json", "member-0/model.safetensors", "model.json"]


@pytest.mark.parametrize("stored", [b"", b"x" * 100, b"\x05" + bytes(7) + b"[1,2]", b"\x05" + bytes(7) + b"{not}"])
def test_a_damaged_safetensors_file_is_said_to_be(service: Served, model: str, stored: bytes) -> None:
    job = service.client.get(f"/v1/models/{model}").json()["job"]
    (service.context.storage.local_path(f"models/{job}/1") / "model.safetensors").write_bytes(stored)
    answer = service.client.get(f"/v1/models/{model}/download")
    assert (answer.status_code, answer.json()["code"]) == (404, "files_missing")
    assert "damaged" in answer.json()["detail"]


def test_a_worker_s_answer_comes_back(service: Served, model: str) -> None:
    worker = answering(service, predictions=[{"label": "a", "probabilities": {"a": 0.9, "b": 0.1}}])
    answer = service.client.post(f"/v1/models/{model}/predict", json={"inputs": [[0.0]]})
    worker.join()
    assert answer.json() == {"predictions": [{"label": "a", "probabilities": {"a": 0.9, "b": 0.1}}]}


def test_a_worker_s_refusal_is_a_problem(service: Served, model: str) -> None:
    error = {"status": 422, "code": "invalid_input", "message": "64 values, not 3", "pointer": "/inputs/0", "hint": "h"}
    worker = answering(service, error=error)
    answer = service.client.post(f"/v1/models/{model}/predict", json={"inputs": [[1, 2, 3]]})
    worker.join()
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert answer.json()["errors"][0]["pointer"] == "/inputs/0"


def test_without_a_worker_it_is_503_in_the_end(service: Served, model: str) -> None:
    answer = service.client.post(f"/v1/models/{model}/predict", json={"inputs": [[1]]})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_prediction_worker")
    assert answer.headers["retry-after"]


def test_the_api_takes_the_types_of_files_that_a_worker_reads() -> None:
    assert set(OTHER_TYPES) == set(TABLE_TYPES)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b'{"inputs": 3}', "application/json", 422),
        (b'{"input": [3]}', "application/json", 422),
        (b"<html>", "text/html", 415),
    ],
)
def test_what_no_worker_need_look_at_is_refused_at_once(
    service: Served, model: str, body: bytes, kind: str, status: int
) -> None:
    answer = service.client.post(f"/v1/models/{model}/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    with service.sessions.begin() as session:
        assert inference_requests.claim(session, "w", 30) is None


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("", "application/json"),
        ("application/x-www-form-urlencoded", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
    ],
)
def test_json_is_recognised(header: str, kind: str) -> None:
    assert check_request(b'{"inputs": [1]}', header) == kind


def test_images_and_csv_go_to_the_worker_as_they_are() -> None:
    assert check_request(b"\x89PNG", "image/png") == "image/png"
    assert check_request(b"a,b\n1,2\n", "text/csv; header=present") == "text/csv"


def test_an_inference_request_of_a_lost_worker_is_claimed_again(service: Served) -> None:
    service.submit()
    project_id = service.claim().project_id
    with service.sessions.begin() as session:
        request_id = inference_requests.add(session, project_id, "predict", "models/x", b"{}", "application/json")
    with service.sessions.begin() as session:
        first = inference_requests.claim(session, "w1", 30)
        assert inference_requests.claim(session, "w2", 30) is None
        session.execute(update(InferenceRequest).values(lease_expires_at=db_now(plus=-1)))
    with service.sessions.begin() as session:
        second = inference_requests.claim(session, "w2", 30)
    assert first is not None
    assert second is not None
    assert second.claim == Claim(request_id, first.claim.fence + 1)
    with pytest.raises(StaleFence), service.sessions.begin() as session:
        inference_requests.answer(session, first.claim, b"{}", "application/json")
