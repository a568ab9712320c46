"""Requests: authentication, retries, idempotency keys, and errors as exceptions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from trainkit_client import retries
from trainkit_client._async.runtime import HttpClient, HttpTransport, in_thread, sleep
from trainkit_client.config import Connection
from trainkit_client.downloads import PartialFile
from trainkit_client.errors import BadResponse
from trainkit_client.queries import query_string
from trainkit_client.version import __version__

CONNECT_SECONDS = 10.0


class AsyncTransport:
    """Sends requests to one service, and repeats those that may be repeated.

    `max_retries` bounds how often a request is repeated. A request with `patience` is repeated for so many seconds
    instead: a reader who follows a job sits out a restart of the service.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float,
        max_retries: int,
        http_transport: HttpTransport | None = None,
    ) -> None:
        headers = {
            "Authorization": f"Bearer {connection.key}",
            "User-Agent": f"trainkit-client/{__version__} httpx/{httpx.__version__}",
        }
        if connection.project:
            headers["Trainkit-Project"] = connection.project
        self.connection = connection
        self.timeout = timeout
        self.max_retries = max_retries
        self._http = HttpClient(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            transport=http_transport,
            # a proxy of the environment does not reach this machine's own services
            trust_env=not connection.is_loopback,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        patience: float | None = None,
        repeat: bool = True,
    ) -> httpx.Response:
        """Return the response of a success, or 304. Raises a ProblemError for errors and Unreachable without an answer.

        Args:
            params: the query; None is left out, lists are joined by commas.
            idempotency_key: of a POST; one is made when it is left out. All tries of a request send the same.
            timeout: seconds without a byte; the client's when it is left out.
            patience: seconds for which to repeat it, instead of `max_retries` times.
            repeat: False sends it once.
        """
        sent = dict(headers or {})
        if method == "POST":
            sent.setdefault("Idempotency-Key", idempotency_key or str(uuid.uuid4()))
        request = self._http.build_request(
            method,
            self.url(path, params),
            json=json,
            content=content,
            headers=sent,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout, connect=CONNECT_SECONDS),
        )
        tries = retries.Tries(method, path, self.max_retries if repeat else 0, patience if repeat else None)
        while True:
            try:
                response = await self._http.send(request)
            except httpx.TransportError as error:
                await sleep(tries.after_error(error, self.connection.url))
                continue
            except httpx.RequestError as error:
                raise BadResponse(f"{request.url} answered what cannot be read: {error}.") from error
            if response.is_success or response.status_code == 304:
                return response
            await sleep(tries.after_response(response, response.content))

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON of its response; None where it has no body."""
        response = await self.request(method, path, **options)
        return json_of(response)

    async def download(
        self,
        path: str,
        target: Path,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the body of a response into a file, and return its path. After a cut it goes on where it was.

        The file appears under its name when it is complete. Raises ProblemError, Unreachable and OSError.
        """
        partial = await in_thread(PartialFile, target)
        tries = retries.Tries("GET", path, self.max_retries, None)
        try:
            while True:
                try:
                    async with self._http.stream("GET", self.url(path, params), headers=partial.headers) as response:
                        if response.is_success:
                            partial.begin(response.status_code, response.headers)
                            async for chunk in response.aiter_bytes():
                                await in_thread(partial.write, chunk)
                                if partial.is_continuable:
                                    tries.attempt = 0  # nothing is sent twice
                            return await in_thread(partial.finish)
                        wait = tries.after_response(response, await response.aread())
                except httpx.TransportError as error:
                    wait = tries.after_error(error, self.connection.url)
                await sleep(wait)
        finally:
            await in_thread(partial.discard)

    def url(self, path: str, params: Mapping[str, Any] | None = None) -> str:
        """Return the address of a path with its query."""
        query = query_string(params or {})
        return f"{self.connection.url}{path}?{query}" if query else f"{self.connection.url}{path}"


def json_of(response: httpx.Response) -> Any:
    """Return the JSON of a response; None where it has no body. Raises BadResponse."""
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        kind = response.headers.get("content-type", "no type")
        raise BadResponse(
            f"{response.url} answered {response.status_code} with {kind} instead of JSON: is this a trainkit service?"
        ) from None
