"""Resumable uploads (tus 1.0): what is stored already is not sent, and what was cut off goes on."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainkit_client import retries
from trainkit_client._async.runtime import in_thread, sleep
from trainkit_client._async.transport import json_of
from trainkit_client.archive import UploadSource
from trainkit_client.errors import (
    BadResponse,
    Invalid,
    NotFound,
    ProblemError,
    Refused,
    ServerError,
    TrainkitError,
    Unreachable,
    UploadMismatch,
)
from trainkit_client.upload_state import UploadRecord

if TYPE_CHECKING:
    from trainkit_client._async.client import AsyncClient

CHUNK_BYTES = 8 << 20
TUS = {"Tus-Resumable": "1.0.0"}
PASSING = frozenset({400, 408, 409, 423, 429, 460})
"""Statuses of a chunk after which the offset is asked for and the upload goes on: it was cut off, is still being written
by the request before, or arrived damaged."""
MAX_FAILURES = 8
"""Chunks that may fail one after the other."""
Progress = Callable[[int, int], object]


class AsyncUpload:
    """One file on its way to become a dataset.

    Args:
        metadata: name, kind, target and read options of the dataset, as text.
        progress: called with the bytes that are stored and those of the file.
    """

    def __init__(
        self, client: AsyncClient, source: UploadSource, metadata: Mapping[str, str], progress: Progress | None
    ) -> None:
        self._client = client
        self._source = source
        self._metadata = metadata
        self._progress = progress
        header = ",".join(f"{name} {_base64(value.encode())}" for name, value in metadata.items())
        self._header = header
        self._record = UploadRecord(client.connection, source.sha256, header)

    async def run(self) -> Any:
        """Return the document of the dataset."""
        document = await self._claim()
        if document is None:
            identity = await self._send()
            document = await self._client.request("GET", f"/v1/datasets/{identity}")
        self._report(self._source.size)
        self._record.forget()
        if document.get("sha256") not in (None, self._source.sha256):
            raise UploadMismatch(
                f"{self._source.path} has changed during its upload: dataset {document['id']} holds other bytes than "
                "were hashed. Delete it, and upload again."
            )
        return document

    async def _claim(self) -> Any:
        """Return the dataset of bytes that the project has stored already; None when they must be sent.

        The service answers a request that announces a digest and expects `100 Continue` before it reads the body. This
        one has none: where the bytes are not stored, that is the error `empty`.
        """
        headers = {
            "Content-Digest": f"sha-256=:{_base64(bytes.fromhex(self._source.sha256))}:",
            "Expect": "100-continue",
        }
        try:
            response = await self._client.transport.request(
                "PUT", "/v1/datasets", params=self._metadata, headers=headers, content=b""
            )
        except Invalid as error:
            if error.code == "empty":
                return None
            raise
        return json_of(response)

    async def _send(self) -> str:
        """Send what is missing, and return the dataset's id."""
        location = self._record.load()
        offset = None if location is None else await self._known_offset(location)
        if location is None or offset is None:
            location, offset = await self._create(), 0
        failures = 0
        while True:
            self._report(offset)
            if offset >= self._source.size:
                return await self._finished(location)
            try:
                offset, dataset = await self._send_chunk(location, offset)
                failures = 0
                if dataset is not None:
                    return dataset
            except (Unreachable, ProblemError) as error:
                if failures >= MAX_FAILURES or not _may_go_on(error):
                    raise
                await sleep(retries.pause(failures))
                failures += 1
                known = await self._known_offset(location)
                if known is None:  # it has expired, or was deleted
                    location, known = await self._create(), 0
                offset = known

    async def _create(self) -> str:
        headers = {**TUS, "Upload-Length": str(self._source.size), "Upload-Metadata": self._header}
        response = await self._client.transport.request("POST", "/v1/uploads", headers=headers)
        # the address may be absolute, of a proxy; its path below ours is what counts
        place = urlsplit(response.headers.get("location", "")).path
        start = place.find("/v1/uploads/")
        if start < 0:
            raise BadResponse(f"The service created an upload without an address (Location: {place!r}).")
        location: str = place[start:]
        self._record.store(location)
        return location

    async def _known_offset(self, location: str) -> int | None:
        """Return how many bytes the service has; None of an upload that does not exist any more."""
        try:
            response = await self._client.transport.request(
                "HEAD", location, headers=TUS, patience=self._client.reconnect_seconds
            )
        except NotFound:
            self._record.forget()
            return None
        return int(response.headers["upload-offset"])

    async def _send_chunk(self, location: str, offset: int) -> tuple[int, str | None]:
        """Send bytes from an offset on; return the next offset, and the dataset's id after the last one."""
        chunk = await in_thread(self._source.read, offset, CHUNK_BYTES)
        if not chunk:
            raise UploadMismatch(f"{self._source.path} has become shorter during its upload.")
        headers = {
            **TUS,
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
            "Upload-Checksum": f"sha256 {_base64(hashlib.sha256(chunk).digest())}",
        }
        response = await self._client.transport.request("PATCH", location, headers=headers, content=chunk, repeat=False)
        return int(response.headers["upload-offset"]), response.headers.get("trainkit-dataset")

    async def _finished(self, location: str) -> str:
        """Return the dataset of an upload whose bytes are all stored; it is created within moments."""
        for attempt in range(MAX_FAILURES):
            upload = await self._client.request("GET", location)
            if upload["dataset"] is not None:
                return str(upload["dataset"])
            if upload["state"] == "failed":
                break
            await sleep(retries.pause(attempt, 0.2))
        error = upload.get("error") or {}
        raise TrainkitError(f"The upload {upload['id']} became no dataset: {error.get('message', upload['state'])}.")

    def _report(self, offset: int) -> None:
        if self._progress is not None:
            self._progress(offset, self._source.size)


def _may_go_on(error: TrainkitError) -> bool:
    if isinstance(error, NotFound | Unreachable | ServerError):
        return True
    return isinstance(error, Refused) and error.status in PASSING


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
