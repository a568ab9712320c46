"""Keys and projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit_client._async.resource import parsed, plain_rows
from trainkit_client._async.rows import AsyncRows
from trainkit_client.queries import segment
from trainkit_client.references import id_of
from trainkit_client.types import CreatedKey, Key, Project

if TYPE_CHECKING:
    from trainkit_client._async.client import AsyncClient


class AsyncKeys:
    """The API keys of a project."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, name: str, **fields: Any) -> CreatedKey:
        """Create a key and return it with its secret, which is shown only once. Fields: `role`, `expires_in` ..."""
        return parsed(CreatedKey, await self._client.request("POST", "/v1/keys", json={"name": name, **fields}))

    async def get(self, key: Key | str) -> Key:
        """Return a key, without its secret."""
        return parsed(Key, await self._client.request("GET", f"/v1/keys/{segment(id_of(key))}"))

    def list(self, **filters: Any) -> AsyncRows[Key]:
        """Return the keys, newest first."""
        return plain_rows(self._client, Key, "/v1/keys", filters)

    async def rotate(self, key: Key | str, **fields: Any) -> CreatedKey:
        """Create a key in the place of another one, and return it with its secret."""
        return parsed(
            CreatedKey, await self._client.request("POST", f"/v1/keys/{segment(id_of(key))}:rotate", json=fields)
        )

    async def revoke(self, key: Key | str) -> None:
        """End a key now."""
        await self._client.request("DELETE", f"/v1/keys/{segment(id_of(key))}")


class AsyncProjects:
    """The projects that the caller may see."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, name: str, **fields: Any) -> Project:
        """Create a project; an operator may."""
        return parsed(Project, await self._client.request("POST", "/v1/projects", json={"name": name, **fields}))

    async def get(self, project: Project | str) -> Project:
        """Return a project by its id."""
        return parsed(Project, await self._client.request("GET", f"/v1/projects/{segment(id_of(project))}"))

    def list(self, **filters: Any) -> AsyncRows[Project]:
        """Return the projects."""
        return plain_rows(self._client, Project, "/v1/projects", filters)

    async def update(self, project: Project | str, **fields: Any) -> Project:
        """Change a project's `name`, `settings` or `limits`."""
        path = f"/v1/projects/{segment(id_of(project))}"
        return parsed(Project, await self._client.request("PATCH", path, json=fields))

    async def usage(self, project: Project | str) -> dict[str, Any]:
        """Return what a project uses of each of its limits."""
        usage: dict[str, Any] = await self._client.request("GET", f"/v1/projects/{segment(id_of(project))}/usage")
        return usage
