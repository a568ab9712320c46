"""How each part is started: the one place that knows the other packages' names, as text."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path


def api_command(host: str, port: int) -> list[str]:
    """The HTTP API by uvicorn."""
    return [
        *module("uvicorn"),
        "service.asgi:serve",
        "--factory",
        *("--host", host, "--port", str(port)),
        "--no-access-log",
        "--no-server-header",
        # Open event streams would hold a restart for ever; their clients reconnect with Last-Event-ID.
        *("--timeout-graceful-shutdown", "3"),
    ]


def shared_metrics(environment: dict[str, str]) -> dict[str, str]:
    """Several API processes (`WEB_CONCURRENCY`) need a folder for what they count together, empty at every start."""
    several = environment.get("WEB_CONCURRENCY", "1") not in ("", "0", "1")
    given = environment.get("PROMETHEUS_MULTIPROC_DIR")
    if not several and not given:
        return environment
    folder = Path(given or Path(environment["TRAINKIT_HOME"]) / "run" / "api-metrics")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    for left in folder.glob("*.db"):
        left.unlink()
    return {**environment, "PROMETHEUS_MULTIPROC_DIR": str(folder)}


def worker_command(queues: str, concurrency: int) -> list[str]:
    """A Celery worker for these queues (`train`, `data`, `predict`, with commas)."""
    return [
        *module("celery"),
        "--quiet",  # its banner is no line of a log
        *("--app", "worker.celery_app"),
        "worker",
        *("--queues", queues),
        *("--concurrency", str(concurrency)),
        *("--pool", "prefork"),
        # Two workers of one name on a host would take each other's place in the broker.
        *("--hostname", f"{queues.replace(',', '-')}-{uuid.uuid4().hex[:8]}@%h"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        *("--loglevel", "INFO"),
    ]


def migrate_command() -> list[str]:
    """Bring the database's schema up to date."""
    return module("service.migrate")


def key_command(name: str, *more: str) -> list[str]:
    """Make an API key; the last word printed is the key."""
    return [*module("service.keys"), "create", "--name", name, *more]


def module(name: str) -> list[str]:
    """This interpreter running a module."""
    return [sys.executable, "-m", name]


def replace_this_process(command: list[str], environment: dict[str, str]) -> None:
    """Become that command (exec), so that signals and the exit code need nobody in between."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)
