"""Files of a job by plain names: listed, and read."""

from __future__ import annotations

import hashlib
import io
import json
import xml.etree.ElementTree as ET
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.artifacts.service import MODEL, ONNX, as_yaml
from service.background.file_hashes import hash_stored_files
from service.jobs.attempts import StoredFile
from service.jobs.tables import Artifact
from service.models import repository as models
from service.request_body import parse
from tests.support.api import Served, row

EVALUATION = {"split": "test", "samples": 4, "metrics": {"accuracy": 0.75}, "confusion_matrix": [[2, 0], [1, 1]]}
EVALUATION |= {"classes": ["a", "b"]}
TENSORS = b"12345678"
HEADER = b'{"network.w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'


@pytest.fixture
def job(service: Served) -> str:
    """A job that has ended with metrics, an evaluation and a model."""
    job = service.submit(name="a <b>&$x$ --> run")
    claimed = service.claim()
    for step in range(1, 4):
        service.append(claimed, row("loss", 10.0**-step, step, "train"), row("accuracy", 0.5, step))
    storage = service.context.storage
    folder = storage.new_part()
    folder.mkdir()
    (folder / "model.json").write_text('{"format": 1}')
    (folder / "model.safetensors").write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + TENSORS)
    key = f"models/{job}/{claimed.claim.fence}"
    storage.put_tree(key, folder)
    plot = storage.new_part()
    plot.write_bytes(b"a plot")
    storage.adopt(plot, f"artifacts/{job}/1-curves.png")
    stored = StoredFile("curves.png", f"artifacts/{job}/1-curves.png", "image/png", 6)
    service.finish(claimed, model_key=key, evaluation=EVALUATION, files=[stored])
    return job


def test_every_file_is_listed_and_has_the_type_and_size_that_the_list_says(service: Served, job: str) -> None:
    url = f"/v1/jobs/{job}/artifacts"
    files = service.client.get(url).json()["data"]
    written = ["curves.png", "curves.svg", "evaluation.json", "metrics.parquet", "model.onnx", "model.safetensors"]
    assert [file["name"] for file in files] == [*written, "spec.yaml"]
    for file in files:
        if file["name"] == "model.onnx":  # a worker writes it
            continue
        answer = service.client.get(f"{url}/{file['name']}")
        assert answer.status_code == 200, file
        assert answer.headers["content-type"].split(";")[0] == file["media_type"]
        assert file["bytes"] in (None, len(answer.content))
        assert answer.headers["etag"]
        again = service.client.get(f"{url}/{file['name']}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    unsized = [file["name"] for file in files if file["bytes"] is None]
    assert unsized == ["curves.svg", "metrics.parquet", "model.onnx"]


def test_the_list_is_one_like_others(service: Served, job: str) -> None:
    url = f"/v1/jobs/{job}/artifacts"
    first = service.client.get(f"{url}?limit=3").json()
    rest = service.client.get(f"{url}?limit=100&after={first['next']}").json()
    assert (first["has_more"], rest["has_more"], len(first["data"]), len(rest["data"])) == (True, False, 3, 4)
    assert [one["name"] for one in service.client.get(f"{url}?name=m*").json()["data"]] == [
        *("metrics.parquet", "model.onnx", "model.safetensors")
    ]
    assert [one["name"] for one in service.client.get(f"{url}?media_type=image/png").json()["data"]] == ["curves.png"]


def test_the_files_hold_what_the_job_shows(service: Served, job: str) -> None:
    def content(name: str) -> bytes:
        answer = service.client.get(f"/v1/jobs/{job}/artifacts/{name}")
        assert answer.status_code == 200, answer.text
        return bytes(answer.content)

    assert parse(content("spec.yaml"), "application/yaml") == service.job(job)["spec"]
    assert json.loads(content("evaluation.json")) == EVALUATION
    log = pq.read_table(io.BytesIO(content("metrics.parquet")))
    assert log.column("value").to_pylist() == [0.1, 0.5, 0.01, 0.5, 0.001, 0.5]
    svg = content("curves.svg")
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<script" not in svg
    assert b"<b>" not in svg
    assert svg == content("curves.svg") == service.client.get(f"/v1/jobs/{job}/plots/curves.svg").content
    model = service.job(job)["result"]["model"]
    assert content("model.safetensors") == service.client.get(f"/v1/models/{model}/download").content
    part = service.client.get(f"/v1/jobs/{job}/artifacts/model.safetensors", headers={"Range": "bytes=-8"})
    assert (part.status_code, part.content) == (206, TENSORS)
    confusion = service.client.get(f"/v1/jobs/{job}/plots/confusion.svg")
    assert (confusion.status_code, confusion.headers["content-type"]) == (200, "image/svg+xml")
    assert confusion.headers["content-security-policy"] == "sandbox"


def test_the_onnx_file_is_the_model_s(service: Served, job: str) -> None:
    (service.context.storage.local_path(f"models/{job}/1") / "model.onnx").write_bytes(b"a graph")  # as the worker does
    answer = service.client.get(f"/v1/jobs/{job}/artifacts/model.onnx")
    assert (answer.status_code, answer.content) == (200, b"a graph")
    assert answer.headers["trainkit-model"] == service.job(job)["result"]["model"]


def test_an_unknown_file_is_answered_with_those_there_are(service: Served) -> None:
    job = service.submit()
    answer = service.client.get(f"/v1/jobs/{job}/artifacts/model.safetensors")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["detail"].endswith("has no file 'model.safetensors'. Its files are: spec.yaml.")
    other = service.client_for("other").get(f"/v1/jobs/{job}/artifacts/spec.yaml")
    assert (other.status_code, "spec.yaml" in other.text) == (404, False)


TEXTS = ["1e5", "1e-3", "no", "on", "0o17", "1:30", "2026-01-31", "", "~", "null", ".5", "a: b", "- x", "# y", "é\n\tz"]


@pytest.mark.parametrize(
    "document",
    [
        {"texts": TEXTS, **dict.fromkeys(TEXTS, 1)},
        {"n": [1e-5, 1e300, 0.1, -3, 2**62, True, None]},
        {"deep": [{"a": []}]},
    ],
)
def test_yaml_reads_back_as_it_was(document: dict[str, Any]) -> None:
    assert parse(as_yaml(document), "application/yaml") == document


def check_hashes(service: Served, job: str, known: set[str]) -> None:
    """Compare the hashes of the list and the headers with what is downloaded."""
    url = f"/v1/jobs/{job}/artifacts"
    files = {file["name"]: file for file in service.client.get(url).json()["data"]}
    assert {name for name, file in files.items() if file["sha256"] is not None} == known
    model = service.client.get(f"/v1/jobs/{job}").json()["result"]["model"]
    paths = {f"{url}/{name}": name for name in known}
    paths |= {
        f"/v1/models/{model}/download?format={name.partition('.')[2]}": name for name in (MODEL, ONNX) if name in known
    }
    for path, name in paths.items():
        answer = service.client.get(path)
        digest = hashlib.sha256(answer.content)
        assert files[name]["sha256"] == digest.hexdigest(), path
        assert answer.headers["repr-digest"] == f"sha-256=:{b64encode(digest.digest()).decode()}:", path
        # of the whole file, whatever part of it is sent
        part = service.client.get(path, headers={"Range": "bytes=1-3"})
        assert part.headers["repr-digest"] == answer.headers["repr-digest"], path


WRITTEN = {"evaluation.json", "spec.yaml"}


@pytest.mark.postgresql
def test_files_without_a_hash_are_read_by_housekeeping_and_never_for_a_request(service: Served, job: str) -> None:
    (service.context.storage.local_path(f"models/{job}/1") / ONNX).write_bytes(b"a graph")
    with service.sessions.begin() as session:
        gone = {"storage_key": f"artifacts/{job}/1-gone.txt", "media_type": "text/plain", "bytes": 1}
        session.add(Artifact(job_id=job, name="a-gone.txt", **gone, created_at=datetime.now(UTC)))
    check_hashes(service, job, WRITTEN)
    assert "repr-digest" not in service.client.get(f"/v1/jobs/{job}/artifacts/{MODEL}").headers
    for _ in range(2):
        hash_stored_files(service.sessions, service.context.storage)
        check_hashes(service, job, {*WRITTEN, "curves.png", MODEL, ONNX})


def test_a_model_whose_header_is_written_in_another_way_has_no_hash_any_more(service: Served, job: str) -> None:
    hash_stored_files(service.sessions, service.context.storage)
    folder = service.context.storage.local_path(f"models/{job}/1")
    (folder / "model.json").write_text('{"format":1}')
    check_hashes(service, job, {*WRITTEN, "curves.png"})


def test_an_onnx_file_that_is_written_later_is_added(service: Served, job: str) -> None:
    key = f"models/{job}/1"
    (service.context.storage.local_path(key) / ONNX).write_bytes(b"a graph")
    found = {ONNX: {"sha256": hashlib.sha256(b"a graph").hexdigest()}}
    with service.sessions.begin() as session:
        models.add_digests(session, key, found)
    hash_stored_files(service.sessions, service.context.storage)
    check_hashes(service, job, {*WRITTEN, "curves.png", MODEL, ONNX})
    with service.sessions.begin() as session:
        models.add_digests(session, key, {ONNX: {"sha256": "0" * 64}})
    assert service.client.get(f"/v1/jobs/{job}/artifacts/{ONNX}").headers["repr-digest"].startswith("sha-256=:AAAA")
