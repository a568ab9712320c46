"""How long transactions that write hold SQLite's lock, from their BEGIN to their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def write_transactions(engine: Engine) -> Iterator[list[float]]:
    """The seconds of each transaction that could write, in the order of their ends."""
    begun: dict[int, float] = {}
    seconds: list[float] = []

    def begin(connection: Any) -> None:
        if not connection.get_execution_options().get("read_only", False):
            begun[id(connection.connection.dbapi_connection)] = time.monotonic()

    def end(connection: Any) -> None:
        started = begun.pop(id(connection.connection.dbapi_connection), None)
        if started is not None:
            seconds.append(time.monotonic() - started)

    listeners = (("begin", begin), ("commit", end), ("rollback", end))
    for name, listener in listeners:
        event.listen(engine, name, listener)
    try:
        yield seconds
    finally:
        for name, listener in listeners:
            event.remove(engine, name, listener)
