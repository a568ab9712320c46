"""What tests of uploads say again and again."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response  # what the test client of Starlette uses

CHUNK = "application/offset+octet-stream"
VERSION = {"Tus-Resumable": "1.0.0"}


def metadata(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def create(client: TestClient, length: int | None, **values: str) -> Response:
    size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    headers = {**VERSION, **size, "Upload-Metadata": metadata(**(values or {"name": "d"}))}
    answer: Response = client.post("/v1/uploads", headers=headers)
    return answer


def begun(client: TestClient, length: int | None, **values: str) -> str:
    """The address of a new upload."""
    answer = create(client, length, **values)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(client: TestClient, where: str, offset: int, body: Any, **headers: str) -> Response:
    sent = {**VERSION, "Content-Type": CHUNK, "Upload-Offset": str(offset), **headers}
    answer: Response = client.patch(where, content=body, headers=sent)
    return answer


def head(client: TestClient, where: str) -> Response:
    answer: Response = client.head(where, headers=VERSION)
    return answer


def offset_of(client: TestClient, where: str) -> int:
    return int(head(client, where).headers["upload-offset"])


def checksum(body: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, body).digest()).decode()}"
