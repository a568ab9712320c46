"""A real MLflow tracking server on loopback, in an environment of its own below `.cache`: pinned and hashed packages."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.client_tools import ROOT, run

LOCK = ROOT / "tests" / "service" / "mirrors" / "tools" / "requirements.lock"
READER = Path(__file__).with_name("read_mlflow.py")
START_SECONDS = 400
ALONE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONPATH": "",
}
"""Nothing leaves the machine, and no processes beside the server."""


@dataclass
class MlflowServer:
    """Where it listens; `process` is None while it is down."""

    python: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it on its database and wait until it answers."""
        command = [str(self.python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            environment = {**os.environ, **ALONE}
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < end, (self.folder / "server.log").read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)

    def stop(self) -> None:
        """End it and the processes that it has started."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def read(self, experiment: str) -> list[dict[str, Any]]:
        """Return every run of an experiment as MLflow's own client reads it."""
        printed = subprocess.run(
            [self.python, READER, self.url, experiment],
            env={**os.environ, **ALONE},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert printed.returncode == 0, printed.stderr[-3000:]
        runs: list[dict[str, Any]] = json.loads(printed.stdout)
        return runs


def mlflow_python() -> Path:
    """Install MLflow unless it is there, one process at a time; returns its interpreter."""
    name = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    folder = ROOT / ".cache" / f"mlflow-{name}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = folder / "venv" / "bin" / "python"
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            run(sys.executable, "-m", "venv", folder / "venv")
            run(python, "-m", "pip", "install", "--quiet", "--no-compile", "--require-hashes", "-r", LOCK)
            (folder / "ready").touch()
    return python


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A server with a database of its own; it takes artifacts itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = MlflowServer(mlflow_python(), folder, port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
