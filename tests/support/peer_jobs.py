"""Experiments without HTTP and without training: jobs whose evaluations a test logs, resumes and takes back."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event, select

from service.context import Context
from service.database import make_engine, reading
from service.datasets import intake
from service.datasets.receive import Received
from service.datasets.service import DatasetMetadata, register
from service.doorbell import Doorbell
from service.job_watcher import JobWatcher
from service.jobs import attempts, leases
from service.jobs import service as jobs
from service.jobs.tables import Decision, Job, JobEvent
from service.keys.service import authenticate, create_key
from service.leases import Claim
from service.metrics import service as metrics
from service.metrics.chunks import MetricRow
from service.principal import Principal
from service.sessions import session_factory
from service.settings import Settings
from service.simulation.schemas import SimulationOut
from service.simulation.service import simulate
from service.storage import Storage
from tests.support.api import FACTS
from tests.support.transactions import transact
from trainkit.diagnose.early_stopping import EarlyStopping, Evaluation
from trainkit.spec.early_stop import PEER_RULE_KINDS, parse_rules
from trainkit.spec.metrics import with_mode

MEDIAN = {"kind": "median", "monitor": "val_loss", "min_jobs": 3}


def rows_of(step: int, epoch: int, **values: float) -> list[MetricRow]:
    """An evaluation's rows, `val_loss` ..., and the mark that rules were asked."""
    named = {**values, "train_seconds": 1.0}
    rows = []
    for full_name, value in named.items():
        split, _, name = full_name.partition("_")
        rows.append(MetricRow(split, name, step, epoch, value, time.time()))
    return rows


@dataclass
class Run:
    """A job and the attempt that holds it."""

    lab: Lab
    job: str
    early_stopping: EarlyStopping
    """The training process's rules."""
    claim: Claim = field(init=False)
    step: int = 0
    seen: list[tuple[int, int, float]] = field(default_factory=list)
    """(seq, epoch, val_loss) of the evaluations that count."""

    def append(self, *rows: MetricRow) -> int:
        """Rows that a worker ships; returns the last seq."""
        with self.lab.context.sessions.begin() as session:
            return metrics.append(session, self.claim, list(rows))[1]

    def evaluate(self, loss: float, epoch: int | None = None, **values: float) -> int:
        """One more step, evaluated; what the training process decides comes behind the rows. Returns the mark's seq."""
        self.step += 1
        epoch = epoch or self.step
        measured = {"train_loss": loss / 2, "val_loss": loss, **values}
        seq = self.append(*rows_of(self.step, epoch, **measured))
        self.seen.append((seq, epoch, loss))
        decisions = [
            decision.as_dict() for decision in self.early_stopping.observe(Evaluation(epoch, self.step, measured, 1.0))
        ]
        if decisions:
            with self.lab.context.sessions.begin() as session:
                metrics.append_decisions(session, self.claim, decisions)
        return seq

    def resume(self, metric_seq: int, step: int, state: list[dict[str, Any]] | None = None) -> None:
        """The attempt is over; the next one goes on from a checkpoint that was written at that place of the log."""
        self.early_stopping = EarlyStopping(self.early_stopping.rules)
        self.early_stopping.load(state or [])
        with self.lab.context.sessions.begin() as session:
            attempts.hand_back(session, self.claim, "test")
        self.start_attempt()
        with self.lab.context.sessions.begin() as session:
            metrics.supersede_after(session, self.claim, metric_seq)
        self.step, self.seen = step, [one for one in self.seen if one[0] <= metric_seq]

    def start_attempt(self) -> None:
        """A worker takes it: it must be the only one that waits."""
        with self.lab.context.sessions.begin() as session:
            claimed = leases.claim(session, "train", "worker", 60)
        assert claimed is not None
        assert claimed.job_id == self.job
        self.claim = claimed.claim
        with self.lab.context.sessions.begin() as session:
            attempts.start(session, self.claim)

    def finish(self, stop_reason: str = "completed") -> None:
        """The worker ends the job well."""
        result = {"best_epoch": 1, "stopped_epoch": self.step, "test": {}}
        outcome = attempts.Finish(stop_reason, result, None, "mlp", f"models/{self.job}/{self.claim.fence}", {}, 1)
        with self.lab.context.sessions.begin() as session:
            attempts.finish(session, self.claim, outcome)

    @property
    def row(self) -> Job:
        with self.lab.context.sessions() as session:
            return session.get_one(Job, self.job)

    def decisions(self) -> list[Decision]:
        """Of rules across jobs, in order."""
        with self.lab.context.sessions() as session:
            statement = select(Decision).where(Decision.job_id == self.job).order_by(Decision.seq)
            return [one for one in session.scalars(statement) if one.rule["kind"] in PEER_RULE_KINDS]

    def events(self) -> list[JobEvent]:
        with self.lab.context.sessions() as session:
            return list(session.scalars(select(JobEvent).where(JobEvent.job_id == self.job).order_by(JobEvent.seq)))

    def replay(self, rules: list[dict[str, Any]] | None = None) -> SimulationOut:
        """As `decisions:simulate` answers."""
        with reading(self.lab.context.sessions) as session:
            given = None if rules is None else parse_rules({"rules": rules})
            return simulate(session, session.get_one(Job, self.job), given, 0, 1000)


@dataclass
class Lab:
    """A service's inside on one database."""

    context: Context
    who: Principal
    dataset: str

    def start(self, group: str | None = "e", *rules: dict[str, Any]) -> Run:
        """A job with these rules, claimed and running."""
        spec: dict[str, Any] = {"dataset": self.dataset, "model": {"kind": "linear"}, "early_stop": list(rules)}
        if group is not None:
            spec["group"] = group
        early_stopping = EarlyStopping([with_mode(rule) for rule in parse_rules({"rules": list(rules)}) or ()])
        run = Run(self, transact(self.context, jobs.create, self.context, self.who, spec, None)[0].id, early_stopping)
        run.start_attempt()
        return run


def make_lab(url: str, folder: Path, project: str = "default") -> Lab:
    """On a migrated database, which need not outlive a power cut."""
    settings = Settings(url, "memory://", str(folder / "storage"), folder, folder / "scratch")
    engine = make_engine(url)
    if url.startswith("sqlite"):
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    sessions = session_factory(engine)
    context = Context(
        settings, engine, sessions, Storage(settings.storage_url), Doorbell("memory://"), JobWatcher(sessions)
    )
    with sessions.begin() as session:
        key = create_key(session, project, "test")
    with reading(sessions) as session:
        identity = authenticate(session, key)
    assert identity is not None
    who = identity.alone()
    part = context.storage.new_part()
    part.write_bytes(b"bytes")
    dataset = register(context, who, Received(part, hashlib.sha256(b"bytes").hexdigest(), 5), DatasetMetadata("d")).id
    with sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, FACTS, {}, "prepared/x")
    return Lab(context, who, dataset)
