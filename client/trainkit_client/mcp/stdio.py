"""`trainkit mcp`: the MCP server on standard input and output, for an agent on this machine."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from trainkit_client._async.client import AsyncClient
from trainkit_client.errors import MissingExtra, Unreachable

MAX_RETRIES = 2
"""An agent should hear of a trouble that lasts, and not wait for it."""


def serve(client: AsyncClient, *, read_only: bool = False, folder: Path | None = None) -> None:
    """Serve until standard input ends. What happens is written to standard error.

    Args:
        client: Address and key of the service.
        read_only: Offer no tool that uploads, trains or stops; a key of a viewer implies it.
        folder: Files below it may be uploaded by path; None: none.

    Raises:
        MissingExtra: Where the MCP SDK is not installed.
        ProblemError: When the service refuses the key.
    """
    try:
        from trainkit_client.mcp.api import ToolApi
        from trainkit_client.mcp.server import build_server
    except ModuleNotFoundError as error:
        raise MissingExtra("mcp", "mcp", "The MCP server") from error

    @asynccontextmanager
    async def connect() -> AsyncIterator[ToolApi]:
        yield ToolApi(client.transport, client)

    async def main() -> None:
        async with client:
            writable = await _may_write(client)
            server = build_server(connect, read_only=read_only or not writable, folder=folder)
            await server.run_stdio_async()

    anyio.run(main)


async def _may_write(client: AsyncClient) -> bool:
    """Whether the key may train. Raises ProblemError for one that is refused; where no service answers, tools will say so."""
    try:
        me = await client.transport.json("GET", "/v1/me")
    except Unreachable as error:
        print(f"trainkit mcp: {error} The tools will try again.", file=sys.stderr)
        return True
    return bool(me.get("role") != "viewer")
