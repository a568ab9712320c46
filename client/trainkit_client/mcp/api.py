"""The API as the tools call it: one request, its JSON or a tool error that says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
from mcp.server.mcpserver.exceptions import ToolError

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

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """Return the JSON of a GET. Raises ApiRefusedError."""
        return (await self.send("GET", path, query, headers=headers)).json()

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Return the JSON of a POST, which is sent with an idempotency key of its own. Raises ApiRefusedError."""
        headers = {"Idempotency-Key": uuid4().hex}
        response = await self.send("POST", path, query, headers=headers, json={} if body is None else body)
        return response.json() if response.content else None

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """Send a request; None in `query` is left out. Raises ApiRefusedError for an error, ToolError without an answer."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            response = await self._client.request(method, path, params=given, headers=headers, **body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ToolError(
                f"The service at {self._client.base_url} does not answer: {reason}. Is it running?"
            ) from error
        if response.status_code >= 400:
            raise ApiRefusedError(document_of(response), f"{method} {path}")
        return response


def address(*parts: str) -> str:
    """Return the path below /v1 of these parts, each escaped."""
    return "/v1/" + "/".join(quote(part, safe="@:") for part in parts)


def document_of(response: httpx.Response) -> dict[str, Any]:
    """Return the problem document of an error response; one of the same form where it has none."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and "status" in document:
        return document
    return {"status": response.status_code, "code": "http_error", "detail": response.text[:300]}


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


def fixed(client_of: Callable[[], httpx.AsyncClient]) -> Connect:
    """Return what connects every call with the same address and key."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[ToolApi]:
        async with client_of() as client:
            yield ToolApi(client)

    return connect
