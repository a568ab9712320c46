"""Train the examples' specs on real data through a running service, and write what came out as a table.

    TRAINKIT_URL=... TRAINKIT_KEY=... python examples/results.py FOLDER [SPEC ...] > results.md

FOLDER keeps the fetched data. Every run is one job over HTTP; runs that are compared are repeated with three seeds.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from real_data import fetch

SPECS = Path(__file__).parent / "specs"
SEVERAL = (0, 1, 2)
"""Seeds of runs that are compared with each other: one seed alone would not tell."""


@dataclass(frozen=True)
class Run:
    """One spec: its data and how they are uploaded, its seeds, and weights that it starts from."""

    source: str
    query: dict[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    weights: str | None = None


RUNS = {
    "fashion-mlp": Run("fashion-mnist", seeds=SEVERAL),
    "fashion-mlp-long": Run("fashion-mnist", seeds=SEVERAL),
    "fashion-mlp-regularised": Run("fashion-mnist", seeds=SEVERAL),
    "fashion-cnn": Run("fashion-mnist"),
    "vowels-lstm": Run("vowels", seeds=SEVERAL),
    "adult-mlp": Run("adult", {"target": "income"}),
    "california-mlp": Run("california", {"target": "MedHouseVal"}),
    "stamps-scratch": Run("stamps", seeds=SEVERAL),
    "stamps-finetune": Run("stamps", seeds=SEVERAL, weights="mobilenet"),
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
    print(
        "| spec | seed | epochs (best) | test metrics | parameters | seconds |\n|---|---|---|---|---|---|", flush=True
    )
    with httpx.Client(base_url=url, headers=headers, timeout=120) as client:

        @cache
        def dataset(source: str, query: tuple[tuple[str, str], ...] = ()) -> str:
            return upload(client, fetch(source, folder), dict(query))

        for name in names:
            run = RUNS[name]
            text = (
                (SPECS / f"{name}.yaml").read_text().replace("DATASET", dataset(run.source, tuple(run.query.items())))
            )
            if run.weights is not None:
                text = text.replace("WEIGHTS", dataset(run.weights))
            for seed in run.seeds:
                spec = yaml.safe_load(text)
                spec["train"]["seed"] = seed
                print(row(name, seed, train(client, spec)), flush=True)


def row(name: str, seed: int, done: dict[str, Any]) -> str:
    """The finished job as a line of the table; parameters and seconds are the model's size and the job's time."""
    result = done["result"]
    shown = ("accuracy", "f1", "mse", "mae", "r2")
    metrics = ", ".join(f"{key} {result['test'][key]:.4f}" for key in shown if result["test"].get(key) is not None)
    began, ended = (datetime.fromisoformat(done[when]) for when in ("started_at", "finished_at"))
    epochs = f"{result['stopped_epoch']} ({result['best_epoch']})"
    return f"| {name} | {seed} | {epochs} | {metrics} | {done['runtime']['parameters']:,} | {(ended - began).seconds} |"


if __name__ == "__main__":
    main()
