"""New connections come in at a rate that the limits of connections can follow."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from service.http_server.event_loop import ACCEPTED, ServerEventLoop


def test_a_turn_of_the_loop_takes_a_few_new_connections_and_later_turns_the_others() -> None:
    turns: list[int] = []

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            turns[-1] += 1

    async def count() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=500)
        address = server.sockets[0].getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(10 * ACCEPTED):
                stack.enter_context(socket.create_connection(address))
            for _ in range(100):
                turns.append(0)
                await asyncio.sleep(0)
        server.close()

    with asyncio.Runner(loop_factory=ServerEventLoop) as runner:
        runner.run(count())
    assert sum(turns) == 10 * ACCEPTED
    assert max(turns) <= ACCEPTED + 1
