"""A worker's context on a fresh database, and clients' side of it without HTTP."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from service.context import Context
from service.datasets.receive import Received
from service.datasets.service import DatasetMetadata, register
from service.job_watcher import JobWatcher
from service.jobs import repository
from service.jobs import service as jobs
from service.jobs.tables import Attempt, Job
from service.keys.service import authenticate, create_key
from service.principal import Principal
from service.settings import Settings
from tests.support.transactions import transact
from worker import intake
from worker.context import WorkerContext, make_context


@dataclass
class Place:
    """A worker's context and a client's principal."""

    context: WorkerContext
    service: Context
    who: Principal

    def upload(self, body: bytes, name: str = "data", filename: str | None = None, target: str | None = None) -> str:
        """Register bytes as a dataset; returns its id."""
        part = self.context.storage.new_part()
        part.write_bytes(body)
        received = Received(part, hashlib.sha256(body).hexdigest(), len(body))
        return register(self.service, self.who, received, DatasetMetadata(name, target=target, filename=filename)).id

    def table(self) -> str:
        """A small ready table of two classes."""
        lines = ["a,b,label", *(f"{n % 7},{n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(120))]
        dataset = self.upload("\n".join(lines).encode(), "table", "table.csv", "label")
        while intake.claim_and_check(self.context):
            pass
        return dataset

    def submit(self, dataset: str, **fields: Any) -> str:
        """A small MLP on that dataset; returns the job's id."""
        spec = {"dataset": dataset, "model": {"kind": "mlp", "hidden": [8]}, **fields}
        return transact(self.service, jobs.create, self.service, self.who, spec, None)[0].id

    def job(self, job_id: str) -> Job:
        """The row as it is now."""
        with self.context.sessions() as session:
            return session.get_one(Job, job_id)

    def attempts(self, job_id: str) -> list[Attempt]:
        """The job's attempts, in order."""
        with self.context.sessions() as session:
            return list(repository.attempts(session, job_id))

    def make_due(self, job_id: str) -> None:
        """The wait before another try is over."""
        with self.context.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(not_before=None))


def copied_place(migrated_sqlite: Path, folder: Path) -> Place:
    """A place on a copy of that database."""
    shutil.copyfile(migrated_sqlite, folder / "t.db")
    return make_place(f"sqlite:///{folder}/t.db", folder)


def make_place(migrated_url: str, folder: Path) -> Place:
    """Everything under `folder`, on a database that has its tables; nobody hears the bell."""
    settings = Settings(
        database_url=migrated_url,
        broker_url=f"redis+socket://{folder}/nobody.sock",
        storage_url=str(folder / "storage"),
        home=folder,
        scratch=folder / "scratch",
        device="cpu",
        confinement=Settings.from_env().confinement,
    )
    context = make_context(settings)
    with context.sessions.begin() as session:
        key = create_key(session, "default", "test")
    with context.sessions.begin() as session:
        identity = authenticate(session, key)
    assert identity is not None
    who = identity.alone()
    job_watcher = JobWatcher(context.sessions)
    service = Context(settings, context.engine, context.sessions, context.storage, context.doorbell, job_watcher)
    return Place(context, service, who)
