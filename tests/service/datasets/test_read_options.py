"""How an upload is to be read can be said by every way of uploading; it belongs to the version."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from service.datasets import intake
from tests.support.api import Served

SAID = {
    "delimiter": "tab",
    "encoding": "cp1252",
    "header": False,
    "image_size": "32x16",
    "channels": "last",
    "task": "regression",
}


def claimed(service: Served) -> dict[str, object] | None:
    with service.sessions.begin() as session:
        found = intake.claim(session, "w", 30)
        assert found is not None
        return found.read_options


def test_said_in_the_query(service: Served) -> None:
    answer = service.client.put("/v1/datasets", params={"name": "d", **SAID}, content=b"x")
    assert answer.status_code == 201, answer.text
    assert answer.json()["read_options"] == SAID
    assert claimed(service) == SAID
    again = service.client.put("/v1/datasets", params={"name": "d", **SAID}, content=b"x")
    assert again.json()["id"] == answer.json()["id"]
    other = service.client.put("/v1/datasets", params={"name": "d"}, content=b"x").json()
    assert (other["version"], other["read_options"]) == (2, None)


def test_said_in_the_form(service: Served) -> None:
    form = {name: str(value) for name, value in SAID.items()}
    answer = service.client.post("/v1/datasets", data=form, files={"file": ("d.csv", b"x")})
    assert answer.json()["read_options"] == SAID


def test_said_beside_a_uri(service: Served, tmp_path: Path) -> None:
    object.__setattr__(service.context.settings, "file_roots", (tmp_path,))
    (tmp_path / "d.csv").write_bytes(b"x")
    answer = service.client.post("/v1/datasets", json={"uri": f"file://{tmp_path}/d.csv", **SAID})
    assert answer.json()["read_options"] == SAID, answer.text


def test_said_with_a_resumable_upload(service: Served) -> None:
    pairs = {"name": "d", **{name: str(value) for name, value in SAID.items()}}
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": metadata}
    headers["Content-Type"] = "application/offset+octet-stream"
    answer = service.client.post("/v1/uploads", content=b"x", headers=headers)
    assert answer.status_code == 201, answer.text
    dataset = answer.headers["Trainkit-Dataset"]
    assert service.client.get(f"/v1/datasets/{dataset}").json()["read_options"] == SAID
    wrong = base64.b64encode(b"no-such").decode()
    headers["Upload-Metadata"] = f"encoding {wrong}"
    refused = service.client.post("/v1/uploads", content=b"x", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "encoding_invalid")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delimiter", "ab"),
        ("delimiter", '"'),
        ("encoding", "base64"),
        ("encoding", "no such"),
        ("image_size", "0x9"),
        ("channels", "channels_last"),
        ("task", "forecasting"),
    ],
)
def test_nonsense_is_refused(service: Served, name: str, value: str) -> None:
    answer = service.client.put("/v1/datasets", params={"name": "d", name: value}, content=b"x")
    assert answer.status_code == 422
    assert name in answer.json()["errors"][0]["pointer"]
