"""A scripted worker and a scripted client of one job, cut at every transaction, in an order that a seed decides."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update

from service.background.lease_expiry import expire_leases
from service.context import Context
from service.database import db_now, reading
from service.errors import HttpProblem
from service.jobs import attempts, checkpoints, leases, repository
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.leases import ClaimedJob
from service.jobs.states import ENDED
from service.jobs.tables import Job, JobEvent
from service.leases import Claim, StaleFence
from service.metrics import service as metrics
from service.metrics.chunks import MetricRow
from service.models.tables import Model
from service.principal import Principal
from tests.support.logged_rows import logged_rows
from tests.support.transactions import transact

EVALUATIONS = 4
RULE = {"kind": "patience", "monitor": "val_loss", "patience": 1}


@dataclass
class Play:
    """One job: what has happened to it, in the order of the commits."""

    context: Context
    who: Principal
    rng: random.Random
    job: str
    clock: int = 0
    stop_at: int | None = None
    """When a stop of the client first took hold, and what it wished to keep."""
    keep: str | None = None
    finished: list[tuple[str, int, str | None]] = field(default_factory=list)
    """(stop reason, when the wish was last read, what was kept) of each finish that was accepted."""
    refused: int = 0
    fired: threading.Event = field(default_factory=threading.Event)
    """The rule has said stop; the finish is still to come."""

    def now(self) -> int:
        self.clock += 1
        return self.clock

    def row(self) -> Job:
        with self.context.sessions() as session:
            return session.get_one(Job, self.job)

    def state(self) -> str:
        with reading(self.context.sessions) as session:
            return str(session.scalar(select(Job.state).where(Job.id == self.job)))

    def worker(self) -> Iterator[None]:
        """Claim to finish; each yield is the end of a transaction. What the loop decides follows what it has read."""
        with self.context.sessions.begin() as session:
            claimed = leases.claim(session, "train", "worker", 60)
        if claimed is None:
            return
        assert claimed.job_id == self.job, "the only one that waits"
        read_at = self.now()
        yield
        try:
            yield from self._attempt(claimed, read_at)
        except StaleFence:
            return

    def _attempt(self, claimed: ClaimedJob, read_at: int) -> Iterator[None]:
        claim, sessions = claimed.claim, self.context.sessions
        with sessions() as session:
            known = jobs_repository.checkpoints(session, claim.id)
        begun = known[0].step if known else 0
        with sessions.begin() as session:
            metrics.supersede_after(session, claim, known[0].metric_seq if known else 0)
            attempts.start(session, claim, resumed_from_step=begun or None)
        yield
        fires, wish, step = self.rng.randint(begun + 1, begun + EVALUATIONS), claimed.requested_action, begun
        while True:
            if (action := (wish or {}).get("action")) == "pause":
                self._checkpoint(claim, max(step, 1))
                yield
                with sessions.begin() as session:
                    attempts.hand_back(session, claim, "paused")
                return
            if action == "stop":
                keep: str | None
                reason, keep = "client_stop", str((wish or {})["keep"])
                self._decide(claim, step, {"kind": "client_stop"}, "stop")
                yield
                break
            step += 1
            with sessions.begin() as session:
                metrics.append(session, claim, [MetricRow("val", "loss", step, step, 1.0 / step, time.time())])
            yield
            stop = step >= fires
            self._decide(claim, step, RULE, "stop" if stop else "continue")
            yield
            if stop:
                self.fired.set()
                reason, keep = "early_stop", None
                break
            if self.rng.random() < 0.4:
                self._checkpoint(claim, step)
                yield
            with sessions.begin() as session:
                wish = leases.renew(session, claim, 60)
            read_at = self.now()
            yield
        yield from self._finish(claim, step, reason, keep, read_at)

    def _finish(self, claim: Claim, step: int, reason: str, keep: str | None, read_at: int) -> Iterator[None]:
        sessions = self.context.sessions
        with sessions.begin() as session:
            metrics.append(session, claim, [MetricRow("test", "accuracy", step, step, 0.9, time.time())])
        yield
        result = {"best_epoch": 1, "stopped_epoch": step, "test": {"accuracy": 0.9}}
        outcome = attempts.Finish(reason, result, None, "mlp", f"models/{claim.id}/{claim.fence}", {}, 1)
        with sessions.begin() as session:
            attempts.finish(session, claim, outcome)
        self.now()
        self.finished.append((reason, read_at, keep))

    def _decide(self, claim: Claim, step: int, rule: dict[str, Any], action: str) -> None:
        decision = {"rule": rule, "step": step, "epoch": step, "inputs": {}, "action": action, "reason": "x"}
        with self.context.sessions.begin() as session:
            metrics.append_decisions(session, claim, [decision])

    def _checkpoint(self, claim: Claim, step: int) -> None:
        key = f"checkpoints/{claim.id}/{claim.fence}-{step}"
        with self.context.sessions.begin() as session:
            checkpoints.record(session, claim, step=step, epoch=step, storage_key=key, sha256="0" * 64, size=1)

    def client(self) -> Iterator[None]:
        """A few wishes; each is one request, some are sent twice."""
        for _ in range(self.rng.randint(1, 3)):
            act = self.rng.choice((self.stop, self.stop, self.pause_and_resume))
            for _ in range(self.rng.choice((1, 1, 2))):
                yield from act()

    def stop(self, alone: bool = True) -> Iterator[None]:
        """With `alone`, nothing else moves meanwhile, so that the answer can be told beforehand."""
        before = self.row()
        if_seq = self.rng.choice((None, None, before.next_seq - 1, before.next_seq - 2))
        keep = self.rng.choice(("best", "last"))
        try:
            after = transact(self.context, jobs.stop, self.who, self.job, keep, if_seq)
        except HttpProblem as problem:
            if problem.code != "newer_metrics" or if_seq is None:
                raise
            if alone and (before.next_seq - 1 <= if_seq or before.state in ENDED):
                raise
            self.refused += 1
        else:
            if self.stop_at is None and before.state not in ENDED:
                self.stop_at, self.keep = self.now(), keep
            if before.state in ENDED:
                assert facts(after) == facts(before), "no end is ever changed"
        yield

    def pause_and_resume(self) -> Iterator[None]:
        """Both may be refused: there is not always anything to pause, or to go on with."""
        yield from self.ask(jobs.pause, self.who, self.job)
        yield from self.ask(jobs.resume, self.context, self.who, self.job)

    def ask(self, request: Callable[..., Any], *arguments: Any) -> Iterator[None]:
        """A request that a job's state may forbid."""
        try:
            if self.row().state not in ENDED:  # of one that has ended a new job would go on
                transact(self.context, request, *arguments)
        except HttpProblem as problem:
            if problem.code != "wrong_state":
                raise
        yield

    def lose_the_worker(self) -> None:
        """Its lease expires; what waits after a loss is due."""
        with self.context.sessions.begin() as session:
            lost = update(Job).where(Job.id == self.job, Job.lease_owner.is_not(None))
            session.execute(lost.values(lease_expires_at=db_now(plus=-1)))
        expire_leases(self.context.sessions, 1000)
        with self.context.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == self.job).values(not_before=None))

    def promises_hold(self, *, ordered: bool = True) -> None:
        """One end, one end event, a model with its numbers, and a reason that agrees with the order of events."""
        job = self.row()
        with self.context.sessions() as session:
            events = session.scalars(select(JobEvent).where(JobEvent.job_id == self.job).order_by(JobEvent.seq)).all()
            models = session.scalars(select(Model).where(Model.job_id == self.job)).all()
            rows = logged_rows(session, self.job)
            decisions = repository.decisions_after(session, self.job, 0, 1000)
        assert [event.to_state for event in events if event.to_state in ENDED] == [job.state]
        assert events[-1].to_state == job.state
        assert (job.lease_owner, job.requested_action if job.state != "cancelled" else None) == (None, None)
        if job.state == "cancelled":
            assert (job.started_at, job.stop_reason, len(models)) == (None, "client_stop", 0)
            return
        ((reason, read_at, keep),) = self.finished
        assert (job.stop_reason, job.state) == (reason, "stopped" if reason == "client_stop" else "succeeded")
        assert [model.id for model in models] == [(job.result or {})["model"]]
        assert job.metrics_last["test_accuracy"] == 0.9
        assert [entry.seq for entry in rows] == list(range(1, job.next_seq))
        last = decisions[-1]
        assert (last.action, last.rule["kind"]) == ("stop", "client_stop" if reason == "client_stop" else "patience")
        if ordered:
            assert (self.stop_at is not None and self.stop_at <= read_at) == (reason == "client_stop")
        if reason == "client_stop" and ordered:
            assert keep == self.keep, "the first stop holds"


def facts(job: Job) -> tuple[Any, ...]:
    """What no later request may change."""
    return job.state, job.stop_reason, job.result, job.next_event_seq, job.next_seq, job.finished_at
