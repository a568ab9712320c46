# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""The client: where the service is, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from trainkit_client import config
from trainkit_client._sync.administration import Keys, Projects
from trainkit_client._sync.datasets import Datasets
from trainkit_client._sync.experiments import Experiments
from trainkit_client._sync.jobs import Jobs
from trainkit_client._sync.models import Models
from trainkit_client._sync.resource import parsed, plain_rows
from trainkit_client._sync.rows import Rows
from trainkit_client._sync.runtime import HttpTransport
from trainkit_client._sync.transport import Transport, json_of
from trainkit_client.types import Info, Me, Worker


class Client:
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
        self.transport = Transport(
            self.connection, timeout=timeout, max_retries=max_retries, http_transport=http_transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def __repr__(self) -> str:
        project = f", project={self.connection.project!r}" if self.connection.project else ""
        return f"{type(self).__name__}({self.connection.url!r}{project})"

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs of the project."""
        return Jobs(self)

    @cached_property
    def datasets(self) -> Datasets:
        """The datasets of the project."""
        return Datasets(self)

    @cached_property
    def models(self) -> Models:
        """The models of the project."""
        return Models(self)

    @cached_property
    def experiments(self) -> Experiments:
        """The experiments of the project."""
        return Experiments(self)

    @cached_property
    def keys(self) -> Keys:
        """The API keys of the project."""
        return Keys(self)

    @cached_property
    def projects(self) -> Projects:
        """The projects that the caller may see."""
        return Projects(self)

    def workers(self, **filters: Any) -> Rows[Worker]:
        """Return the workers that were seen lately."""
        return plain_rows(self, Worker, "/v1/workers", filters)

    def info(self) -> Info:
        """Return what this installation is, and can do now."""
        return parsed(Info, self.request("GET", "/v1/info"))

    def me(self) -> Me:
        """Return who the caller is, and in which projects."""
        return parsed(Me, self.request("GET", "/v1/me"))

    def catalog(self) -> dict[str, Any]:
        """Return every kind of everything, with its JSON schema and a description."""
        catalog: dict[str, Any] = self.request("GET", "/v1/catalog")
        return catalog

    def request(
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
        response = self.transport.request(
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
