"""What differs between the asynchronous and the synchronous client beside `await`: sleeping, threads, the HTTP client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import httpx

P = ParamSpec("P")
T = TypeVar("T")
HttpClient = httpx.Client
HttpTransport = httpx.BaseTransport


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it: a synchronous caller waits anyway."""
    return function(*args, **kwargs)
