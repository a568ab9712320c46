"""The least that a server in Python does: one event loop of asyncio that gives every request the same few bytes.

What health takes here under the same load is the machine's share of what it takes in the service.
"""

from __future__ import annotations

import asyncio

HEALTHY = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class BareProtocol(asyncio.Protocol):
    """A connection of the load generator, which sends a request whole and waits for its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(HEALTHY if b"/healthz" in data[:64] else REFUSED)


async def serve() -> None:
    """Print the port, then answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(BareProtocol, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
