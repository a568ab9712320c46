"""What differs between the asynchronous and the synchronous client beside `await`: sleeping, threads, the HTTP client."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
import httpx

P = ParamSpec("P")
T = TypeVar("T")
HttpClient = httpx.AsyncClient
HttpTransport = httpx.AsyncBaseTransport


async def sleep(seconds: float) -> None:
    """Wait without blocking the event loop."""
    await anyio.sleep(seconds)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what reads files or computes for long in a thread, so that the event loop goes on."""
    return await anyio.to_thread.run_sync(functools.partial(function, *args, **kwargs))
