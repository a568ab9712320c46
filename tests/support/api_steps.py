"""Steps that several end-to-end tests share: data, specs, waiting for states."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.stack import wait_for

ROOT = Path(__file__).parents[2]
ENDED = {"succeeded", "stopped", "cancelled", "failed"}


def example_data(folder: Path) -> Path:
    """The examples' real data, written by the examples' own script."""
    subprocess.run([sys.executable, str(ROOT / "examples/make_data.py"), str(folder)], check=True)
    return folder


def example_spec(name: str, dataset: str, **changes: Any) -> dict[str, Any]:
    """An example's spec with the dataset put in and some top-level fields replaced."""
    text = (ROOT / f"examples/specs/{name}.yaml").read_text().replace("DATASET", dataset)
    return {**yaml.safe_load(text), **changes}


def upload(client: httpx.Client, file: Path, **query: str) -> str:
    """Stream the file and wait until it is ready."""
    with file.open("rb") as body:
        answer = client.put("/v1/datasets", params={"name": file.stem, **query}, content=body)
    assert answer.status_code in (200, 201, 202), answer.text
    dataset = answer.json()["id"]
    state = wait_for(
        lambda: (s := client.get(f"/v1/datasets/{dataset}").json()["state"]) in ("ready", "invalid") and s,
        what="the dataset's check",
    )
    assert state == "ready", client.get(f"/v1/datasets/{dataset}").text
    return str(dataset)


def submit(client: httpx.Client, spec: dict[str, Any]) -> str:
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def job_of(client: httpx.Client, job: str) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{job}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def wait_until(client: httpx.Client, job: str, *states: str, seconds: float = 300) -> dict[str, Any]:
    """The job once it is in one of the states; fails at once when it ended in another."""

    def ask() -> dict[str, Any] | None:
        current = job_of(client, job)
        assert current["state"] in states or current["state"] not in ENDED, current
        return current if current["state"] in states else None

    return wait_for(ask, seconds=seconds, what=f"{job} to be {' or '.join(states)}")


def all_metrics(client: httpx.Client, job: str, limit: int = 500) -> list[dict[str, Any]]:
    """The whole log by cursor."""
    rows: list[dict[str, Any]] = []
    after = 0
    while True:
        page = client.get(f"/v1/jobs/{job}/metrics", params={"after": after, "limit": limit}).json()
        rows += page["data"]
        if not page["data"]:
            return rows
        after = page["next"]
