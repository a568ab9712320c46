"""Log 100,000 points and read the history back: trainkit against an MLflow server beside it, both on SQLite.

    python -m benchmarks mlflow_peer

MLflow (in an environment of its own, made on the first run below .cache/) gets its quickest documented way: 100 calls of
`log_batch` with 1,000 metrics each, then `get_metric_history` of each of the ten names. trainkit gets what a worker
does: the training process appends events to its spool, the supervisor's sink ships them; then the log is read by cursor
over HTTP, and every value compared. The servers run one after the other, each with nothing beside it, in turns.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.metric_log import NAMES, job_of
from benchmarks.service import api, free_port, until
from service.database import make_engine
from service.migrate import upgrade
from service.sessions import session_factory
from service.settings import Settings
from worker.context import make_context
from worker.sink import Sink
from worker.spool import SpoolReader, SpoolWriter

VERSION = "3.17.0"
POINTS = 100_000
ROUNDS = 3
ENVIRONMENT = Path(".cache/mlflow")
PEER = """
import random, sys, time
from mlflow import MlflowClient
from mlflow.entities import Metric
client = MlflowClient(sys.argv[1])
names, points = sys.argv[2].split(","), int(sys.argv[3])
run = client.create_run(client.create_experiment("e%f" % time.time())).info.run_id
numbers = random.Random(0)
values = [numbers.random() for _ in range(points)]
begun = time.perf_counter()
for first in range(0, points, 1000):
    at = int(time.time() * 1000)
    batch = [Metric(names[n % len(names)], values[n], at, n // len(names)) for n in range(first, first + 1000)]
    client.log_batch(run, metrics=batch)
logged = time.perf_counter()
read = {name: client.get_metric_history(run, name) for name in names}
done = time.perf_counter()
assert sum(map(len, read.values())) == points, {name: len(rows) for name, rows in read.items()}
print(logged - begun, done - logged)
"""


def main() -> None:
    python = environment()
    print(f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')} · {os.cpu_count()} cores · MLflow {VERSION} on SQLite")
    ours, mlflow_seconds = [], []
    with tempfile.TemporaryDirectory(prefix="trainkit-mlflow-") as name:
        for turn in range(ROUNDS):
            folder = Path(name) / str(turn)
            folder.mkdir()
            ours.append(trainkit(folder))
            mlflow_seconds.append(mlflow(python, folder))
            print(f"trainkit: logged in {ours[-1][0]:.2f} s, read in {ours[-1][1]:.2f} s", end=" · ")
            print(f"MLflow: logged in {mlflow_seconds[-1][0]:.2f} s, read in {mlflow_seconds[-1][1]:.2f} s", flush=True)
    ratio = median(sum(seconds) for seconds in mlflow_seconds) / median(sum(seconds) for seconds in ours)
    print(f"MLflow / trainkit, medians of {ROUNDS}: {ratio:.1f}")


def environment() -> Path:
    """The Python of an environment with MLflow in it."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / VERSION).exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"mlflow=={VERSION}"], check=True)
        (ENVIRONMENT / VERSION).touch()
    return python


@contextmanager
def server(python: Path, folder: Path) -> Iterator[str]:
    port = free_port()
    store = f"sqlite:///{folder}/mlflow.db"
    command = [python, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(folder / "artifacts")]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    import httpx

    def up() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        until(up, 300)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def mlflow(python: Path, folder: Path) -> tuple[float, float]:
    """Seconds to log, seconds to read."""
    with server(python, folder) as url:
        command = [python, "-c", PEER, url, ",".join(NAMES), str(POINTS)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    logged, read = done.stdout.split()[-2:]
    return float(logged), float(read)


def trainkit(folder: Path) -> tuple[float, float]:
    """Seconds to log, seconds to read."""
    url = f"sqlite:///{folder}/trainkit.db"
    upgrade(url)
    engine = make_engine(url)
    numbers = random.Random(0)
    values = [numbers.random() for _ in range(POINTS)]
    settings = Settings(
        database_url=url, broker_url="memory://", storage_url=str(folder / "s"), home=folder, scratch=folder
    )
    context = make_context(settings)
    with api(folder, url) as (client, _):
        claimed = job_of(client, session_factory(engine))
        sink, spool = Sink(context, claimed.claim, 0, None), folder / "spool"
        begun = time.perf_counter()
        writer, reader = SpoolWriter(spool), SpoolReader(spool)
        for step in range(POINTS // len(NAMES)):
            rows = [["train", name, values[step * len(NAMES) + n]] for n, name in enumerate(NAMES)]
            writer.write({"type": "metrics", "step": step, "epoch": 1, "at": time.time(), "rows": rows})
            if step % 500 == 499:
                sink.take(reader.read())
                sink.ship(lambda work: work())
        writer.close()
        sink.take(reader.read())
        sink.ship(lambda work: work())
        logged = time.perf_counter()
        found: list[float] = []
        after = 0
        while len(found) < POINTS:
            query = {"after": after, "limit": 5000}
            page = client.get(f"/v1/jobs/{claimed.job_id}/metrics", params=query).raise_for_status().json()
            found += [row["value"] for row in page["data"]]
            after = page["next"]
        done = time.perf_counter()
    assert found == values
    context.engine.dispose()
    engine.dispose()
    return logged - begun, done - logged


if __name__ == "__main__":
    main()
