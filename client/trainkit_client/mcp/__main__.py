"""`python -m trainkit_client.mcp`: the server on standard input and output, configured by the environment or a profile."""

from __future__ import annotations

from pathlib import Path

from trainkit_client._async.client import AsyncClient
from trainkit_client.mcp.stdio import MAX_RETRIES, serve

if __name__ == "__main__":
    serve(AsyncClient(max_retries=MAX_RETRIES), folder=Path.cwd())
