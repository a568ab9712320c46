"""How an upload is to be read can be said by every way of uploading; it belongs to the version."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from service.datasets import intake
from tests.support.api import Served

READ_OPTIONS = {
    "delimiter": "tab",
    "encoding": "cp1252",
    "header": False,
    "sheet": "May 2026",
    "image_size": "32x16",
    "channels": "last",
    "task": "regression",
}
COLUMNS = {"isig": {"type": "number", "missing": ["nil", "-"]}, "day": {"type": "date", "date_format": "%d/%m/%Y"}}
TABLE = {"quote": "'", "decimal": ",", "thousands": ".", "missing": ["nil"], "columns": COLUMNS}
TEXT = {name: value if isinstance(value, str) else json.dumps(value) for name, value in TABLE.items()}


def claimed(service: Served) -> dict[str, object] | None:
    with service.sessions.begin() as session:
        found = intake.claim(session, "w", 30)
        assert found is not None
        return found.read_options


def test_said_in_the_query(service: Served) -> None:
    answer = service.client.put("/v1/datasets", params={"name": "d", **READ_OPTIONS}, content=b"x")
    assert answer.status_code == 201, answer.text
    assert answer.json()["read_options"] == READ_OPTIONS
    assert claimed(service) == READ_OPTIONS
    again = service.client.put("/v1/datasets", params={"name": "d", **READ_OPTIONS}, content=b"x")
    assert again.json()["id"] == answer.json()["id"]
    other = service.client.put("/v1/datasets", params={"name": "d"}, content=b"x").json()
    assert (other["version"], other["read_options"]) == (2, None)


def test_said_in_the_form(service: Served) -> None:
    form = {name: str(value) for name, value in READ_OPTIONS.items()}
    answer = service.client.post("/v1/datasets", data=form, files={"file": ("d.csv", b"x")})
    assert answer.json()["read_options"] == READ_OPTIONS


def test_said_beside_a_uri(service: Served, tmp_path: Path) -> None:
    object.__setattr__(service.context.settings, "file_roots", (tmp_path,))
    (tmp_path / "d.csv").write_bytes(b"x")
    answer = service.client.post("/v1/datasets", json={"uri": f"file://{tmp_path}/d.csv", **READ_OPTIONS})
    assert answer.json()["read_options"] == READ_OPTIONS, answer.text


def test_said_with_a_resumable_upload(service: Served) -> None:
    pairs = {"name": "d", **{name: str(value) for name, value in READ_OPTIONS.items()}}
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": metadata}
    headers["Content-Type"] = "application/offset+octet-stream"
    answer = service.client.post("/v1/uploads", content=b"x", headers=headers)
    assert answer.status_code == 201, answer.text
    dataset = answer.headers["Trainkit-Dataset"]
    assert service.client.get(f"/v1/datasets/{dataset}").json()["read_options"] == READ_OPTIONS
    wrong = base64.b64encode(b"no-such").decode()
    headers["Upload-Metadata"] = f"encoding {wrong}"
    refused = service.client.post("/v1/uploads", content=b"x", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "metadata_invalid")


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


def test_columns_are_said_as_json_in_query_form_and_metadata(service: Served, tmp_path: Path) -> None:
    sent = [
        service.client.put("/v1/datasets", params={"name": "q", **TEXT}, content=b"x"),
        service.client.post("/v1/datasets", data=TEXT, files={"file": ("f.csv", b"x")}),
    ]
    object.__setattr__(service.context.settings, "file_roots", (tmp_path,))
    (tmp_path / "d.csv").write_bytes(b"x")
    sent.append(service.client.post("/v1/datasets", json={"uri": f"file://{tmp_path}/d.csv", **TABLE}))
    assert [answer.json()["read_options"] for answer in sent] == [TABLE] * 3
    pairs = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in TEXT.items())
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": pairs}
    headers["Content-Type"] = "application/offset+octet-stream"
    answer = service.client.post("/v1/uploads", content=b"x", headers=headers)
    dataset = service.client.get(f"/v1/datasets/{answer.headers['Trainkit-Dataset']}").json()
    assert dataset["read_options"] == TABLE


@pytest.mark.parametrize(
    ("columns", "pointer"),
    [
        ("{", "query/columns"),
        ('{"x": {"type": "int"}}', "query/columns/x/type"),
        ('{"x": {"missing": 1}}', "query/columns/x/missing"),
        ('{"x": {"kind": "number"}}', "query/columns/x/kind"),
    ],
)
def test_nonsense_of_columns_is_refused(service: Served, columns: str, pointer: str) -> None:
    answer = service.client.put("/v1/datasets", params={"name": "d", "columns": columns}, content=b"x")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_stored_bytes_are_read_again_in_another_way(service: Served) -> None:
    first = service.client.put("/v1/datasets", params={"name": "d", "target": "y", "decimal": ","}, content=b"x").json()
    answer = service.client.post(f"/v1/datasets/{first['id']}:reread", json={"columns": COLUMNS})
    assert answer.status_code == 201, answer.text
    second = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{second['id']}"
    assert (second["version"], second["state"], second["sha256"]) == (2, "validating", first["sha256"])
    assert (second["target"], second["read_options"]) == ("y", {"decimal": ",", "columns": COLUMNS})
    again = service.client.post(f"/v1/datasets/{first['id']}:reread", json={"columns": COLUMNS}).json()
    assert again["id"] == second["id"]
    plain = service.client.post(
        f"/v1/datasets/{second['id']}:reread", json={"columns": None, "decimal": None, "target": "z"}
    ).json()
    assert (plain["version"], plain["target"], plain["read_options"]) == (3, "z", None)
    assert service.client.post("/v1/datasets/ds_none:reread", json={}).status_code == 404
    wrong = service.client.post(f"/v1/datasets/{first['id']}:reread", json={"columns": {"x": {"type": "int"}}})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/columns/x/type")
