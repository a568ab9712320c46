"""New connections come in at a rate that the limits of connections can follow."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from service.http_server.event_loop import ACCEPTED, DEFERRED, ServerEventLoop


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


def test_a_turn_of_the_loop_reads_a_few_deferred_sockets_and_all_others_first() -> None:
    """Those that are quick to send again take nobody's turn."""
    turns: list[list[str]] = []

    async def count() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ServerEventLoop)
        with contextlib.ExitStack() as stack:
            for number in range(3 * DEFERRED + 2):
                ours, other = (stack.enter_context(one) for one in socket.socketpair())
                name = f"usual{number}" if number > 3 * DEFERRED - 1 else f"deferred{number}"

                def read(ours: socket.socket = ours, other: socket.socket = other, name: str = name) -> None:
                    ours.recv(1)
                    turns[-1].append(name)
                    other.send(b"x")

                loop.add_reader(ours, read)
                stack.callback(loop.remove_reader, ours)
                if name.startswith("deferred"):
                    loop.defer(ours.fileno(), deferred=True)
                other.send(b"x")
            for _ in range(7):
                turns.append([])
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=ServerEventLoop) as runner:
        runner.run(count())
    full = [turn for turn in turns if turn]
    deferred = [[name for name in turn if name.startswith("deferred")] for turn in full]
    assert [len(names) for names in deferred] == [DEFERRED] * len(full)
    assert all({f"usual{3 * DEFERRED}", f"usual{3 * DEFERRED + 1}"} <= set(turn) for turn in full)
    assert len(set().union(*deferred[:3])) == 3 * DEFERRED, "each once before one is read again"
    assert deferred[3:6] == deferred[:3]
