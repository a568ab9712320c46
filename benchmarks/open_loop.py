"""Load that does not wait for answers: so many requests a second are due, however slow the service is.

One process, one thread, one `epoll`: at 2,000 requests a second it takes a tenth to a fifth of a core, which it
reports, because it shares the machine with the service that it measures. A request's time counts from the moment when
it was due, also where it was sent late (no "coordinated omission").
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_CONNECTIONS = 1000
HEALTH_CONNECTIONS = 16
HEALTH_SECONDS = 0.1
"""Between two health checks."""
ANSWER_SECONDS = 30.0
"""How long the last answers are waited for."""
REFUSED = (429, 503)


@dataclass
class Answers:
    """What came back: by status the seconds from the moment when a request was due to the last byte of its answer."""

    seconds: dict[int, array[float]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    """Of accepted POST requests."""
    without_retry_after: int = 0
    broken: int = 0
    """Connections that were closed, or had no answer in time."""
    unsent: int = 0
    """Requests that found every connection in use to the end."""

    def count(self, *statuses: int) -> int:
        return sum(len(self.seconds.get(status, ())) for status in statuses)

    def quantile(self, share: float, *statuses: int) -> float:
        return quantile([one for status in statuses for one in self.seconds.get(status, ())], share)


@dataclass
class Generated:
    """One run of the generator."""

    answers: Answers
    health: Answers
    wall_seconds: float
    processor_seconds: float
    """Of the generator itself."""
    longest_turn: float
    """Seconds between two looks at the sockets: an answer may have been seen so much too late."""


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies; 0 without any."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def raw_request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """The bytes of a request on a connection that stays open."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Connection:
    """A socket with the request that it carries, and what has come of the answer."""

    __slots__ = ("at", "body_at", "data", "end", "request", "socket", "source")

    def __init__(self, source: _Source, port: int) -> None:
        self.source, self.at, self.request = source, 0.0, b""
        self.data, self.body_at, self.end = bytearray(), 0, 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))

    def is_whole(self) -> bool:
        """Whether the whole answer is here."""
        if not self.end:
            at = self.data.find(b"\r\n\r\n")
            if at < 0:
                return False
            length = _header(self.data[:at].lower(), b"content-length")
            self.body_at, self.end = at + 4, at + 4 + int(length or 0)
        return len(self.data) >= self.end


class _Source:
    """Requests that become due: at a rate, or (without one) as soon as a connection is free."""

    def __init__(self, requests: Sequence[bytes], connections: int, a_second: float | None = None) -> None:
        self.answers = Answers()
        self.idle: list[_Connection] = []
        self.open = self._numbered = 0
        self._requests, self._connections, self._a_second = requests, connections, a_second
        self._waiting: deque[float] = deque()

    def next(self, begin: float, now: float, until: float) -> tuple[float, bytes] | None:
        """Return the next request that is due and can be sent, with the moment when it was due."""
        if self._a_second is None:
            can_send = now < until and (self.idle or self.open < self._connections)
            at: float | None = now if can_send else None
        else:
            while (due := begin + len(self) / self._a_second) <= min(now, until):
                self._waiting.append(due)
                self._numbered += 1
            at = self._waiting.popleft() if self._waiting and (self.idle or self.open < self._connections) else None
        if at is None:
            return None
        if self._a_second is None:
            self._numbered += 1
        return at, self._requests[(self._numbered - len(self._waiting)) % len(self._requests)]

    def __len__(self) -> int:
        return self._numbered

    def unsent(self) -> int:
        return len(self._waiting)

    def due_in(self, begin: float, now: float) -> float:
        """Seconds until another one becomes due."""
        return 1.0 if self._a_second is None else begin + self._numbered / self._a_second - now


class _Generator:
    def __init__(self, port: int, sources: Sequence[_Source]) -> None:
        self._port, self._sources = port, sources
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._busy = 0

    def run(self, seconds: float) -> float:
        """Send for so long, then wait for what is on its way. Returns the longest turn of the loop."""
        longest, begin = 0.0, time.monotonic()
        now, until, seen_at = begin, begin + seconds, begin
        while now < until or (self._busy and now < until + ANSWER_SECONDS):
            for source in self._sources:
                while (found := source.next(begin, now, until)) is not None:
                    self._send(source, *found)
            pause = min(source.due_in(begin, now) for source in self._sources) if now < until else 0.1
            longest = max(longest, time.monotonic() - seen_at)
            events = self._epoll.poll(min(max(pause, 0.0005), max(until - now, 0.0005) if now < until else 0.1))
            seen_at = now = time.monotonic()
            for descriptor, event in events:
                if descriptor in self._connections:
                    self._on_event(self._connections[descriptor], event, now)
        for connection in list(self._connections.values()):
            if connection.request:
                connection.source.answers.broken += 1
            self._close(connection)
        for source in self._sources:
            source.answers.unsent = source.unsent()
        self._epoll.close()
        return longest

    def _send(self, source: _Source, at: float, request: bytes) -> None:
        if source.idle:
            connection = source.idle.pop()
        else:
            connection = _Connection(source, self._port)
            source.open += 1
            self._connections[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket.fileno(), select.EPOLLOUT)
        connection.at, connection.request = at, request
        connection.data.clear()
        connection.end = 0
        self._busy += 1
        try:
            sent = connection.socket.send(request)
        except BlockingIOError:
            sent = 0  # it is not connected yet
        except OSError:
            self._break(connection)
            return
        self._listen(connection, sent)

    def _listen(self, connection: _Connection, sent: int) -> None:
        """Ask for the answer, or for the moment when the rest of the request can be sent."""
        rest = connection.request[sent:]
        self._epoll.modify(connection.socket.fileno(), select.EPOLLOUT if rest else select.EPOLLIN)
        connection.request = rest or b"\0"

    def _on_event(self, connection: _Connection, event: int, now: float) -> None:
        try:
            if event & select.EPOLLOUT and not event & select.EPOLLERR:
                self._listen(connection, connection.socket.send(connection.request))
                return
            piece = connection.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._break(connection)
            return
        connection.data += piece
        if connection.is_whole():
            self._on_answer(connection, now)

    def _on_answer(self, connection: _Connection, now: float) -> None:
        source, data = connection.source, connection.data
        head, answers, status = bytes(data[: connection.body_at]).lower(), source.answers, int(data[9:12])
        if status not in answers.seconds:
            answers.seconds[status] = array("d")
        answers.seconds[status].append(now - connection.at)
        if status in REFUSED and _header(head, b"retry-after") is None:
            answers.without_retry_after += 1
        if status == 201:
            answers.bodies.append(bytes(data[connection.body_at :]))
        self._busy -= 1
        connection.request = b""
        if _header(head, b"connection") == b"close":
            self._close(connection)
        else:
            source.idle.append(connection)

    def _break(self, connection: _Connection) -> None:
        if connection.request:
            connection.source.answers.broken += 1
            self._busy -= 1
        elif connection in connection.source.idle:
            connection.source.idle.remove(connection)
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        connection.source.open -= 1
        connection.socket.close()  # epoll forgets it


def _header(head: bytes, name: bytes) -> bytes | None:
    """A header's value in a head in lower case."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    at += len(name) + 3
    end = head.find(b"\r\n", at)
    return bytes(head[at : end if end >= 0 else len(head)]).strip()


def _health() -> _Source:
    return _Source([raw_request("GET", "/healthz", "none")], HEALTH_CONNECTIONS, 1 / HEALTH_SECONDS)


def health_beside(port: int, request: bytes, clients: int, seconds: float) -> Answers:
    """Ask for health while so many clients send the same request, each as soon as it has its answer."""
    health = _health()
    _Generator(port, [health, _Source([request], clients)]).run(seconds)
    return health.answers


def drive(
    port: int, requests: Sequence[bytes], a_second: float, seconds: float, connections: int = MAX_CONNECTIONS
) -> Generated:
    """Send `requests`, one after another and again from the first, at that rate, and ask for health meanwhile."""
    load = _Source(requests, connections, a_second)
    health = _health()
    begin, used = time.monotonic(), time.process_time()
    longest = _Generator(port, [health, load]).run(seconds)
    return Generated(
        load.answers, health.answers, time.monotonic() - begin, time.process_time() - used, longest_turn=longest
    )


def capacity(port: int, requests: Sequence[bytes], seconds: float, clients: int = 8) -> float:
    """Requests a second that so many clients get answered, each of which waits for its answers."""
    source = _Source(requests, clients)
    _Generator(port, [source]).run(seconds)
    return sum(len(times) for status, times in source.answers.seconds.items() if status < 300) / seconds
