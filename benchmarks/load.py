"""A long queue, a long history and more load than there is capacity for.

    python -m benchmarks load [QUEUED ENDED [SECONDS]]

- flat: each request and each round of housekeeping on an empty database and on one with 10,000 queued jobs and 100,000
  ended ones, in turn and in the same run; only the ratio says something on a busy machine.
- locks: how long write transactions last, and how long they hold SQLite's write lock, while submissions, workers,
  readers and housekeeping go on at once on the full database.
- overload: ten times the measured capacity for a minute.
"""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from fastapi.testclient import TestClient
from sqlalchemy import Engine, make_url

from benchmarks.open_loop import Answers, Generated, capacity, drive, health_beside, quantile, raw_request
from benchmarks.service import api, databases
from service.app import create_app
from service.asgi import SWITCH_SECONDS
from service.background.housekeeping import TASKS, TaskRunner
from service.database import reading
from service.jobs import leases
from service.migrate import upgrade
from service.monitoring.repository import current_counts, total_counts
from service.settings import Settings
from tests.support.api import Served, row
from tests.support.bulk_rows import Amounts, fill, finished_job, settle

ROUNDS = 9
FULL = Amounts(queued=10_000, ended=100_000)
LOCK_SECONDS = 20.0
OVERLOAD_SECONDS = 60.0
TIMES_CAPACITY = 10
RECOVERY_SECONDS = 5.0
LIST_CLIENTS, LIST_SECONDS = 4, 5.0
BARE_SECONDS = 10.0
ONE_HOUR = 3600.0


def main(arguments: list[str]) -> None:
    given = [float(text) for text in arguments]
    amounts = Amounts(int(given[0]), int(given[1])) if len(given) >= 2 else FULL
    seconds = given[2] if len(given) >= 3 else OVERLOAD_SECONDS
    with tempfile.TemporaryDirectory(prefix="trainkit-load-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with databases(folder) as urls:
            for database, url in urls.items():
                empty_url = beside(url, folder)
                with served(folder / f"{database}-empty", empty_url) as empty, served(folder / database, url) as full:
                    print(f"\n{database}: {amounts.queued:,} queued, {amounts.ended:,} ended\n", flush=True)
                    flat(empty, full, amounts)
                    locks(full)
                overload(folder, database, url, seconds)


def beside(url: str, folder: Path) -> str:
    """Another empty, migrated database of the same kind."""
    if url.startswith("sqlite"):
        path = folder / "empty.db"
        upgrade(f"sqlite:///{path}")
        return f"sqlite:///{path}"
    from sqlalchemy import create_engine

    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE empty")
    engine.dispose()
    other = make_url(url).set(database="empty").render_as_string(hide_password=False)
    upgrade(other)
    return other


@contextmanager
def served(home: Path, url: str) -> Iterator[Served]:
    """The API in this process."""
    home.mkdir()
    settings = Settings(
        database_url=url,
        broker_url=f"redis+socket://{home}/nobody.sock",
        storage_url=str(home / "storage"),
        home=home,
        scratch=home / "scratch",
        webhook_allow=("127.0.0.1",),
        max_queued_jobs=10 * FULL.queued,
        secret_keys=(b64encode(bytes(32)).decode(),),  # with PostgreSQL the service makes no key for a webhook's secret
    )
    app = create_app(settings)
    found = Served(app, TestClient(app), app.state.context)
    with found.client:
        found.client = found.client_for("default")
        yield found
    app.state.context.engine.dispose()


def operations(service: Served, job: str) -> dict[str, Callable[[], object]]:
    """What comes often."""
    keys = itertools.count()
    dataset = service.client.get(f"/v1/jobs/{job}").json()["dataset"]["id"]
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + ONE_HOUR))

    def submit() -> None:
        spec = {"dataset": dataset, "model": {"kind": "mlp"}}
        service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": f"k{next(keys)}"}).raise_for_status()

    def claim() -> None:
        with service.sessions() as session:  # and not committed
            assert leases.claim(session, "train", "w", 30) is not None

    def get(path: str) -> Callable[[], object]:
        return lambda: service.client.get(path).raise_for_status()

    def read(function: Callable[..., object]) -> Callable[[], object]:
        def in_session() -> None:
            with reading(service.sessions) as session:
                function(session)

        return in_session

    found: dict[str, Callable[[], object]] = {"POST jobs": submit, "claim": claim}
    queries = {
        "": "",
        "state=running": "state=running",
        "two common states": "state=succeeded&state=failed",
        "two rare states": "state=paused&state=stopped",
        "dataset": f"dataset={dataset}",
        "group": "group=g",
        "group of none": "group=none",
        "label": "label.team=vision",
        "label of none": "label.team=nobody",
        "updated_after, none": f"updated_after={soon}",
        "updated_after, all": "updated_after=2020-01-01T00:00:00Z",
    }
    for label, query in queries.items():
        found[f"GET jobs {label}"] = get(f"/v1/jobs?limit=10&{query}")
    for part in ("", "/metrics?after=5", "/events", "/logs"):
        found[f"GET job{part}"] = get(f"/v1/jobs/{job}{part}")
    for path in ("datasets", "models", "uploads"):
        found[f"GET {path}"] = get(f"/v1/{path}?limit=10")
    found |= {"gauges": read(current_counts), "totals": read(total_counts)}
    return found | {f"- {task.name}": lambda run=task.run: run(service.context) for task in TASKS}


def flat(empty: Served, full: Served, amounts: Amounts) -> dict[str, float]:
    """Time every operation on both, in turn; returns how many times as long each takes on the full one."""
    ratios = {}
    jobs = [finished_job(service) for service in (empty, full)]
    for service in (empty, full):
        for _ in range(3):
            service.submit()
    fill(full.context.engine, jobs[1], amounts)
    settle(full.context.engine)
    print(f"| {'median, ms':30s} | empty | full | ratio |\n|---|---|---|---|")
    pairs = zip(operations(empty, jobs[0]).items(), operations(full, jobs[1]).values(), strict=True)
    for (name, in_empty), in_full in pairs:
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(ROUNDS + 1):
            for run, found in zip((in_empty, in_full), seconds, strict=True):
                begin = time.perf_counter()
                run()
                if number:  # the first one fills caches and does what has piled up
                    found.append(time.perf_counter() - begin)
        one, other = (median(found) * 1000 for found in seconds)
        ratios[name] = other / one
        print(f"| {name:30s} | {one:.1f} | {other:.1f} | {other / one:.1f} |", flush=True)
    return ratios


@dataclass
class WriteTransaction:
    """One write transaction, from the moment when it holds the lock (on PostgreSQL: from its first change)."""

    name: str
    """The function of the service that opened it, or the route."""
    seconds: float
    processor_seconds: float
    """Of the thread: what remains where nothing else wants the processor, without the wait for the disk."""
    statements: int
    slowest: tuple[float, str]
    """The statement that took longest; "commit" for the end."""


@dataclass
class LockTimes:
    """All write transactions of some time."""

    transactions: list[WriteTransaction]
    failed: list[str]

    @property
    def seconds(self) -> list[float]:
        return [one.seconds for one in self.transactions]

    @classmethod
    @contextmanager
    def of(cls, engine: Engine) -> Iterator[LockTimes]:
        """Watch the transactions of an engine."""
        found, begun, dialect = cls([], []), {}, engine.dialect
        commit, rollback, execute = dialect.do_commit, dialect.do_rollback, dialect.do_execute
        is_sqlite = dialect.name == "sqlite"

        def begin(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            before = time.perf_counter()
            writes = (
                statement == "BEGIN IMMEDIATE"
                if is_sqlite
                else statement.startswith(("INSERT", "UPDATE", "DELETE", "WITH"))
            )
            if writes and not is_sqlite:
                begun.setdefault(id(cursor.connection), [before, time.thread_time(), 0, (0.0, "")])
            execute(cursor, statement, parameters, context)
            if writes and is_sqlite:
                begun.setdefault(id(cursor.connection), [time.perf_counter(), time.thread_time(), 0, (0.0, "")])
            elif (one := begun.get(id(cursor.connection))) is not None:
                one[2] += 1
                one[3] = max(one[3], (time.perf_counter() - before, " ".join(statement.split())[:100]))

        def end(how: Callable[[Any], None]) -> Callable[[Any], None]:
            def ended(connection: Any) -> None:
                before = time.perf_counter()
                how(connection)
                now = time.perf_counter()
                one = begun.pop(id(getattr(connection, "driver_connection", connection)), None)
                if one is not None:
                    slowest = max(one[3], (now - before, "commit"))
                    numbers = (now - one[0], time.thread_time() - one[1], one[2], slowest)
                    found.transactions.append(WriteTransaction(_opened_by(), *numbers))

            return ended

        dialect.do_execute, dialect.do_commit, dialect.do_rollback = begin, end(commit), end(rollback)
        try:
            yield found
        finally:
            dialect.do_execute, dialect.do_commit, dialect.do_rollback = execute, commit, rollback


def _opened_by() -> str:
    """The function of the service, or of a test's worker, that commits now."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("service.", "tests.")) and module not in ("service.database", "service.sessions"):
            return f"{module}.{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def locks(service: Served, seconds: float = LOCK_SECONDS) -> LockTimes:
    """Everything at once on the full database."""
    dataset = service.client.get("/v1/datasets?state=ready&limit=1").json()["data"][0]["id"]
    stop = threading.Event()

    def submissions() -> None:
        spec = {"dataset": dataset, "model": {"kind": "mlp"}}
        service.client.post("/v1/jobs", json=spec).raise_for_status()

    def work() -> None:
        claimed = service.claim()
        for step in range(1, 6):
            service.append(claimed, *(row("loss", 1 / step, step) for _ in range(50)))
            service.say(claimed, *("a line" for _ in range(20)))
        service.finish(claimed)

    def lists() -> None:
        service.client.get("/v1/jobs?state=queued&limit=50").raise_for_status()

    housekeeping = TaskRunner(service.context)

    def rounds() -> None:
        housekeeping.run_due()
        stop.wait(0.5)

    def repeat(function: Callable[[], None]) -> None:
        while not stop.is_set():
            try:
                function()
            except Exception as error:
                found.failed.append(repr(error)[:200])

    threads = [
        threading.Thread(target=repeat, args=(one,)) for one in (submissions, submissions, work, work, lists, rounds)
    ]
    gc.freeze()  # as in an API process
    sys.setswitchinterval(SWITCH_SECONDS)
    with LockTimes.of(service.context.engine) as found:
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
    path = service.context.engine.url.database or ""
    log = Path(f"{path}-wal")
    size = f", write-ahead log {log.stat().st_size / 2**20:.0f} MiB" if log.exists() else ""
    wall, processor = (
        ", ".join(f"{name} {quantile(values, share) * 1000:.0f}" for name, share in QUANTILES.items())
        for values in (found.seconds, [one.processor_seconds for one in found.transactions])
    )
    print(f"\n{len(found.seconds)} write transactions, ms: {wall}; of processor time: {processor}; ", end="")
    print(f"{len(found.failed)} failed{size}", flush=True)
    for error in found.failed[:3]:
        print(f"  {error}")
    for one in sorted(found.transactions, key=lambda one: -one.seconds)[:WORST]:
        seconds, statement = one.slowest
        print(
            f"  {one.seconds * 1000:.0f} ms ({one.processor_seconds * 1000:.0f} of the processor), {one.name}: "
            f"{one.statements} statements, of which {seconds * 1000:.0f} ms {statement}"
        )
    return found


WORST = 8
"""Longest transactions that are named."""


QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Overload:
    """What became of ten times the capacity."""

    capacity: float
    recovered: float
    """Requests a second, within some seconds after the load."""
    generated: Generated
    growth_bytes: int
    lost: int
    """Jobs that were accepted and are not there."""
    beside_lists: Answers
    """Health while LIST_CLIENTS clients list 200 jobs each."""


def bare_health(requests: Sequence[bytes], a_second: float, seconds: float) -> Answers:
    """Health of a server that does next to nothing, under the same load: what the machine itself takes."""
    command = [sys.executable, "-m", "benchmarks.bare_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            return drive(int(process.stdout.readline()), requests, a_second, seconds).health
        finally:
            process.terminate()


def overload(folder: Path, database: str, url: str, seconds: float) -> Overload:
    """Measure the capacity of an API process, then send ten times as much."""
    environment_home = folder / f"{database}-overload"
    environment_home.mkdir(exist_ok=True)
    with api(environment_home, url) as (client, pid):
        port, key = client.base_url.port, client.headers["Authorization"].partition(" ")[2]
        assert port is not None
        client.put("/v1/datasets", params={"name": "small"}, content=b"a,b\n1,2\n").raise_for_status()
        dataset = client.get("/v1/datasets?limit=1").json()["data"][0]["id"]
        spec = json.dumps({"dataset": dataset, "model": {"kind": "mlp"}}).encode()
        # as on a usual day: many look, some submit
        mixed = [raw_request("GET", "/v1/jobs?limit=10", key)] * 8 + [raw_request("POST", "/v1/jobs", key, spec)] * 2
        process = psutil.Process(pid)
        before = capacity(port, mixed, 5)
        drive(port, mixed, before * 2, 3)  # what the first load leaves in memory for good
        memory = process.memory_info().rss
        generated = drive(port, mixed, before * TIMES_CAPACITY, seconds)
        answers, health = generated.answers, generated.health
        growth = process.memory_info().rss - memory
        ended = time.monotonic()
        after = capacity(port, mixed, 3)
        took = time.monotonic() - ended
        lost = 0
        for number, body in enumerate(answers.bodies):
            if number % max(1, len(answers.bodies) // 200) == 0:
                lost += client.get(f"/v1/jobs/{json.loads(body)['id']}").status_code != 200
        bare = bare_health(mixed, before * TIMES_CAPACITY, BARE_SECONDS)
        lists = health_beside(port, raw_request("GET", "/v1/jobs?limit=200", key), LIST_CLIENTS, LIST_SECONDS)
    found = Overload(before, after, generated, growth, lost, lists)
    ok, refused = (200, 201), (429, 503)
    others = {status: len(times) for status, times in answers.seconds.items() if status not in (*ok, *refused)}
    print(
        f"\noverload, {seconds:.0f} s at {TIMES_CAPACITY} x {before:.0f} requests/s: "
        f"{answers.count(*ok)} accepted (p50 {answers.quantile(0.5, *ok):.2f} s, p99 {answers.quantile(0.99, *ok):.2f} s), "
        f"{answers.count(*refused)} refused (p99 {answers.quantile(0.99, *refused):.2f} s, "
        f"{answers.without_retry_after} without Retry-After), {answers.unsent} unsent, {answers.broken} broken, "
        f"others {others}; health p50 {health.quantile(0.5, 200) * 1000:.0f}, p99 {health.quantile(0.99, 200) * 1000:.0f}, "
        f"max {health.quantile(1, 200) * 1000:.0f} ms, {health.count(200)} answered, {health.broken} broken; "
        f"memory {growth / 2**20:+.0f} MiB; {lost} lost; {after:.0f} requests/s in the {took:.0f} s after it; "
        f"the generator took {generated.processor_seconds / generated.wall_seconds:.2f} of a core, "
        f"its longest turn {generated.longest_turn * 1000:.0f} ms\n"
        f"a bare server under the same load for {BARE_SECONDS:.0f} s: health p50 {bare.quantile(0.5, 200) * 1000:.0f}, "
        f"p99 {bare.quantile(0.99, 200) * 1000:.0f}, max {bare.quantile(1, 200) * 1000:.0f} ms\n"
        f"beside {LIST_CLIENTS} clients that list 200 jobs: health p50 {lists.quantile(0.5, 200) * 1000:.0f}, "
        f"max {lists.quantile(1, 200) * 1000:.0f} ms",
        flush=True,
    )
    shutil.rmtree(environment_home, ignore_errors=True)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
