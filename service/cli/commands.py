"""The command lines of the parts; the only module here that names the other packages, as text."""

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
        # New connections: neither one at a time nor all at once.
        *("--loop", "service.http_server.event_loop:ServerEventLoop"),
        # Bounds that uvicorn has no options for; no other protocol is spoken.
        # The service reads what proxies say itself (TRAINKIT_TRUSTED_PROXIES).
        "--no-proxy-headers",
        *("--http", "service.http_server.protocol:BoundedHttpProtocol", "--ws", "none"),
        # Open event streams would delay a restart without end; their clients reconnect with Last-Event-ID.
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
        "--quiet",  # no banner in the log
        *("--app", "worker.celery_app"),
        "worker",
        *("--queues", queues),
        *("--concurrency", str(concurrency)),
        *("--pool", "prefork"),
        # The broker must see a different name for each worker of a host.
        *("--hostname", f"{queues.replace(',', '-')}-{uuid.uuid4().hex[:8]}@%h"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        *("--loglevel", "INFO"),
    ]


def migrate_command() -> list[str]:
    """Migrate the database's schema."""
    return module("service.migrate")


def key_command(name: str, *options: str) -> list[str]:
    """Create an API key; the last word printed is the key."""
    return [*module("service.keys"), "create", "--name", name, *options]


def audit_command(action: str, *options: str) -> list[str]:
    """Verify or export the audit log."""
    return [*module("service.audit"), action, *options]


def secrets_command(action: str) -> list[str]:
    """Encrypt stored secrets anew."""
    return [*module("service.secrets"), action]


def module(name: str) -> list[str]:
    """Run a module with this interpreter."""
    return [sys.executable, "-m", name]


def replace_this_process(command: list[str], environment: dict[str, str]) -> None:
    """Replace this process by the command (exec), so that signals and the exit code reach it directly."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)
