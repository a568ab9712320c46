"""Refusals that the HTTP server sends by the head of a request: the application never sees these requests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from benchmarks.open_loop import raw_request
from service.early_refusals import KEPT, STATE, EarlyRefusals
from service.errors import HttpProblem
from service.http_server import protocol
from service.http_server.event_loop import ServerEventLoop
from service.http_server.protocol import BoundedHttpProtocol
from service.key_limits import KeyLimits
from service.load_shedding import LoadShedding
from service.monitoring.request_metrics import REQUESTS
from service.principal import Principal
from service.settings import Settings

KEY = "Bearer tk_known"
OF_THE_KEY = Principal("key:known", "prj_1", "viewer")


class Server:
    """The protocol before an application that answers 200, and refuses nothing itself."""

    def __init__(self, port: int, early: EarlyRefusals) -> None:
        self.port, self.early = port, early
        self.seen: list[tuple[str, str, bytes]] = []
        self.protocols: list[BoundedHttpProtocol] = []
        self.overloaded = True

    async def ask(self, *requests: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """Send the requests on one connection, one after the other."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            found = []
            for request in requests:
                writer.write(request)
                found.append(await read_answer(reader))
            return found
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
    body = await reader.readexactly(int(headers.get("content-length", "0"))) if head[0].split()[1] != "304" else b""
    return int(head[0].split()[1]), headers, body


def request(method: str = "GET", body: bytes = b"", *headers: str, key: str = KEY, path: str = "/v1/jobs") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: {key}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    early = EarlyRefusals()
    early.remember({"headers": [(b"authorization", KEY.encode())]}, OF_THE_KEY)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        server.seen.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"ok"})

    config = Config(app, log_config=None, ws="none", http=BoundedHttpProtocol)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()

    def connect() -> BoundedHttpProtocol:
        server.protocols.append(BoundedHttpProtocol(config, state, {STATE: early}))
        return server.protocols[-1]

    listening = await loop.create_server(connect, "127.0.0.1", 0)
    server = Server(listening.sockets[0].getsockname()[1], early)
    problem = HttpProblem(503, "overloaded", "Too much.", headers={"Retry-After": "1"})
    early.add(lambda principal, path, query: problem if server.overloaded and path != "/healthz" else None)
    try:
        yield server
    finally:
        listening.close()


def run(test: Callable[[Server], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with serving() as server, asyncio.timeout(20):
            await test(server)

    with asyncio.Runner(loop_factory=ServerEventLoop) as runner:
        runner.run(whole())


def counted(method: str) -> float:
    return REQUESTS.labels(method, "(none)", "5xx")._value.get()


def test_a_refusal_by_the_head_leaves_the_connection_usable() -> None:
    async def test(server: Server) -> None:
        before = counted("POST")
        sent = request("POST", b'{"a": 1}', "X-Request-Id: mine")
        first, health, second = await server.ask(sent, request(path="/healthz"), sent)
        for status, headers, body in (first, second):
            assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "mine")
            assert headers["content-type"] == "application/problem+json"
            assert headers["x-content-type-options"] == "nosniff"
            assert "connection" not in headers
            assert (json.loads(body)["code"], json.loads(body)["request_id"]) == ("overloaded", "mine")
        assert health[0] == 200
        assert server.seen == [("GET", "/healthz", b"")]
        assert counted("POST") == before + 2
        server.overloaded = False
        assert (await server.ask(sent))[0][0] == 200
        assert server.seen[1:] == [("POST", "/v1/jobs", b'{"a": 1}')]

    run(test)


@pytest.mark.parametrize(
    "unusual",
    [
        request(key="Bearer tk_other"),
        request("HEAD"),
        request("POST", b"x" * 100_000),
        request("GET", b"", "Origin: https://example.com"),
        request("POST", b"", "Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\n\r\n",
        request("POST", b"ab", "Expect: 100-continue"),
    ],
    ids=["a key not seen yet", "HEAD", "large body", "a browser", "chunked", "Expect"],
)
def test_what_needs_more_than_the_head_is_left_to_the_application(unusual: bytes) -> None:
    async def test(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(unusual)
        line = await reader.readline()
        assert line.split()[1] in (b"200", b"100")
        writer.close()
        assert len(server.seen) == 1

    run(test)


def test_a_client_that_wants_no_further_request_is_answered_and_disconnected() -> None:
    async def test(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("GET", b"", "Connection: close"))
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (503, "close")
        assert await reader.read() == b""
        writer.close()
        assert not server.seen

    run(test)


def test_a_body_that_does_not_come_does_not_hold_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.1)

    async def test(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("POST", b"whole")[:-2])
        assert (await read_answer(reader))[0] == 503
        assert await reader.read() == b""
        writer.close()

    run(test)


def test_a_client_that_reads_nothing_gets_no_more_refusals_than_fit_into_its_socket() -> None:
    refusals = 0

    async def test(server: Server) -> None:
        def count(*_: Any) -> None:
            nonlocal refusals
            refusals += 1

        server.early.add(count)
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", server.port))
        with pytest.raises(TimeoutError):  # the server has stopped to read
            await asyncio.wait_for(loop.sock_sendall(deaf, request() * 1_000_000), 1)
        deaf.close()

    run(test)
    assert 0 < refusals < 50_000, "of a stream of requests without end"


class Middleware:
    """Limits of keys and load shedding before work that ends when the test says so."""

    def __init__(self, **environment: str) -> None:
        self.early, self.finish = EarlyRefusals(), asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            await self.finish.wait()

        def no_database() -> Any:
            raise OperationalError("", {}, Exception("away"))

        shedding = LoadShedding(work, early=self.early, limit=1, waiting=2)
        settings = Settings.from_env({"TRAINKIT_MAX_REQUESTS_PER_KEY": "3", **environment})
        self._app = KeyLimits(shedding, cast(Any, no_database), settings, early=self.early)

    async def begin(self, name: str, project: str) -> None:
        headers = [(b"authorization", name.encode())]
        state = {"principal": Principal(name, project, "viewer")}
        scope = {"type": "http", "path": "/v1/jobs", "query_string": b"", "headers": headers, "state": state}

        async def nothing() -> Message:
            return {"type": "http.request"}

        async def forget(message: Message) -> None:
            pass

        self.tasks.append(asyncio.create_task(self._app(scope, nothing, forget)))
        await asyncio.sleep(0.05)

    def problem(self, name: str, path: str = "/v1/jobs", query: bytes = b"") -> HttpProblem | None:
        return self.early.problem(name.encode(), path, query)

    def code(self, name: str, path: str = "/v1/jobs", query: bytes = b"") -> str | None:
        problem = self.problem(name, path, query)
        return problem.code if problem else None

    async def end(self) -> None:
        self.finish.set()
        await asyncio.gather(*self.tasks)


def test_the_middleware_tells_what_it_would_refuse() -> None:
    async def test() -> None:
        middleware = Middleware(TRAINKIT_MAX_REQUESTS_PER_MINUTE="0")
        code = middleware.code
        for _ in range(2):
            await middleware.begin("k1", "p1")
        assert code("k1") is None, "there is room to wait"
        await middleware.begin("k1", "p1")
        assert code("k1") == "too_many_requests", "three are in work or wait"
        assert code("k1", "/v1/jobs/j/stream") == "overloaded", "streams have a limit of their own"
        assert code("k1", "/healthz") is None
        assert code("k2") is None, "nobody has seen this key"
        await middleware.begin("k2", "p2")
        assert code("k2") == "overloaded", "it has as many waiting as the other project"
        assert code("k2", "/metrics") is None
        await middleware.end()
        assert code("k1") is None

    asyncio.run(asyncio.wait_for(test(), 20))


def test_heads_that_are_read_before_the_first_request_begins_are_not_all_let_through_for_one_place() -> None:
    async def test() -> None:
        middleware = Middleware(TRAINKIT_MAX_REQUESTS_PER_MINUTE="0", TRAINKIT_MAX_REQUESTS_PER_KEY="0")
        for name in ("k1", "k2"):
            await middleware.begin(name, name)
        assert [middleware.code("k1") for _ in range(4)] == [None, "overloaded", "overloaded", "overloaded"]
        await asyncio.sleep(0)  # they did not come: refused by something else, or their clients are gone
        assert middleware.code("k1") is None
        await middleware.end()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_connection_that_was_refused_is_read_after_others_until_it_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(server: Server) -> None:
        changes: list[bool] = []

        def keep(descriptor: int, *, deferred: bool) -> None:
            changes.append(deferred)

        monkeypatch.setattr(asyncio.get_running_loop(), "defer", keep)
        await server.ask(request(), request(), request(path="/healthz"), request(), request())
        while len(changes) < 4:
            await asyncio.sleep(0.01)
        assert changes == [True, False, True, False], "at its end as well: the descriptor will be another connection's"

    run(test)


def test_a_request_that_waits_to_be_read_is_no_silent_client() -> None:
    async def test(server: Server) -> None:
        server.overloaded = False
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request())
        assert (await read_answer(reader))[0] == 200
        connection = server.protocols[-1]
        connection.transport.pause_reading()  # as where the event loop has others to read first
        writer.write(request())
        while not connection._has_unread():
            await asyncio.sleep(0.01)
        connection.timeout_keep_alive_handler()
        connection._deadline = 0.0
        connection.check(1.0)
        connection.transport.resume_reading()
        assert (await read_answer(reader))[0] == 200
        connection.timeout_keep_alive_handler()
        assert await reader.read() == b"", "nothing was sent: it is closed"
        writer.close()

    run(test)


def test_requests_beyond_those_of_a_minute_are_refused_and_cost_nothing() -> None:
    async def test() -> None:
        middleware = Middleware(TRAINKIT_MAX_REQUESTS_PER_MINUTE="1")
        await middleware.begin("k1", "p1")
        for _ in range(2):
            problem = middleware.problem("k1")
            assert problem is not None
            assert problem.code == "rate_limited"
            assert 58 <= int(problem.headers["Retry-After"]) <= 60
            assert problem.headers["RateLimit-Policy"] == '"requests";q=1;w=60'
            assert problem.headers["RateLimit"].startswith('"requests";r=0;t=')
        await middleware.end()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_flood_of_keys_is_not_remembered_without_end() -> None:
    early = EarlyRefusals()
    early.add(lambda *_: HttpProblem(503, "overloaded", "Too much."))
    for number in range(KEPT + 1):
        early.remember({"headers": [(b"authorization", b"%d" % number)]}, OF_THE_KEY)
    assert early.problem(b"0", "/v1/jobs", b"") is None
    assert early.problem(b"%d" % KEPT, "/v1/jobs", b"") is not None


def test_the_requests_of_the_load_generator_are_usual_ones() -> None:
    async def test(server: Server) -> None:
        assert [answer[0] for answer in await server.ask(raw_request("POST", "/v1/jobs", "tk_known", b"{}"))] == [503]

    run(test)
