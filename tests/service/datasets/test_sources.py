"""Registration by URI: only files below the folders that the operator has named."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from service.datasets.sources import locate, locate_object
from service.errors import HttpProblem
from service.settings import Settings
from tests.support.api import Served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    (folder / "inner").mkdir(parents=True)
    (folder / "a file.csv").write_text("a,b\n1,2\n")
    (tmp_path / "secret.csv").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret.csv")
    (folder / "in").symlink_to(folder / "a file.csv")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def settings(settings: Settings, root: Path) -> Settings:
    return replace(settings, file_roots=(root,), s3_buckets=("mine",))


def test_a_file_waits_for_a_data_worker(service: Served, root: Path) -> None:
    body = {"uri": f"file://{root}/a%20file.csv", "kind": "table", "target": "b"}
    answer = service.client.post("/v1/datasets", json=body)
    shown = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/datasets/{shown['id']}"), answer.text
    assert (shown["name"], shown["state"], shown["kind"], shown["target"]) == ("a file", "uploading", "table", "b")
    assert (shown["sha256"], shown["bytes"], shown["version"]) == (None, 8, 1)
    assert service.client.get("/v1/datasets?state=uploading").json()["data"] == [shown]
    job = service.client.post("/v1/jobs", json={"dataset": shown["id"], "model": {"kind": "mlp"}}).json()
    assert (job["state"], job["dataset"]["sha256"]) == ("validating", None)
    assert service.client.get(f"/v1/datasets/{shown['id']}/report").status_code == 409
    assert service.client.delete(f"/v1/datasets/{shown['id']}?force=true").status_code == 204
    again = service.client.post("/v1/datasets", json={**body, "name": "other"}).json()
    assert service.client.delete(f"/v1/datasets/{again['id']}").status_code == 204


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("s3://bucket/key", "bucket_not_allowed"),
        ("s3://mine", "uri_invalid"),
        ("s3://mine/a/../b", "uri_invalid"),
        ("s3:///key", "uri_invalid"),
        ("https://example.org/x", "uri_scheme"),
        ("/etc/passwd", "uri_scheme"),
        ("file://other-host/x", "uri_invalid"),
        ("file://[", "uri_invalid"),
        ("file:relative", "uri_invalid"),
        ("file:///etc/passwd", "file_not_allowed"),
        ("file:///nowhere/at/all", "file_not_allowed"),
        ("file://{root}/../secret.csv", "uri_invalid"),
        ("file://{root}/%2e%2e/secret.csv", "uri_invalid"),
        ("file://{root}x/secret.csv", "file_not_allowed"),
        ("file://{root}/out", "file_not_allowed"),
        ("file://{root}/loop", "file_unreadable"),
        ("file://{root}/missing", "file_unreadable"),
        ("file://{root}/inner", "not_a_file"),
        ("file://{root}/pipe", "not_a_file"),
        ("file://{root}/empty", "empty"),
        ("file://{root}/a%00", "uri_invalid"),
        ("file://{root}/a?x=1", "uri_invalid"),
    ],
)
def test_what_is_refused_says_why(service: Served, root: Path, uri: str, code: str) -> None:
    answer = service.client.post("/v1/datasets", json={"uri": uri.replace("{root}", str(root)), "name": "d"})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/uri"
    assert error["hint"]
    assert service.client.get("/v1/datasets").json()["data"] == []


def test_a_link_within_the_folders_is_followed(root: Path) -> None:
    assert locate(f"file://localhost{root}/in", [root]).name == "a file.csv"


def test_without_folders_nothing_is_taken(root: Path) -> None:
    with pytest.raises(HttpProblem, match="TRAINKIT_FILE_ROOTS"):
        locate(f"file://{root}/in", [])


def test_an_object_waits_for_a_data_worker(service: Served) -> None:
    shown = service.client.post("/v1/datasets", json={"uri": "s3://mine/a/b c.csv"}).json()
    assert (shown["name"], shown["state"], shown["bytes"]) == ("b c", "uploading", 0)


def test_without_buckets_nothing_is_taken() -> None:
    with pytest.raises(HttpProblem, match="TRAINKIT_S3_BUCKETS"):
        locate_object("s3://mine/key", [])


def test_a_body_that_does_not_fit_says_where(service: Served) -> None:
    for body, pointer in (({}, "/uri"), ({"uri": "file:///x", "nam": "x"}, "/nam"), ({"uri": 5}, "/uri")):
        answer = service.client.post("/v1/datasets", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_limits_hold_for_files_too(service: Served, root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(service.context.settings.max_upload_bytes + 1)
    answer = service.client.post("/v1/datasets", json={"uri": f"file://{root}/large"})
    assert (answer.status_code, answer.json()["limit_bytes"]) == (413, service.context.settings.max_upload_bytes)
