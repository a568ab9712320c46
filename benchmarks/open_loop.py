"""Load that does not wait for answers: so many requests a second are sent, however slow the service is."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

MAX_CONNECTIONS = 600
ANSWER_SECONDS = 30.0


@dataclass
class Answers:
    """What came back: by status the seconds from the moment when a request was due to its last byte."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    """Of accepted POST requests."""
    without_retry_after: int = 0
    broken: int = 0
    """Connections that were closed, or had no answer in time."""
    unsent: int = 0
    """Requests that were due while every connection was in use."""

    def count(self, *statuses: int) -> int:
        return sum(len(self.seconds.get(status, ())) for status in statuses)

    def quantile(self, share: float, *statuses: int) -> float:
        return quantile([one for status in statuses for one in self.seconds.get(status, ())], share)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies; 0 without any."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def raw_request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """The bytes of a request on a connection that stays open."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes, bytes]:
    """Send one request and return (status, headers, body)."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return int(head[9:12]), head, await reader.readexactly(int(length.partition(b":")[2]))


async def _drive(port: int, requests: Sequence[bytes], a_second: float, seconds: float, connections: int) -> Answers:
    answers = Answers()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    open_connections, tasks = 0, set()

    async def send(at: float, request: bytes) -> None:
        nonlocal open_connections
        pair = idle.pop() if idle else None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if pair is None:
                    open_connections += 1
                    pair = await asyncio.open_connection("127.0.0.1", port)
                status, head, body = await exchange(*pair, request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            answers.broken += 1
            open_connections -= 1
            if pair is not None:
                pair[1].close()
            return
        answers.seconds.setdefault(status, []).append(time.monotonic() - at)
        if status in (429, 503) and b"\r\nretry-after:" not in head.lower():
            answers.without_retry_after += 1
        if status == 201:
            answers.bodies.append(body)
        if b"connection: close" in head.lower():
            open_connections -= 1
            pair[1].close()
        else:
            idle.append(pair)

    begin, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - begin) < seconds:
        while sent < elapsed * a_second:
            at = begin + sent / a_second
            if idle or open_connections < connections:
                task = asyncio.create_task(send(at, requests[sent % len(requests)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(0)
            else:
                answers.unsent += 1
            sent += 1
        await asyncio.sleep(0.005)
    while tasks:
        await asyncio.wait(set(tasks))
    for _, writer in idle:
        writer.close()
    return answers


def drive(port: int, requests: Sequence[bytes], a_second: float, seconds: float) -> Answers:
    """Send `requests`, one after another and again from the first, at that rate."""
    return asyncio.run(_drive(port, requests, a_second, seconds, MAX_CONNECTIONS))


def capacity(port: int, requests: Sequence[bytes], seconds: float, clients: int = 8) -> float:
    """Requests a second that so many clients get answered, each of which waits for its answers."""

    async def one(number: int, until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        while time.monotonic() < until:
            status, _, _ = await exchange(reader, writer, requests[(number + done * clients) % len(requests)])
            done += status < 300
        writer.close()
        return done

    async def everybody() -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(one(number, until) for number in range(clients))))

    return asyncio.run(everybody()) / seconds


class HealthProbe:
    """Asks `/healthz` ten times a second, from a process of its own: the load's own lag is not counted."""

    def __init__(self, port: int) -> None:
        self._pipe, other_end = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_probe, args=(port, other_end))
        self._process.start()
        self._pipe.recv()

    def stop(self) -> list[float]:
        """Return the seconds that each answer took."""
        self._pipe.send(None)
        found: list[float] = self._pipe.recv()
        self._process.join()
        return found


def _probe(port: int, pipe: Connection) -> None:
    async def ask() -> list[float]:
        found = []
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        pipe.send(None)
        while not pipe.poll():
            begin = time.perf_counter()
            await exchange(reader, writer, raw_request("GET", "/healthz", "none"))
            found.append(time.perf_counter() - begin)
            await asyncio.sleep(0.1)
        writer.close()
        return found

    pipe.send(asyncio.run(ask()))
