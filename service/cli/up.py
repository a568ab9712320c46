"""`trainkit up`: broker, database, API and workers as child processes of one foreground command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console
from rich.markup import escape

from service.cli import embedded_redis
from service.cli.commands import api_command, key_command, migrate_command, shared_metrics, worker_command
from service.cli.home import EXIT_NOT_STARTED, EXIT_PORT_TAKEN, Home, Lock, RefusedError, write_private
from service.cli.managed_process import ManagedProcess, rotate, wait_all
from trainkit_client.config import announce, withdraw_announcement

START_SECONDS = 60.0
# A worker gets 20 s for its checkpoint, and time to ship it.
WORKER_STOP_SECONDS = 45.0
API_STOP_SECONDS = 10.0
REDIS_STOP_SECONDS = 5.0
TICK_SECONDS = 0.2
DATA_SLOTS = 4
"""Of the worker for data and predictions: one is left to predictions, and no project has them all (worker/slots.py)."""


class StartInterruptedError(Exception):
    """Ctrl-C or SIGTERM while starting."""


class Up:
    """The parts of `trainkit up`. Stops them in order: workers hand their jobs back, then the API, then the broker."""

    def __init__(self, home: Home, host: str, port: int, workers: int, console: Console) -> None:
        self.home = home
        self.host = host
        self.port = port
        self.workers = workers
        self.console = console
        self.environment = home.environment(os.environ)
        self.embedded_broker = "TRAINKIT_BROKER_URL" not in os.environ
        self.parts: list[ManagedProcess] = []
        self.signals = 0

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def run(self) -> None:
        """Start the parts, restart those that end, and stop them. Raises RefusedError when they cannot start."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_signal)
        self.home.create()
        self.environment = self.home.environment(os.environ)  # with the broker's password, which exists by now
        lock = Lock(self.home.folder / "lock")
        lock.acquire()
        try:
            check_port(self.host, self.port)
            with contextlib.suppress(StartInterruptedError):
                self._start()
                while not self.signals:
                    for part in self.parts:
                        if message := part.restart_if_due():
                            self.console.print(f"[yellow]{escape(message)}[/]")
                    time.sleep(TICK_SECONDS)
        finally:
            self._stop()
            lock.release()

    def _start(self) -> None:
        if self.embedded_broker:
            path = self.home.redis_socket
            path.unlink(missing_ok=True)  # this process holds the lock, so the one that left it is dead
            server, password = embedded_redis.find_server(), self.home.broker_password
            redis = self._start_part("redis", embedded_redis.server_command(server, path, password))
            self._wait_until(lambda: embedded_redis.answers(path, password), redis)
            self._name_broker(server)
        # It spends its first seconds importing, and is not ready before the tables exist.
        api = self._start_part("api", api_command(self.host, self.port), shared_metrics(self.environment))
        self._run_command(migrate_command(), "migrate")
        key = self._first_key()
        self._start_part("worker-data", worker_command("data,predict", DATA_SLOTS), self._metrics_port(0))
        for number in range(1, self.workers + 1):
            self._start_part(f"worker-train-{number}", worker_command("train", 1), self._metrics_port(number))
        self._wait_until(self._ready, api)
        self._announce()
        self._print_summary(key)

    def _announce(self) -> None:
        """Let the commands of this user find the service: they read the key from this home."""
        try:
            announce(self.home.folder, self.url)
        except OSError as error:
            self.console.print(
                f"[yellow]Commands will not find this service by themselves ({escape(str(error))}): "
                f"set TRAINKIT_URL={self.url} and TRAINKIT_HOME={escape(str(self.home.folder))}.[/]",
                highlight=False,
            )

    def _name_broker(self, server: embedded_redis.RedisServer) -> None:
        self.console.print(f"Broker: {escape(server.summary)}, on a private socket", highlight=False)
        if server.vulnerabilities:
            self.console.print(
                f"[yellow]{escape(server.summary)}, has {', '.join(server.vulnerabilities)}; only processes of this user "
                "reach it. Install a newer valkey-server or redis-server, which is then preferred.[/]",
                highlight=False,
            )

    def _metrics_port(self, number: int) -> dict[str, str]:
        """Return the metrics port of a worker: they count up from the one that is set."""
        first = self.environment.get("TRAINKIT_WORKER_METRICS_PORT", "")
        if not first.isdigit() or int(first) == 0:
            return {}
        return {"TRAINKIT_WORKER_METRICS_PORT": str(int(first) + number)}

    def _start_part(self, name: str, command: list[str], more: dict[str, str] | None = None) -> ManagedProcess:
        log = self.home.logs / f"{name}.log"
        rotate(log)
        part = ManagedProcess(name, command, {**self.environment, **(more or {})}, log)
        part.start()
        self.parts.append(part)
        return part

    def _wait_until(self, ready: Callable[[], bool], part: ManagedProcess) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self.signals:
                raise StartInterruptedError
            if not part.running or time.monotonic() > deadline:
                raise RefusedError(
                    f"{part.name} did not start", part.last_lines() or f"Its log: {part.log}", EXIT_NOT_STARTED
                )
            time.sleep(0.05)

    def _run_command(self, command: list[str], name: str) -> str:
        """Run a command to its end and return its output."""
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if self.signals:
            raise StartInterruptedError
        if done.returncode != 0:
            log = self.home.logs / f"{name}.log"
            write_private(log, done.stdout + done.stderr)
            hint = "\n".join(done.stderr.splitlines()[-12:])
            raise RefusedError(
                f"{name} failed (exit code {done.returncode})", f"{hint}\nAll of it: {log}", EXIT_NOT_STARTED
            )
        return done.stdout

    def _first_key(self) -> str | None:
        """Create and store the first API key. Returns it when it is new, None when there is one already."""
        if self.home.key_file.exists() and self.home.key_file.stat().st_size:
            return None
        lines = self._run_command(key_command("first", "--role", "admin,operator"), "key").split()
        if not lines:
            raise RefusedError("no API key was created", "The key command printed nothing.", EXIT_NOT_STARTED)
        write_private(self.home.key_file, lines[-1] + "\n")
        return lines[-1]

    def _ready(self) -> bool:
        # A proxy from the environment must not stand between this process and loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _print_summary(self, key: str | None) -> None:
        where = escape(str(self.home.key_file))
        # what is redirected ends in a log or a file that others read
        show = key is not None and self.console.is_terminal
        shown = f"{escape(key or '')}  (kept in {where})" if show else f"in {where}"
        header = f'--header "Authorization: Bearer $(cat {where})"'
        lines = [
            "",
            "[bold green]trainkit is up[/]",
            f"  API        [bold]{self.url}[/]",
            f"  dashboard  {self.url}/   (sign in with the key)",
            f"  docs       {self.url}/docs",
            f"  API key    {shown}",
            "             of an admin of the project, who is the operator as well: `trainkit key create` makes others",
            f"  workers    1 for data and predictions, {self.workers} for training; the first needs a few seconds",
            f"  files      {escape(str(self.home.folder))}   (logs in logs/)",
            f"  hello      curl {header} {self.url}/v1/jobs",
            "  commands   trainkit jobs list, trainkit doctor, trainkit --help",
            "",
            "Ctrl-C stops everything; running jobs resume from their checkpoints at the next start.",
        ]
        self.console.print("\n".join(lines), soft_wrap=True, highlight=False)

    def _stop(self) -> None:
        if not self.parts:
            return
        with contextlib.suppress(OSError):
            withdraw_announcement(self.home.folder)
        self.console.print("Stopping: workers write checkpoints and hand their jobs back. Ctrl-C again to kill them.")
        workers = [part for part in self.parts if part.name.startswith("worker")]
        others = [part for part in reversed(self.parts) if part not in workers]
        with self._kill_on_second_signal():
            for part in workers:
                part.signal(signal.SIGTERM)
            wait_all(workers, WORKER_STOP_SECONDS)
            for part in others:
                part.signal(signal.SIGTERM)
                wait_all([part], REDIS_STOP_SECONDS if part.name == "redis" else API_STOP_SECONDS)
        for part in self.parts:
            part.kill()
        if self.embedded_broker:
            self.home.redis_socket.unlink(missing_ok=True)
            self.home.redis_socket.with_name("redis.conf").unlink(missing_ok=True)
            if self.home.redis_socket.parent.parent != self.home.folder:
                self.home.redis_socket.parent.rmdir()
        self.console.print("Stopped.")

    @contextlib.contextmanager
    def _kill_on_second_signal(self) -> Iterator[None]:
        before = self.signals

        def at_once(number: int, frame: FrameType | None) -> None:
            self._on_signal(number, frame)
            if self.signals > max(before, 1):
                for part in self.parts:
                    part.signal(signal.SIGKILL)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, at_once)
        yield
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1


def check_port(host: str, port: int) -> None:
    """Raise RefusedError when the API could not listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server will: a connection in TIME_WAIT does not block the port, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RefusedError(
                f"port {port} on {host} cannot be used: {reason}",
                f"Choose another one, for example: trainkit up --port {port + 1 if port < 65535 else 8321}",
                EXIT_PORT_TAKEN,
            ) from None


def up(home: Home, host: str, port: int, workers: int) -> None:
    """Run until Ctrl-C or SIGTERM."""
    if sys.platform == "win32":
        raise RefusedError("trainkit up needs Linux or macOS", "Use docker compose, or WSL.", EXIT_NOT_STARTED)
    Up(home, host, port, workers, Console(soft_wrap=True)).run()
