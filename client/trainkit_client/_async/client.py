"""The client: where the service is, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from trainkit_client import config
from trainkit_client._async.administration import AsyncKeys, AsyncProjects
from trainkit_client._async.datasets import AsyncDatasets
from trainkit_client._async.experiments import AsyncExperiments
from trainkit_client._async.jobs import AsyncJobs
from trainkit_client._async.models import AsyncModels
from trainkit_client._async.resource import parsed, plain_rows
from trainkit_client._async.rows import AsyncRows
from trainkit_client._async.runtime import HttpTransport
from trainkit_client._async.transport import AsyncTransport, json_of
from trainkit_client.types import Info, Me, Worker


class AsyncClient:
    """A trainkit service.

    Args:
        url: its address, such as `https://train.example.org`. Left out, like `key` and `project`: TRAINKIT_URL,
            TRAINKIT_KEY and TRAINKIT_PROJECT, then a profile of `~/.config/trainkit/config.toml`, then a `trainkit up`
            that runs on this machine.
        profile: the profile to use instead of the environment.
        timeout: seconds to wait for a response.
        max_retries: how often a request is repeated after a cut connection, 429, 502, 503 or 504; only requests whose
            repetition does no harm.
        reconnect_seconds: how long `wait` and what follows a job sit out a service that is away.
        http_transport: an HTTP transport of httpx, for tests and special networks.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        project: str | None = None,
        profile: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        reconnect_seconds: float = 600.0,
        http_transport: HttpTransport | None = None,
    ) -> None:
        self.connection = config.resolve(url, key, project, profile)
        self.timeout = timeout
        self.reconnect_seconds = reconnect_seconds
        self.transport = AsyncTransport(
            self.connection, timeout=timeout, max_retries=max_retries, http_transport=http_transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.transport.aclose()

    def __repr__(self) -> str:
        project = f", project={self.connection.project!r}" if self.connection.project else ""
        return f"{type(self).__name__}({self.connection.url!r}{project})"

    @cached_property
    def jobs(self) -> AsyncJobs:
        """The jobs of the project."""
        return AsyncJobs(self)

    @cached_property
    def datasets(self) -> AsyncDatasets:
        """The datasets of the project."""
        return AsyncDatasets(self)

    @cached_property
    def models(self) -> AsyncModels:
        """The models of the project."""
        return AsyncModels(self)

    @cached_property
    def experiments(self) -> AsyncExperiments:
        """The experiments of the project."""
        return AsyncExperiments(self)

    @cached_property
    def keys(self) -> AsyncKeys:
        """The API keys of the project."""
        return AsyncKeys(self)

    @cached_property
    def projects(self) -> AsyncProjects:
        """The projects that the caller may see."""
        return AsyncProjects(self)

    def workers(self, **filters: Any) -> AsyncRows[Worker]:
        """Return the workers that were seen lately."""
        return plain_rows(self, Worker, "/v1/workers", filters)

    async def info(self) -> Info:
        """Return what this installation is, and can do now."""
        return parsed(Info, await self.request("GET", "/v1/info"))

    async def me(self) -> Me:
        """Return who the caller is, and in which projects."""
        return parsed(Me, await self.request("GET", "/v1/me"))

    async def catalog(self) -> dict[str, Any]:
        """Return every kind of everything, with its JSON schema and a description."""
        catalog: dict[str, Any] = await self.request("GET", "/v1/catalog")
        return catalog

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
    ) -> Any:
        """Send any request and return the JSON of its response: for routes that have no method here.

        A response that is no JSON is returned as bytes.
        """
        response = await self.transport.request(
            method,
            path,
            params=params,
            json=json,
            content=content,
            headers=headers,
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        if "json" in response.headers.get("content-type", "json"):
            return json_of(response)
        return response.content
