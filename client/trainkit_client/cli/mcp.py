"""`trainkit mcp`: tools for an agent on this machine, by the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainkit_client.cli.command import Session, command, single

app = single()


@command(app, None, "trainkit mcp\ntrainkit mcp --read-only\ntrainkit mcp --folder data")
def mcp(
    session: Session,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Offer no tool that uploads, trains or stops.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Files and folders below it may be uploaded by path; left out: none.")
    ] = None,
) -> None:
    """Serve tools for an agent on standard input and output (MCP), until the input ends. Agents start it themselves."""
    from trainkit_client import AsyncClient
    from trainkit_client.mcp.stdio import MAX_RETRIES, serve

    client = AsyncClient(session.url, profile=session.profile, max_retries=MAX_RETRIES)
    serve(client, read_only=read_only, folder=folder)
