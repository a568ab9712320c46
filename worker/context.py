"""The connections and settings of a worker's slot: one context for each pool process, never shared across a fork."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service import tables
from service.context import Context
from service.database import make_engine
from service.doorbell import Doorbell
from service.job_watcher import JobWatcher
from service.sessions import session_factory
from service.settings import Settings
from service.storage import Storage
from worker.confinement import Confinement, check_support

__all__ = ["WorkerContext", "context", "make_context", "tables"]
"""`tables` is imported for its effect: foreign keys are found only when every table is known."""

_parent: int | None = None
"""Process id of the worker; None: this process is no slot of one."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The service's parts that a worker uses; `owner` names this worker in leases and events."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    storage: Storage
    doorbell: Doorbell
    owner: str

    def confinement(
        self, read: Iterable[Path], write: Path, *, data_bytes: int = 0, cpu_seconds: int = 0
    ) -> Confinement | None:
        """Return what a forked process may touch; None where the operator has turned confinement off.

        Raises ConfinementError when it is required and the system lacks it.
        """
        mode = self.settings.confinement
        if mode == "off":
            return None
        support = check_support(self.settings.scratch, required=mode == "required")
        return Confinement(tuple(read), write, support, data_bytes=data_bytes, cpu_seconds=cpu_seconds)


def worker_id() -> str:
    """Return the name by which the worker of this process is listed: its host, and the process that forks its slots."""
    return f"{socket.gethostname()}/{_parent or os.getpid()}"


def remember_parent() -> None:
    """Name the worker after this process, in every process that it forks."""
    global _parent
    _parent = os.getpid()


def make_context(settings: Settings) -> WorkerContext:
    """Build a context; connections are opened on first use."""
    engine = make_engine(settings.database_url)
    return WorkerContext(
        settings=settings,
        engine=engine,
        sessions=session_factory(engine),
        storage=Storage(settings.storage_url),
        doorbell=Doorbell(settings.broker_url),
        owner=worker_id(),
    )


def service_context(context: WorkerContext) -> Context:
    """Return the same parts as the service's own functions take them."""
    parts = (context.settings, context.engine, context.sessions, context.storage, context.doorbell)
    return Context(*parts, JobWatcher(context.sessions))


@cache
def _of_process(_pid: int) -> WorkerContext:
    return make_context(Settings.from_env())


def context() -> WorkerContext:
    """Return this process's context; a forked process gets a new one, because connections must not be shared."""
    return _of_process(os.getpid())
