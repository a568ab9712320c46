"""The metric log at a million points: how fast rows go in, how soon a cursor, a plot and a thousand streams have them.

    python -m benchmarks metric_log

- ingest: from the file that the training process appends to, through the supervisor's sink, until committed. The floor
  is the same bytes written and synced to a file in as many pieces.
- one job with 1,000,000 points (ten series): cursor polls of 500 rows at random places, series of 1,000 points of one
  metric, over HTTP, one at a time.
- 1,000 open streams on one API process, rows ten times a second: seconds from commit to receipt.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.service import api, databases
from service.database import make_engine
from service.datasets import intake
from service.jobs import attempts, leases
from service.metrics import compaction
from service.metrics.chunks import MetricRow
from service.metrics.service import append
from service.sessions import session_factory
from service.settings import Settings
from worker.context import make_context
from worker.sink import Sink
from worker.spool import SpoolReader, SpoolWriter

POINTS = 1_000_000
SERIES = 10
INGESTED = 200_000
ROUNDS = 3
READERS = 1000
NAMES = [f"m{number}" for number in range(SERIES)]


def main() -> None:
    print(
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')} · {os.cpu_count()} cores · Python {sys.version.split()[0]}"
    )
    with tempfile.TemporaryDirectory(prefix="trainkit-log-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with databases(folder) as urls:
            for database, url in urls.items():
                measure(folder, database, url)


def measure(folder: Path, database: str, url: str) -> None:
    with api(folder, url) as (client, _):
        engine = make_engine(url)
        sessions = session_factory(engine)
        ingest(folder, database, url, sessions, client)
        read(database, sessions, client)
        stream(database, sessions, client)
        engine.dispose()


def job_of(client: httpx.Client, sessions: sessionmaker[Session]) -> leases.ClaimedJob:
    """A running job that a worker has claimed; nothing trains it."""
    body = f"a,b\n{random.random()},1\n".encode()
    dataset = client.put("/v1/datasets?name=benchmark", content=body).raise_for_status().json()["id"]
    facts = {"kind": "images", "samples": 1000, "input_shape": [1, 8, 8], "input_dtype": "uint8"}
    facts |= {"classes": {"a": 500, "b": 500}, "target_type": "class"}
    with sessions.begin() as session:
        checked = intake.claim(session, "benchmark", 30)
        assert checked is not None
        intake.ready(session, checked.claim, facts, {"notes": []}, "prepared/x")
    client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}}).raise_for_status()
    with sessions.begin() as session:
        claimed = leases.claim(session, "train", "benchmark", 3600)
        assert claimed is not None
        attempts.start(session, claimed.claim)
    return claimed


def ingest(folder: Path, database: str, url: str, sessions: sessionmaker[Session], client: httpx.Client) -> None:
    """Points a second from the spool to the commit, best and worst of some rounds, and the floor's."""
    spool = folder / "spool"
    spool.unlink(missing_ok=True)
    writer = SpoolWriter(spool)
    for step in range(INGESTED // SERIES):
        rows = [["train", name, random.random()] for name in NAMES]
        writer.write({"type": "metrics", "step": step, "epoch": step // 1000, "at": time.time(), "rows": rows})
    writer.close()
    context = make_context(
        Settings(database_url=url, broker_url="memory://", storage_url=str(folder / "s"), home=folder, scratch=folder)
    )
    rates, floors = [], []
    for _ in range(ROUNDS):
        claimed = job_of(client, sessions)
        sink = Sink(context, claimed.claim, 0, None)
        reader = SpoolReader(spool)
        begun = time.perf_counter()
        while events := reader.read():
            sink.take(events)
            sink.ship(lambda work: work())
        rates.append(INGESTED / (time.perf_counter() - begun))
        floors.append(INGESTED / floor(folder / "floor", spool.stat().st_size, INGESTED // 5000))
    context.engine.dispose()
    shown = ", ".join(f"{rate:,.0f}" for rate in sorted(rates))
    print(f"{database}: ingest {shown} points/s (floor: the bytes written and synced, {max(floors):,.0f})", flush=True)


def floor(path: Path, size: int, pieces: int) -> float:
    """Seconds to write and sync so many bytes in so many pieces."""
    block = random.Random(0).randbytes(size // pieces)
    begun = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(pieces):
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - begun


def read(database: str, sessions: sessionmaker[Session], client: httpx.Client) -> None:
    claimed = job_of(client, sessions)
    job, numbers = claimed.job_id, random.Random(1)
    chunk = 250  # what a second brings of a quick job
    for first in range(0, POINTS, chunk):
        at = 1.7e9 + first / chunk
        rows = [
            MetricRow("train", NAMES[n % SERIES], n // SERIES, n // 10_000, numbers.random(), at)
            for n in range(first, first + chunk)
        ]
        with sessions.begin() as session:
            append(session, claimed.claim, rows)
    for stored in ("as it came", "compacted"):
        if stored == "compacted":
            begun = time.perf_counter()
            compaction.compact(sessions)
            print(f"{database}: {POINTS // chunk} chunks compacted in {time.perf_counter() - begun:.1f} s")
        polls = [
            timed(client, f"/v1/jobs/{job}/metrics?after={numbers.randrange(POINTS)}&limit=500") for _ in range(200)
        ]
        series = [
            timed(client, f"/v1/jobs/{job}/metrics/series?names=train_m{n % SERIES}&max_points=1000") for n in range(40)
        ]
        everything = [timed(client, f"/v1/jobs/{job}/metrics/series?max_points=1000") for _ in range(10)]
        print(
            f"{database}, {stored}: cursor poll of 500 rows {shown(polls)}; 1,000-point series {shown(series)}; "
            f"all {SERIES} series {shown(everything)}",
            flush=True,
        )
    begun = time.perf_counter()
    for kind in ("csv", "parquet", "tfevents"):
        begun = time.perf_counter()
        size = len(client.get(f"/v1/jobs/{job}/metrics.{kind}", headers={"Accept-Encoding": "identity"}).content)
        print(f"{database}: {POINTS:,} points as {kind}: {time.perf_counter() - begun:.1f} s, {size / 2**20:.0f} MiB")


def timed(client: httpx.Client, path: str) -> float:
    begun = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - begun


def shown(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"p50 {1000 * ordered[len(ordered) // 2]:.1f} ms, p95 {1000 * ordered[int(len(ordered) * 0.95)]:.1f} ms"


def stream(database: str, sessions: sessionmaker[Session], client: httpx.Client) -> None:
    """Rows ten times a second for half a minute, in a thread; the listeners are a process of their own."""
    claimed = job_of(client, sessions)

    async def run() -> dict[str, Any]:
        url, key = str(client.base_url), client.headers["Authorization"]
        command = [sys.executable, "-m", "benchmarks.lag", url, key, claimed.job_id, str(READERS)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        ready = await process.stdout.readline()
        assert ready.strip() == b"ready", ready
        await asyncio.to_thread(write, sessions, claimed)
        return dict(json.loads(await process.stdout.read()))

    received = asyncio.run(run())
    print(
        f"{database}: {READERS} streams, {received['messages']:,} rows received, lag from commit {shown(received['lags'])}",
        flush=True,
    )


def write(sessions: sessionmaker[Session], claimed: leases.ClaimedJob) -> None:
    for step in range(300):
        with sessions.begin() as session:
            append(
                session,
                claimed.claim,
                [MetricRow("train", name, step, 1, 0.5, time.time()) for name in NAMES[:3]],
            )
        time.sleep(0.1)
    with sessions.begin() as session:
        attempts.fail(
            session,
            claimed.claim,
            {"code": "internal", "layer": "internal", "message": "done", "retryable": False},
        )


if __name__ == "__main__":
    main()
