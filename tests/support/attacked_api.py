"""A real API process under attack: raw sockets to it, and how its memory and the answers of its health check do."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from service.cli.commands import api_command
from service.database import make_engine
from service.roles import Role
from service.sessions import session_factory
from tests.support.api import Served, new_key
from tests.support.stack import free_port

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
MOST_MIB = 100.0
"""By how much an attack may make the process grow."""
SLOWEST_HEALTH = 3.0
"""Seconds that a health check may take meanwhile: far more than it takes, far less than it took before the bounds."""


@dataclass(frozen=True)
class RawAnswer:
    """An HTTP response as it came; `status` 0 for a connection that was closed without one."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class AttackedApi:
    """`trainkit api` as it is started everywhere, on a database of its own."""

    def __init__(self, folder: Path, database: Path, descriptors: int | None = None, **environment: str) -> None:
        self.folder, self.port = folder, free_port()
        self._numbers = itertools.count()
        self.url = f"sqlite:///{database}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")},
            "TRAINKIT_HOME": str(folder),
            "TRAINKIT_DATABASE_URL": self.url,
            "TRAINKIT_BROKER_URL": "memory://",
            "TRAINKIT_PREDICT_SECONDS": "0.1",
            "TRAINKIT_REQUEST_HEAD_SECONDS": "1",
            "TRAINKIT_BODY_IDLE_SECONDS": "1",
            **environment,
        }
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (descriptors, descriptors)) if descriptors else None
        with (folder / "api.log").open("ab") as log:
            command = api_command("127.0.0.1", self.port)
            self.process = subprocess.Popen(
                command, env=self.environment, preexec_fn=limit, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 180
        while self.send(HEALTH).status != 200:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return (self.folder / "api.log").read_text(errors="replace")

    def key(self, project: str = "default", *roles: Role) -> str:
        engine = make_engine(self.url)
        key = new_key(session_factory(engine), project, *(roles or ("admin",)))
        engine.dispose()
        return key

    def queued_job(self) -> str:
        """The id of a new job of the project `default`, that no worker takes."""
        with self._served() as served:
            return served.submit()

    def model(self) -> str:
        """The id of a new model of the project `default`, without files."""
        with self._served() as served:
            served.submit()
            model = served.finish(served.claim())
        assert model is not None
        return model

    @contextlib.contextmanager
    def _served(self) -> Iterator[Served]:
        """What workers do in the database, and what clients do by HTTP."""
        engine = make_engine(self.url)
        headers = {"Authorization": f"Bearer {self.key()}"}
        context = cast(Any, SimpleNamespace(sessions=session_factory(engine)))
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers) as client:
            yield Served(cast(Any, None), cast(Any, client), context, self._numbers)
        engine.dispose()

    def connect(self, seconds: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def send(self, data: bytes, seconds: float = 20) -> RawAnswer:
        """Send the bytes, as far as they are taken, and read one response."""
        try:
            with self.connect(seconds) as connection:
                with contextlib.suppress(OSError):
                    connection.sendall(data)
                return read_answer(connection)
        except OSError:
            return RawAnswer()

    def resident_mib(self, name: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024

    @contextlib.contextmanager
    def watched(self, most_mib: float = MOST_MIB, slowest: float = SLOWEST_HEALTH) -> Iterator[None]:
        """Assert that meanwhile health answers, soon, and the process does not grow by more than so many MiB."""
        before = self.resident_mib()
        with contextlib.suppress(PermissionError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak starts anew
        ended, answers = threading.Event(), []

        def probe() -> None:
            while not ended.is_set():
                begin = time.monotonic()
                status = self.send(HEALTH).status
                answers.append((status, time.monotonic() - begin))
                ended.wait(0.05)

        prober = threading.Thread(target=probe)
        prober.start()
        try:
            yield
        finally:
            ended.set()
            prober.join()
        assert self.process.poll() is None, self.log()
        assert {status for status, _ in answers} == {200}, answers
        assert max(seconds for _, seconds in answers) < slowest, answers
        grown = self.resident_mib("VmHWM") - before
        assert grown < most_mib, f"the process grew by {grown:.0f} MiB"


def read_answer(connection: socket.socket) -> RawAnswer:
    """Read one response with its body. Nothing that can be read is a status of 0."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return RawAnswer()
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(body) < size and (more := connection.recv(65536)):
            body += more
    except OSError:
        return RawAnswer()
    return RawAnswer(int(first.split()[1]), headers, body)


def request(
    method: str, path: str, key: str = "", body: bytes = b"", kind: str = "application/json", **headers: str
) -> bytes:
    """The bytes of a well-formed request; `_` in a header's name stands for `-`, and an empty value leaves it out."""
    sent = {"Host": "localhost", "Connection": "close"}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    if body:
        sent |= {"Content-Type": kind, "Content-Length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def assert_refused(answer: RawAnswer, status: int, code: str) -> None:
    """Check that the answer is a problem document with its code, and safe to show in a browser."""
    assert (answer.status, answer.document["code"]) == (status, code), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.document["request_id"] == answer.headers["x-request-id"]
    assert answer.document["detail"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
