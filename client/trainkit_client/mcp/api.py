"""The API as the tools call it: one request, its JSON or a tool error that says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mcp.server.mcpserver.exceptions import ToolError

from trainkit_client.errors import ProblemError, TrainkitError

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from trainkit_client._async.client import AsyncClient
    from trainkit_client._async.transport import AsyncTransport

SHOWN_ERRORS = 10
"""Items of `errors` in a tool error; the others are counted."""
SHOWN_DETAIL = 1200
"""Characters of a problem's `detail`."""
WHAT_TO_DO = {
    401: "Check the key that the server was started with.",
    403: "Ask for a key of another role, or with a larger budget; do not try again with this one.",
    404: "List what there is: get_dataset for datasets, get_history for jobs.",
    429: "Wait as long as the message says, then call again.",
    503: "Wait some seconds, then call again.",
}

Connect = Callable[[], AbstractAsyncContextManager["ToolApi"]]
"""Opens the API for one call of a tool, in the name of who called it."""


class ApiRefusedError(ToolError):
    """A refusal of the API. `document` is its problem document."""

    def __init__(self, document: Mapping[str, Any], request: str) -> None:
        self.document = document
        self.status = int(document.get("status") or 0)
        super().__init__(problem_text(document, request))


class ToolApi:
    """Sends requests of one caller."""

    def __init__(self, transport: AsyncTransport, client: AsyncClient | None = None) -> None:
        """Take what sends requests.

        Args:
            transport: It repeats what may be repeated, as it was told to.
            client: Whose transport it is; only needed to upload files.
        """
        self._transport, self._client = transport, client

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a GET; None in the query is left out. Raises ApiRefusedError."""
        return (await self.send("GET", path, params=query)).json()

    async def post(self, path: str, body: Any = None) -> Any:
        """Return the JSON of a POST, which is sent with an idempotency key of its own. Raises ApiRefusedError."""
        response = await self.send("POST", path, json={} if body is None else body)
        return response.json() if response.content else None

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, with the options of the SDK's transport. Raises ApiRefusedError, or ToolError without an answer."""
        try:
            return await self._transport.request(method, path, **options)
        except ProblemError as error:
            raise ApiRefusedError({"status": error.status, **error.document}, f"{method} {path}") from error
        except TrainkitError as error:
            raise ToolError(f"{error} Is the service running?") from error

    async def upload(self, path: Path, name: str, target: str | None) -> dict[str, Any]:
        """Upload a file or a folder of this machine, and return the dataset. Raises ApiRefusedError and ToolError."""
        assert self._client is not None
        try:
            return (await self._client.datasets.upload(path, name, target=target)).to_dict()
        except ProblemError as error:
            raise ApiRefusedError({"status": error.status, **error.document}, f"upload of {path.name}") from error
        except (TrainkitError, OSError) as error:
            raise ToolError(f"{path} cannot be uploaded: {error}") from error


def address(*parts: str) -> str:
    """Return the path below /v1 of these parts, each escaped."""
    return "/v1/" + "/".join(quote(part, safe="@:") for part in parts)


def problem_text(document: Mapping[str, Any], request: str) -> str:
    """Return a problem document as lines of text: what is wrong, each place with its remedy, how much is left."""
    errors = list(document.get("errors") or [])
    detail = str(document.get("detail") or document.get("title") or "no detail")[:SHOWN_DETAIL]
    lines = [f"{document.get('code')} (HTTP {document.get('status')}, {request}): {detail}"]
    for error in errors[:SHOWN_ERRORS]:
        hint = f" {error['hint']}" if error.get("hint") else ""
        lines.append(f"- at {error.get('pointer') or '/'}: {error.get('message')}.{hint}")
    if len(errors) > SHOWN_ERRORS:
        lines.append(f"- cut: {len(errors) - SHOWN_ERRORS} more problems; correct these first.")
    if quota := document.get("quota"):
        lines.append(f"Limit {quota.get('name')}: {quota.get('used')} of {quota.get('limit')} used.")
    if not errors and (advice := WHAT_TO_DO.get(int(document.get("status") or 0))):
        lines.append(f"What to do: {advice}")
    return "\n".join(lines)
