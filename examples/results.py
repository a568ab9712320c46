"""Train the examples' specs on real data through a running service, and write what came out as a table.

    TRAINKIT_URL=... TRAINKIT_KEY=... python examples/results.py FOLDER [SPEC ...] > results.md

FOLDER keeps the fetched data. Every run is one job over HTTP; the seeds are in the specs.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from real_data import fetch

SPECS = Path(__file__).parent / "specs"
RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "fashion-mlp": ("fashion-mnist", {}),
    "fashion-mlp-regularised": ("fashion-mnist", {}),
    "fashion-cnn": ("fashion-mnist", {}),
    "vowels-lstm": ("vowels", {}),
    "adult-mlp": ("adult", {"target": "income"}),
    "california-mlp": ("california", {"target": "MedHouseVal"}),
}
ENDED = ("succeeded", "stopped", "cancelled", "failed")


def upload(client: httpx.Client, file: Path, query: dict[str, str]) -> str:
    """Stream the file, wait for the check, return the dataset's id."""
    with file.open("rb") as body:
        answer = client.put("/v1/datasets", params={"name": file.stem, **query}, content=body)
    dataset = answer.raise_for_status().json()["id"]
    while (state := client.get(f"/v1/datasets/{dataset}").json())["state"] not in ("ready", "invalid"):
        time.sleep(0.5)
    if state["state"] == "invalid":
        raise SystemExit(f"{file.name}: {state['error']}")
    return str(dataset)


def train(client: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    """Submit one job and wait for its end."""
    answer = client.post("/v1/jobs", json=spec)
    if answer.status_code != 201:
        raise SystemExit(answer.text)
    job = answer.json()["id"]
    while (state := client.get(f"/v1/jobs/{job}").json())["state"] not in ENDED:
        time.sleep(1)
    if state["state"] != "succeeded":
        raise SystemExit(f"{job}: {state['error']}")
    return dict(state)


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(RUNS)
    headers = {"Authorization": f"Bearer {os.environ['TRAINKIT_KEY']}"}
    url = os.environ.get("TRAINKIT_URL", "http://127.0.0.1:8321")
    datasets: dict[str, str] = {}
    print("| spec | epochs (best) | seed | test metrics |\n|---|---|---|---|", flush=True)
    with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
        for name in names:
            source, query = RUNS[name]
            if source not in datasets:
                datasets[source] = upload(client, fetch(source, folder), query)
            text = (SPECS / f"{name}.yaml").read_text().replace("DATASET", datasets[source])
            spec = yaml.safe_load(text)
            done = train(client, spec)
            result = done["result"]
            metrics = ", ".join(f"{key} {value:.4f}" for key, value in result["test"].items() if value is not None)
            seed = spec["train"].get("seed", 0)
            print(f"| {name} | {result['stopped_epoch']} ({result['best_epoch']}) | {seed} | {metrics} |", flush=True)


if __name__ == "__main__":
    main()
