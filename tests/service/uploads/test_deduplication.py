"""Bytes that the project has sent before are not sent again; a hash alone opens nobody else's."""

from __future__ import annotations

import base64
import hashlib
import random
import subprocess
from pathlib import Path

import pytest

from service.database import make_engine
from service.keys.service import create_key
from service.sessions import session_factory
from tests.support.api import Served
from tests.support.unreliable_network import Api

BYTES = b"column,label\n1,a\n2,b\n"


def digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def test_only_known_bytes_of_the_same_project_are_taken_by_their_hash(service: Served) -> None:
    headers = {"Content-Digest": digest(BYTES), "Expect": "100-continue"}
    unknown = service.client.put("/v1/datasets?name=a", content=b"", headers=headers)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "empty"), "the body was looked for"
    first = service.client.put("/v1/datasets?name=a", content=BYTES).json()

    same = service.client.put("/v1/datasets?name=a", content=b"", headers=headers)
    assert (same.status_code, same.json()["id"]) == (201, first["id"])
    other = service.client.put("/v1/datasets?name=b", content=b"", headers=headers)
    assert (other.status_code, other.json()["sha256"], other.json()["version"]) == (201, first["sha256"], 1)
    assert other.json()["id"] != first["id"]

    stranger = service.client_for("elsewhere").put("/v1/datasets?name=a", content=b"", headers=headers)
    assert (stranger.status_code, stranger.json()["code"]) == (422, "empty")

    for dataset in (first, other.json()):
        assert service.client.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    gone = service.client.put("/v1/datasets?name=a", content=b"", headers=headers)
    assert (gone.status_code, gone.json()["code"]) == (422, "empty")


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_curl_is_answered_before_the_first_byte(migrated_url: str, tmp_path: Path) -> None:
    engine = make_engine(migrated_url)
    with session_factory(engine).begin() as session:
        key = create_key(session, "default", "test", "developer")
    engine.dispose()
    body = random.Random(5).randbytes(8 << 20)
    file = tmp_path / "data.npz"
    file.write_bytes(body)
    api = Api(migrated_url, tmp_path)
    try:
        sent = [curl(f"http://127.0.0.1:{api.port}/v1/datasets?name={name}", key, file, body) for name in "xxy"]
    finally:
        api.stop()
    assert [status for status, _ in sent] == ["201", "201", "201"]
    assert [count for _, count in sent] == [len(body), 0, 0]


def curl(url: str, key: str, file: Path, body: bytes) -> tuple[str, int]:
    """(status, bytes of the body that were sent)."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "--expect100-timeout", "60"]
    headers = [
        "-H",
        f"Authorization: Bearer {key}",
        "-H",
        f"Content-Digest: {digest(body)}",
        "-H",
        "Expect: 100-continue",
    ]
    done = subprocess.run([*command, *headers, "-T", str(file), url], capture_output=True, text=True, check=True)
    status, count = done.stdout.split()
    return status, int(count)
