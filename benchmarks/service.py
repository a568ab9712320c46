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


@contextmanager
def service(folder: Path) -> Iterator[httpx.Client]:
    """Start everything embedded; stop it when the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
