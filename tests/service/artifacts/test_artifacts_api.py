"""Files of a job by plain names: listed, and read."""

from __future__ import annotations

import hashlib
import io
import json
import xml.etree.ElementTree as ET
from base64 import b64encode
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service import content_digests
from service.artifacts.service import MODEL, as_yaml
from service.jobs.attempts import StoredFile
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


def test_the_hash_of_a_file_is_listed_and_sent_with_it(
    service: Served, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"/v1/jobs/{job}/artifacts"
    files = {file["name"]: file for file in service.client.get(url).json()["data"]}
    known = {name for name, file in files.items() if file["sha256"] is not None}
    assert known == {"curves.png", "evaluation.json", "model.safetensors", "spec.yaml"}
    model = service.client.get(f"/v1/jobs/{job}").json()["result"]["model"]
    for path, name in (*((f"{url}/{name}", name) for name in known), (f"/v1/models/{model}/download", MODEL)):
        answer = service.client.get(path)
        digest = hashlib.sha256(answer.content)
        assert files[name]["sha256"] == digest.hexdigest(), path
        assert answer.headers["repr-digest"] == f"sha-256=:{b64encode(digest.digest()).decode()}:", path
        # of the whole file, whatever part of it is sent
        part = service.client.get(path, headers={"Range": "bytes=1-3"})
        assert part.headers["repr-digest"] == answer.headers["repr-digest"], path
    monkeypatch.setattr(content_digests, "MOST_BYTES", 10)
    larger = {file["name"]: file["sha256"] for file in service.client.get(url).json()["data"]}
    assert larger[MODEL] is None
    assert larger["curves.png"] == files["curves.png"]["sha256"]
    assert "repr-digest" not in service.client.get(f"{url}/{MODEL}").headers


def test_a_file_that_is_written_anew_is_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"another", b"a third one"):
        path.write_bytes(content)
        assert content_digests.sha256_of_file(path) == hashlib.sha256(content).hexdigest()
        assert content_digests.sha256_of_file(path, b"head", 2) == hashlib.sha256(b"head" + content[2:]).hexdigest()
