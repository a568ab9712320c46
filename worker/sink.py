"""What the training process says, into the database: in order, under the fence, each thing exactly once."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.failpoints import fp
from service.jobs import attempts, checkpoints
from service.jobs.leases import Claim, lock_claimed
from service.leases import StaleFence
from service.metrics import service as metrics
from service.metrics.chunks import Row
from service.metrics.service import finite
from worker.context import Context
from worker.metrics import (
    CHECKPOINT_BYTES,
    CHECKPOINT_FAILURES,
    CHECKPOINT_SECONDS,
    METRIC_ROWS,
    SAMPLES_PER_SECOND,
    STEPS,
)

log = logging.getLogger(__name__)
Event = dict[str, Any]
ROWS_A_CHUNK = 5000


class Sink:
    """Events go in with `take`, into the database with `ship`; what ends the job is kept for the supervisor."""

    def __init__(self, context: Context, claim: Claim, metric_seq: int, runtime: Event | None) -> None:
        self.context = context
        self.claim = claim
        self.job_id = claim.job_id
        self.runtime = runtime
        self.finished: Event | None = None
        self.failed: Event | None = None
        self.ended: Event | None = None
        self.evaluation: Event | None = None
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
            elif kind == "evaluation":
                self.evaluation = {name: value for name, value in event.items() if name != "type"}
            elif kind == "checkpoint":
                # Only the newest is worth a copy: an older one could never be resumed from.
                self._pending = deque(earlier for earlier in self._pending if earlier["type"] != "checkpoint")
                self._pending.append(event)
            else:
                self._pending.append(event)

    def _count(self, kind: str, event: Event) -> None:
        """How fast it goes, for whoever watches the worker."""
        if kind == "resumed":
            self._step = event["step"]
        elif kind in ("progress", "metrics") and (step := event.get("step", 0)) > self._step:
            STEPS.inc(step - self._step)
            self._step = step
        if kind == "progress" and event.get("samples_per_second"):
            SAMPLES_PER_SECOND.set(event["samples_per_second"])

    def ship(self, aside: Callable[[Callable[[], Any]], Any]) -> None:
        """Write all that is pending. `aside` runs slow copying while the lease is kept.

        Raises StaleFence when the job is no longer ours, DBAPIError while the database is away: then nothing is lost,
        and the next call goes on where this one stopped.
        """
        while self._pending:
            if self._pending[0]["type"] == "checkpoint":
                self._store_checkpoint(self._pending[0], aside)
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
            Row(split, name, event["step"], event["epoch"], float(value), event["at"])
            for event in batch
            if event["type"] == "metrics"
            for split, name, value in event["rows"]
        ]
        decisions = [event for event in batch if event["type"] == "decision"]
        changes = self._changes(batch)
        with self.context.sessions.begin() as session:
            job = lock_claimed(session, self.claim)
            # Rules across jobs decide while rows are stored; these decisions were never ours to ship.
            decision_seq = job.next_decision_seq - job.peer_decisions
            if self._decision_seq is None:
                self._decision_seq = decision_seq
            # A commit whose answer was lost may have happened: the counters, which only we move, say how much of it did.
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
        METRIC_ROWS.inc(len(new_rows))
        self._metric_seq += len(rows)
        self._decision_seq += len(decisions)

    def _changes(self, batch: list[Event]) -> dict[str, Any]:
        """Columns of the job that the batch moves; the last word of each counts."""
        changes: dict[str, Any] = {}
        for event in batch:
            if event["type"] not in ("phase", "progress", "runtime"):
                continue
            said = {name: finite(value) for name, value in event.items() if name != "type"}
            if event["type"] == "phase":
                changes["phase"] = said["phase"]
            elif event["type"] == "progress":
                changes["progress"] = said
            elif event["type"] == "runtime" and self.runtime is None:
                # Decided once: later attempts compute on the same terms, so that they give the same bits.
                changes["runtime"] = said
                self.runtime = said
        return changes

    def _store_checkpoint(self, event: Event, aside: Callable[[Callable[[], Any]], Any]) -> None:
        """File first, then the row; its metrics are in the database already, since events go in order."""
        begun = time.monotonic()
        storage, path = self.context.storage, Path(event["path"])
        key = event.setdefault(
            "key", f"checkpoints/{self.job_id}/{self.claim.fence}-{event['step']}-{uuid.uuid4().hex[:8]}"
        )
        try:
            if not storage.exists(key):
                aside(lambda: storage.put_file(key, path))
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
        if any(known.storage_key == key for known in checkpoints.latest(session, self.job_id)):
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
