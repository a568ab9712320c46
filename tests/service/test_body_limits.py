"""The clock of slow bodies, and the memory that large ones may have."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from starlette.types import Message

from service import body_limits
from service.body_limits import LargeBodies, SpeedClock
from service.errors import BodyProblem
from service.principal import Principal


def scope(key: str) -> dict[str, Any]:
    return {"state": {"principal": Principal(key, "prj_1", "viewer")}}


def test_a_body_may_be_slow_but_not_for_ever() -> None:
    async def take() -> str:
        clock, count = SpeedClock(1000, 0.3), 0

        async def receive() -> Message:
            await anyio.sleep(0.1)
            return {"type": "http.request", "body": b"x" * 10, "more_body": True}

        try:
            while count < 100:
                await clock.receive(receive)
                count += 1
        except BodyProblem as error:
            return error.problem.code
        return "taken"

    assert anyio.run(take) == "body_too_slow"


def test_bytes_that_come_in_time_cost_nothing() -> None:
    async def take() -> None:
        clock = SpeedClock(1000, 0.5)

        async def receive() -> Message:
            await anyio.sleep(0.02)
            return {"type": "http.request", "body": b"x" * 5000, "more_body": True}

        for _ in range(60):
            await clock.receive(receive)

    anyio.run(take)


def test_one_key_has_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "WAIT_SECONDS", 0.05)

    async def fill() -> list[tuple[int, str]]:
        memory, refused = LargeBodies(100), []
        async with AsyncExitStack() as stack:
            for key, size in (("a", 30), ("a", 20), ("a", 1), ("b", 50), ("c", 1), ("c", 0)):
                try:
                    await stack.enter_async_context(memory.hold(scope(key), size))
                except BodyProblem as error:
                    refused.append((error.problem.status, key))
        async with memory.hold(scope("a"), 1000):  # a single one always fits: its own limit is another
            pass
        return refused

    assert anyio.run(fill) == [(429, "a"), (503, "c")]


def test_who_waits_gets_the_memory_that_becomes_free() -> None:
    async def run() -> list[str]:
        memory, order = LargeBodies(100), []

        async def hold(key: str, seconds: float) -> None:
            async with memory.hold(scope(key), 100):
                order.append(key)
                await anyio.sleep(seconds)

        async with anyio.create_task_group() as group:
            group.start_soon(hold, "a", 0.2)
            await anyio.sleep(0.05)
            group.start_soon(hold, "b", 0)
        return order

    assert anyio.run(run) == ["a", "b"]
