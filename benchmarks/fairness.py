"""What one project notices of another that fills the service: `trainkit up` with one slot for training.

    python -m benchmarks fairness

- first jobs: project A has 10,000 queued jobs. Project B submits one: how long after a slot was free does it begin?
- predictions: project A uploads hostile tables without a pause. How long do predictions of project B take?
"""

from __future__ import annotations

import io
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.service import ENDED, finished, service, until, upload
from service.database import make_engine
from service.keys.service import create_key
from service.sessions import session_factory
from tests.support.bulk_rows import Amounts, fill

QUEUED = 10_000
FIRST_JOBS = 3
PREDICTIONS, UPLOADERS, UPLOAD_SECONDS = 20, 4, 20.0
HOSTILE_COLUMNS, HOSTILE_KEYS = 99_000, 9_000


def main(arguments: list[str]) -> None:
    first_jobs()
    predictions()


def spec_of(dataset: str) -> dict[str, Any]:
    """A job of a second or two."""
    data = {"id": dataset, "target": "label"}
    return {"dataset": data, "model": {"kind": "mlp", "hidden": [4]}, "train": {"epochs": 1}}


@dataclass(frozen=True)
class Projects:
    """A running service, and clients of its two projects, each with a small table of its own."""

    home: Path
    a: httpx.Client
    b: httpx.Client
    dataset_a: str
    dataset_b: str


@contextmanager
def two_projects() -> Iterator[Projects]:
    """`trainkit up` with two projects."""
    with tempfile.TemporaryDirectory(prefix="trainkit-fairness-") as name, service(Path(name)) as a:
        home = Path(name) / "home"
        engine = make_engine(f"sqlite:///{home / 'trainkit.db'}")
        with session_factory(engine).begin() as session:
            key = create_key(session, "b", "benchmark")
        engine.dispose()
        table = Path(name) / "table.csv"
        table.write_text("x,y,label\n" + "".join(f"{n % 7},{n % 5},{'ab'[n % 2]}\n" for n in range(200)))
        with httpx.Client(base_url=a.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as b:
            yield Projects(home, a, b, upload(a, table), upload(b, table))


def first_jobs() -> list[float]:
    """Return the seconds from the moment when a slot was free until the job of project B began, of each of its jobs."""
    waits = []
    with two_projects() as found:
        job = finished(found.a, spec_of(found.dataset_a))
        engine = make_engine(f"sqlite:///{found.home / 'trainkit.db'}")
        fill(engine, job["id"], Amounts(queued=QUEUED, ended=0))
        engine.dispose()
        until(lambda: _jobs(found.a, "state=running"), 60)
        for _ in range(FIRST_JOBS):
            submitted = found.b.post("/v1/jobs", json=spec_of(found.dataset_b)).raise_for_status().json()
            began = until(lambda job=submitted["id"]: found.b.get(f"/v1/jobs/{job}").json()["started_at"], 300)
            free = [
                job["finished_at"]
                for job in _jobs(found.a, "sort=-finished_at")
                if job["finished_at"] and job["finished_at"] <= began
            ]
            waits.append((datetime.fromisoformat(began) - datetime.fromisoformat(max(free))).total_seconds())
            ended = sum(1 for at in free if at > submitted["created_at"])
            print(f"behind {QUEUED:,} queued jobs: {waits[-1]:.2f} s after a slot was free; {ended} ended meanwhile")
            until(lambda job=submitted["id"]: found.b.get(f"/v1/jobs/{job}").json()["state"] in ENDED, 300)
    return waits


def _jobs(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/jobs?limit=50&{query}").raise_for_status().json()["data"])


@dataclass(frozen=True)
class PredictionTimes:
    """Seconds of predictions, alone and beside the uploads."""

    alone: list[float]
    beside: list[float]
    uploaded: int


def predictions() -> PredictionTimes:
    """Time predictions of project B, alone and while UPLOADERS clients of project A send hostile tables."""
    with two_projects() as found:
        job = finished(found.b, spec_of(found.dataset_b))
        model = found.b.get(f"/v1/models?job={job['id']}").raise_for_status().json()["data"][0]["id"]

        def predict() -> float:
            begin = time.perf_counter()
            found.b.post(f"/v1/models/{model}/predict", json={"inputs": [{"x": 1, "y": 2}]}).raise_for_status()
            return time.perf_counter() - begin

        predict()
        alone = [predict() for _ in range(PREDICTIONS)]
        stop, numbers, uploaded = threading.Event(), itertools.count(), []

        def send() -> None:
            while not stop.is_set():
                number = next(numbers)
                body, ending = hostile_table(number)
                answer = found.a.put("/v1/datasets", params={"name": f"hostile{number}.{ending}"}, content=body)
                uploaded.append(answer.status_code)

        threads = [threading.Thread(target=send) for _ in range(UPLOADERS)]
        for thread in threads:
            thread.start()
        beside, begin = [], time.monotonic()
        time.sleep(1)
        while time.monotonic() < begin + UPLOAD_SECONDS:
            beside.append(predict())
        stop.set()
        for thread in threads:
            thread.join()
    for name, seconds in (("alone", alone), (f"beside {len(uploaded)} hostile uploads", beside)):
        print(f"predictions {name}: {len(seconds)}, p50 {median(seconds):.2f}, max {max(seconds):.2f} s", flush=True)
    return PredictionTimes(alone, beside, len(uploaded))


def hostile_table(number: int) -> tuple[bytes, str]:
    """A table that is small to send and large to read: many columns, or other keys in every row."""
    text = io.StringIO()
    if number % 2:
        text.write(",".join(f"c{number}_{column}" for column in range(HOSTILE_COLUMNS)) + "\n")
        text.write(",".join(["1"] * HOSTILE_COLUMNS) + "\n")
        return text.getvalue().encode(), "csv"
    for key in range(HOSTILE_KEYS):
        text.write(f'{{"k{number}_{key}": 1}}\n')
    return text.getvalue().encode(), "jsonl"


if __name__ == "__main__":
    main([])
