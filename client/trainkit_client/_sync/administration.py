# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""Keys and projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit_client._sync.resource import parsed, plain_rows
from trainkit_client._sync.rows import Rows
from trainkit_client.queries import segment
from trainkit_client.references import id_of
from trainkit_client.types import CreatedKey, Key, Project

if TYPE_CHECKING:
    from trainkit_client._sync.client import Client


class Keys:
    """The API keys of a project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str, **fields: Any) -> CreatedKey:
        """Create a key and return it with its secret, which is shown only once. Fields: `role`, `expires_in` ..."""
        return parsed(CreatedKey, self._client.request("POST", "/v1/keys", json={"name": name, **fields}))

    def get(self, key: Key | str) -> Key:
        """Return a key, without its secret."""
        return parsed(Key, self._client.request("GET", f"/v1/keys/{segment(id_of(key))}"))

    def list(self, **filters: Any) -> Rows[Key]:
        """Return the keys, newest first."""
        return plain_rows(self._client, Key, "/v1/keys", filters)

    def rotate(self, key: Key | str, **fields: Any) -> CreatedKey:
        """Create a key in the place of another one, and return it with its secret."""
        return parsed(CreatedKey, self._client.request("POST", f"/v1/keys/{segment(id_of(key))}:rotate", json=fields))

    def revoke(self, key: Key | str) -> None:
        """End a key now."""
        self._client.request("DELETE", f"/v1/keys/{segment(id_of(key))}")


class Projects:
    """The projects that the caller may see."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str, **fields: Any) -> Project:
        """Create a project; an operator may."""
        return parsed(Project, self._client.request("POST", "/v1/projects", json={"name": name, **fields}))

    def get(self, project: Project | str) -> Project:
        """Return a project by its id."""
        return parsed(Project, self._client.request("GET", f"/v1/projects/{segment(id_of(project))}"))

    def list(self, **filters: Any) -> Rows[Project]:
        """Return the projects."""
        return plain_rows(self._client, Project, "/v1/projects", filters)

    def update(self, project: Project | str, **fields: Any) -> Project:
        """Change a project's `name`, `settings` or `limits`."""
        path = f"/v1/projects/{segment(id_of(project))}"
        return parsed(Project, self._client.request("PATCH", path, json=fields))

    def usage(self, project: Project | str) -> dict[str, Any]:
        """Return what a project uses of each of its limits."""
        usage: dict[str, Any] = self._client.request("GET", f"/v1/projects/{segment(id_of(project))}/usage")
        return usage
