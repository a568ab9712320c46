"""`trainkit up` in a folder of its own, as `make up` starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.markdown import ROOT
from tests.support.stack import FAST, TRAINKIT, free_port, wait_for


@dataclass(frozen=True)
class Installation:
    """A running `trainkit up`; its folder has the examples, `.venv` and `.home`, as a reader's own folder looks."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        return self.folder / ".home"

    def run(self, script: str, seconds: float) -> str:
        """Run bash in the folder; returns its output."""
        environment = clean_environment(self.folder) | {"TRAINKIT_URL": f"http://127.0.0.1:{self.port}"}
        done = subprocess.run(
            ["bash", "-c", script.replace(":8321", f":{self.port}")],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


def clean_environment(folder: Path) -> dict[str, str]:
    """This process's environment without settings of trainkit, and with a folder of its own for what commands remember."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
    return environment | {"XDG_STATE_HOME": str(folder / ".state"), "XDG_CONFIG_HOME": str(folder / ".config")}


def start_up(home: Path, port: int) -> subprocess.Popen[bytes]:
    """`trainkit up`; its output goes to up.log beside the home."""
    return subprocess.Popen(
        [TRAINKIT, "up", "--home", str(home), "--port", str(port)],
        cwd=home.parent,
        env={**clean_environment(home.parent), **FAST},
        stdout=(home.parent / "up.log").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def client_of(home: Path, port: int, up: subprocess.Popen[bytes]) -> httpx.Client:
    """A client with the key of the home, once the API is ready."""

    def ready() -> bool:
        assert up.poll() is None, (home.parent / "up.log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(lambda: ready() and (home / "api-key").exists(), what="trainkit up")
    key = (home / "api-key").read_text().strip()
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60)


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """Start it and stop it."""
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(Path(sys.prefix))
    port = free_port()
    up = start_up(folder / ".home", port)
    try:
        client_of(folder / ".home", port, up).close()
        yield Installation(folder, port, up)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=90)
