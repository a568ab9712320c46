"""Ship the events of a training process into the database: in order, under the fence, each exactly once."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.failpoints import fp
from service.jobs import attempts, checkpoints
from service.jobs import repository as jobs_repository
from service.jobs.leases import lock_claimed
from service.leases import Claim, StaleFence
from service.metrics import service as metrics
from service.metrics.chunks import MetricRow
from service.metrics.service import finite
from worker.context import WorkerContext
from worker.metrics import (
    BEHIND_BYTES,
    CHECKPOINT_BYTES,
    CHECKPOINT_FAILURES,
    CHECKPOINT_SECONDS,
    METRIC_ROWS,
    SAMPLES_PER_SECOND,
    STEPS,
)
from worker.outputs import output_path
from worker.spool import SpoolReader

log = logging.getLogger(__name__)
Event = dict[str, Any]
Background = Callable[[Callable[[], Any]], Any]
"""Runs a function in a thread, keeps the lease meanwhile, and returns its result."""
ROWS_A_CHUNK = 5000
SHIP_SECONDS = 0.25
RETRY_SECONDS = 1.0


class Sink:
    """A queue of events: `take` adds them, `ship` writes them. Those that end the run are kept for the supervisor."""

    def __init__(
        self, context: WorkerContext, claim: Claim, metric_seq: int, runtime: Event | None, scratch: Path
    ) -> None:
        self.context = context
        self.claim = claim
        self.job_id = claim.id
        self.runtime = runtime
        self._scratch = scratch
        self.finished: Event | None = None
        self.failed: Event | None = None
        self.ended: Event | None = None
        self.evaluation: Event | None = None
        self.attainable: Event | None = None
        self._pending: deque[Event] = deque()
        self._metric_seq = metric_seq
        self._decision_seq: int | None = None
        self._step = 0

    @property
    def empty(self) -> bool:
        """Whether all that was taken has been shipped."""
        return not self._pending

    def take(self, events: Iterable[Event]) -> None:
        """Queue events in the order they happened."""
        for event in events:
            kind = event["type"]
            self._count(kind, event)
            if kind in ("finished", "failed", "ended"):
                setattr(self, kind, event)
            elif kind in ("evaluation", "attainable"):
                setattr(self, kind, {name: value for name, value in event.items() if name != "type"})
            elif kind == "checkpoint":
                # Only the newest is worth a copy: an older one could never be resumed from.
                self._pending = deque(earlier for earlier in self._pending if earlier["type"] != "checkpoint")
                self._pending.append(event)
            else:
                self._pending.append(event)

    def _count(self, kind: str, event: Event) -> None:
        """Update the metrics of progress."""
        if kind == "resumed":
            self._step = event["step"]
        elif kind in ("progress", "metrics") and (step := event.get("step", 0)) > self._step:
            STEPS.inc(step - self._step)
            self._step = step
        if kind == "progress" and event.get("samples_per_second"):
            SAMPLES_PER_SECOND.set(event["samples_per_second"])

    def ship(self, in_background: Background) -> None:
        """Write all pending events. `in_background` runs slow copying while the lease is kept.

        Raises:
            StaleFence: the claim is void.
            DBAPIError: the database is away. Nothing is lost: the next call continues where this one stopped.
        """
        while self._pending:
            if self._pending[0]["type"] == "checkpoint":
                self._store_checkpoint(self._pending[0], in_background)
                self._pending.popleft()
                continue
            batch = self._next_batch()
            self._write(batch)
            for _ in batch:
                self._pending.popleft()
            fp("after_metric_ship")

    def _next_batch(self) -> list[Event]:
        batch: list[Event] = []
        rows = 0
        for event in self._pending:
            if event["type"] == "checkpoint" or rows >= ROWS_A_CHUNK:
                break
            rows += len(event.get("rows", ()))
            batch.append(event)
        return batch

    def _write(self, batch: list[Event]) -> None:
        rows = [
            MetricRow(split, name, event["step"], event["epoch"], float(value), event["at"])
            for event in batch
            if event["type"] == "metrics"
            for split, name, value in event["rows"]
        ]
        decisions = [event for event in batch if event["type"] == "decision"]
        changes = self._changes(batch)
        with self.context.sessions.begin() as session:
            job = lock_claimed(session, self.claim)
            # Rules across jobs decide while rows are stored; those decisions are not shipped from here.
            decision_seq = job.next_decision_seq - job.peer_decisions
            if self._decision_seq is None:
                self._decision_seq = decision_seq
            # A commit whose answer was lost may have happened: the counters, which only this sink raises, tell how much.
            new_rows = rows[job.next_seq - 1 - self._metric_seq :]
            new_decisions = decisions[decision_seq - self._decision_seq :]
            if new_rows:
                metrics.append(session, self.claim, new_rows)
            if new_decisions:
                metrics.append_decisions(session, self.claim, new_decisions)
            if changes:
                attempts.note(session, self.claim, **changes)
            for event in batch:
                if event["type"] == "resumed":
                    attempts.resumed(session, self.claim, event["exact"], event["reason"])
                elif event["type"] == "variant":
                    values = {name: finite(value) for name, value in event.items() if name != "type"}
                    attempts.note_variant(session, self.claim, values)
        METRIC_ROWS.inc(len(new_rows))
        self._metric_seq += len(rows)
        self._decision_seq += len(decisions)

    def _changes(self, batch: list[Event]) -> dict[str, Any]:
        """Columns of the job that the batch changes; the last value of each counts."""
        changes: dict[str, Any] = {}
        for event in batch:
            if event["type"] not in ("phase", "progress", "runtime"):
                continue
            values = {name: finite(value) for name, value in event.items() if name != "type"}
            if event["type"] == "phase":
                changes["phase"] = values["phase"]
            elif event["type"] == "progress":
                changes["progress"] = values
            elif event["type"] == "runtime" and self.runtime is None:
                # Chosen once: later attempts compute on the same terms, so that they give the same bits.
                changes["runtime"] = values
                self.runtime = values
        return changes

    def _store_checkpoint(self, event: Event, in_background: Background) -> None:
        """File first, then the row; its metrics are in the database already, since events go in order."""
        begun = time.monotonic()
        storage, path = self.context.storage, output_path(self._scratch, event["path"])
        key = event.setdefault(
            "key", f"checkpoints/{self.job_id}/{self.claim.fence}-{event['step']}-{uuid.uuid4().hex[:8]}"
        )
        try:
            if not storage.exists(key):
                in_background(lambda: storage.put_file(key, path))
        except FileNotFoundError:
            return  # the training process has replaced it by newer ones, which follow
        except OSError as error:
            CHECKPOINT_FAILURES.inc()
            log.warning("job=%s the checkpoint of step %s cannot be stored: %s", self.job_id, event["step"], error)
            return
        fp("before_checkpoint_row")
        try:
            with self.context.sessions.begin() as session:
                outdated = self._record(session, event, key)
        except StaleFence:
            storage.delete(key)
            raise
        for old in outdated:
            storage.delete(old)
        CHECKPOINT_SECONDS.observe(time.monotonic() - begun)
        CHECKPOINT_BYTES.inc(event["bytes"])
        log.info("job=%s checkpoint of step %s stored", self.job_id, event["step"])

    def _record(self, session: Session, event: Event, key: str) -> list[str]:
        if any(known.storage_key == key for known in jobs_repository.checkpoints(session, self.job_id)):
            return []
        return checkpoints.record(
            session,
            self.claim,
            step=event["step"],
            epoch=event["epoch"],
            storage_key=key,
            sha256=event["sha256"],
            size=event["bytes"],
        )


class SpoolShipper:
    """Moves events from the spool of one attempt into its sink and on into the database."""

    def __init__(self, spool: Path, sink: Sink) -> None:
        self.reader = SpoolReader(spool)
        self._sink = sink
        self._due = 0.0
        self._shipped = 0

    def ship(self, in_background: Background, *, at_once: bool = False) -> None:
        """Ship new events, every SHIP_SECONDS unless `at_once`. Raises StaleFence, LeaseLost, SpoolError."""
        now = time.monotonic()
        if now < self._due and not at_once:
            return
        self._due = now + SHIP_SECONDS
        if self._sink.empty:
            self._sink.take(self.reader.read())
        try:
            self._sink.ship(in_background)
        except DBAPIError as error:
            # The events stay in the spool and in the sink; the lease limits how long that may last.
            log.warning("job=%s the database is away: %s", self._sink.job_id, error.orig)
            self._due = time.monotonic() + RETRY_SECONDS
        if self._sink.empty:
            self._shipped = self.reader.offset
        BEHIND_BYTES.set(max(0, self.reader.size() - self._shipped))

    def drained(self) -> bool:
        """Whether every event of a process that has ended is in the database. Raises SpoolError."""
        if self._sink.empty:
            self._sink.take(self.reader.read())
        return self._sink.empty
