"""A real API process that is killed, and a network that breaks, both on purpose."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import uvicorn

FORKSERVER = multiprocessing.get_context("forkserver")
"""Starts the API's processes as forks of one clean process that has imported the service: starting is not under test."""
FORKSERVER.set_forkserver_preload([__name__, "service.asgi"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _serve(environment: dict[str, str], port: int, log: Path) -> None:
    """Do what `uvicorn service.asgi:serve --factory --port ...` does, in a process of its own."""
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    uvicorn.run("service.asgi:serve", factory=True, port=port)


class Api:
    """uvicorn with the service, on a port of its own, that can be killed and comes back as often as one likes."""

    def __init__(self, database_url: str, folder: Path, **environment: str) -> None:
        self.port, self.folder = free_port(), folder
        self.environment = {
            **os.environ,
            "TRAINKIT_DATABASE_URL": database_url,
            "TRAINKIT_BROKER_URL": f"redis+socket://{folder}/nobody.sock",
            "TRAINKIT_HOME": str(folder),
            "TRAINKIT_STORAGE_URL": str(folder / "storage"),
            **environment,
        }
        self.deaths = 0
        self.start()

    def start(self) -> None:
        log = self.folder / "api.log"
        self.process = FORKSERVER.Process(target=_serve, args=(self.environment, self.port, log), daemon=True)
        self.process.start()
        deadline = time.monotonic() + 180
        with httpx.Client(verify=False) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    client.get(f"http://127.0.0.1:{self.port}/healthz").raise_for_status()
                    return
                if self.process.exitcode == -signal.SIGKILL:
                    return  # a failpoint was quicker than our question
                assert self.process.exitcode is None, log.read_text()
                time.sleep(0.05)
        raise AssertionError("the API does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.revive()

    def revive(self) -> None:
        """Start it again after a death."""
        self.process.join()
        self.deaths += 1
        self.start()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


class Network:
    """A proxy in front of the API. After some bytes it breaks the connection, or something worse (`disaster`)."""

    def __init__(self, api: Api, cuts: int, longest: int, disaster: Callable[[int], None] = lambda cut: None) -> None:
        self.api, self.cuts_left, self.longest, self.disaster = api, cuts, longest, disaster
        self.cuts = self.sent = 0
        self.offsets: list[int] = []
        self._random = random.Random(0)
        self._until_cut = self._draw()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _draw(self) -> int:
        return self._random.randrange(self.longest) if self.cuts_left else 1 << 60

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                # one after the other: the client under test sends one request at a time
                with client:
                    self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.api.port))
        except OSError:
            return
        with server:
            back = threading.Thread(target=_pipe, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    self.offsets += [int(found) for found in re.findall(rb"(?i)\nupload-offset: (\d+)\r", data)]
                    data, broken = data[: self._until_cut], len(data) >= self._until_cut
                    self._until_cut -= len(data)
                    self.sent += len(data)
                    server.sendall(data)
                    if broken:
                        self._break(client, server)
                        break
            for each in (server, client):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            back.join()

    def _break(self, client: socket.socket, server: socket.socket) -> None:
        self.cuts, self.cuts_left = self.cuts + 1, self.cuts_left - 1
        self._until_cut = self._draw()
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.disaster(self.cuts)

    def close(self) -> None:
        self._listener.close()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
