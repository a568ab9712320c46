"""Record how an attempt ended: its files into storage, its log, then one transaction with the job's next state."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.diagnosis import investigation
from service.diagnosis.investigation import AutomaticInvestigation
from service.errors import HttpProblem
from service.failpoints import fp
from service.jobs import attempts, checkpoints
from service.jobs.attempts import Finish, StoredFile
from service.jobs.leases import ClaimedJob, lock_claimed
from service.jobs.tables import Checkpoint
from service.metrics.service import finite
from service.models.file_digests import digests_of
from trainkit.spec.memory import with_next_spec
from worker.context import WorkerContext, service_context
from worker.lease import Lease
from worker.log_shipper import LogShipper
from worker.outputs import output_path

log = logging.getLogger(__name__)
KILLED_DELAY_SECONDS = 1.0
"""Shortest pause before the next attempt at a job whose process was killed."""
RESULT = ("best_epoch", "stopped_epoch", "test", "verdict")
"""Fields of a `finished` event that the job's result has; `verdict` is an investigation's."""
MEDIA_TYPES = {
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".safetensors": "application/vnd.safetensors",
}


class OutcomeWriter:
    """Writes the end of one attempt. Each method ends the claim; all raise StaleFence and LeaseLost.

    `in_background` runs slow file work while the lease is kept.
    """

    def __init__(
        self,
        context: WorkerContext,
        claimed: ClaimedJob,
        lease: Lease[Any],
        logs: LogShipper,
        log_file: Path,
        in_background: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._context, self._claimed, self._claim = context, claimed, claimed.claim
        self._lease, self._logs, self._log_file = lease, logs, log_file
        self._in_background = in_background
        self._scratch = log_file.parent

    def finish(
        self, event: dict[str, Any], evaluation: dict[str, Any] | None, attainable: dict[str, Any] | None = None
    ) -> None:
        """Store the files of a `finished` event, then model, artifacts, result and state in one transaction.

        `attainable` becomes a part of the evaluation.
        """
        if evaluation is not None and attainable is not None:
            evaluation = {**evaluation, "attainable": attainable}
        storage, claim = self._context.storage, self._claim
        key, manifest, size, digests = None, {}, 0, None
        if event["artifact"]:
            folder = output_path(self._scratch, event["artifact"])
            key = f"models/{claim.id}/{claim.fence}"
            manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            # after a death in between it is there already
            store = partial(storage.size, key) if storage.exists(key) else partial(storage.put_tree, key, folder)
            size = self._in_background(store)
            digests = self._in_background(partial(digests_of, storage.local_path(key)))
        files = [
            self._store_file(f"{name}{Path(path).suffix}", output_path(self._scratch, path))
            for name, path in event["files"].items()
        ]
        files += [self._store_file("log.txt", self._log_file)]
        self._logs.finish(self._lease)
        finished = Finish(
            stop_reason=event["stop_reason"],
            result=finite({name: event[name] for name in RESULT if name in event}),
            evaluation=finite(evaluation),
            model_kind=self._claimed.spec["model"]["kind"],
            model_key=key,
            model_manifest=finite(manifest),
            model_bytes=size,
            model_digests=digests,
            files=files,
        )
        fp("before_finish")
        stopped = finished.stop_reason in attempts.STOPPED
        followed = self._plan_investigation(
            "stopped" if stopped else "succeeded", finished.stop_reason, finished.evaluation
        )

        def record(session: Session) -> str | None:
            model_id = attempts.finish(session, claim, finished)
            self._begin_investigation(session, followed)
            return model_id

        model_id = self._transact(record)
        fp("after_finish")
        log.info("job=%s finished: %s, model %s", claim.id, event["stop_reason"], model_id)

    def cancel(self, *, keep_log_file: bool = True) -> None:
        """Record that the job was cancelled; nothing but its log is kept."""
        self._store_log(keep_log_file)
        self._transact(lambda session: attempts.cancelled(session, self._claim))

    def hand_back(self, reason: str) -> None:
        """Record that the attempt ended at a checkpoint, and wake a worker for what follows."""
        self._store_log()
        self._transact(lambda session: attempts.hand_back(session, self._claim, reason))
        self._context.doorbell.ring("train")

    def interrupt(self, error: dict[str, Any]) -> None:
        """Record an end that is not the job's fault: it is queued again, a limited number of times."""
        reason, limit = error["message"], self._context.settings.max_interruptions
        self._logs.add("error", f"interrupted: {reason}")
        self._store_log()

        def requeue(session: Session) -> str:
            job = lock_claimed(session, self._claim)
            return attempts.interrupted(session, job, reason, limit, delay=KILLED_DELAY_SECONDS, error=error)

        state = self._transact(requeue)
        log.warning("job=%s interrupted: %s; its state is %s", self._claim.id, reason, state)

    def fail(self, error: dict[str, Any], *, resumed: Checkpoint | None = None, keep_log_file: bool = True) -> None:
        """Record a failed attempt; the job is queued again or ends, as the error and its attempts allow.

        Args:
            error: the job's error.
            resumed: the checkpoint that the attempt started from; dropped when the error says that it is unusable.
            keep_log_file: False while the disk may be broken.
        """
        code, message = error["code"], error["message"]
        self._logs.add("error", f"failed: {code}: {message}")
        self._store_log(keep_log_file)
        error = finite(with_next_spec(error, self._claimed.spec))
        followed = self._plan_investigation("failed", None, None) if code == investigation.TRAINED else None

        def record(session: Session) -> str:
            if code == "checkpoint_unusable" and resumed is not None and resumed.fence:
                # intact, and yet it cannot be resumed from: the next attempt must not choose it again
                checkpoints.discard(session, self._claim, resumed.id)
            to = attempts.fail(session, self._claim, error)
            self._begin_investigation(session, followed if to == "failed" else None)
            return to

        state = self._transact(record)
        log.warning("job=%s failed: %s: %s; its state is %s", self._claim.id, code, message, state)

    def _plan_investigation(
        self, state: str, stop_reason: str | None, evaluation: dict[str, Any] | None
    ) -> AutomaticInvestigation | None:
        """Decide, outside of the transaction, whether the run is investigated when it has ended like this."""
        if (self._claimed.spec.get("diagnose") or {}).get("investigate") != "auto":
            return None
        context, project_id = service_context(self._context), self._claimed.project_id
        plan = partial(
            investigation.plan_automatic, context, project_id, self._claim.id, state, stop_reason, evaluation
        )
        try:
            planned: AutomaticInvestigation | None = self._in_background(plan)
        except (DBAPIError, HttpProblem) as error:  # how the run ended matters more
            log.warning("job=%s no investigation is planned: %s", self._claim.id, error)
            return AutomaticInvestigation(f"no investigation: {type(error).__name__}")
        return planned

    def _begin_investigation(self, session: Session, planned: AutomaticInvestigation | None) -> None:
        if planned is not None:
            investigation.begin_automatic(session, service_context(self._context), self._claim.id, planned)

    def _store_log(self, keep_file: bool = True) -> None:
        """Ship what is left of the log, and store its file as an artifact."""
        self._logs.finish(self._lease)
        if not keep_file or not self._log_file.exists():
            return
        try:
            file = self._store_file("log.txt", self._log_file)
        except OSError as error:  # the outcome matters more than the log's file
            log.warning("job=%s the log file cannot be stored: %s", self._claim.id, error)
            return
        self._transact(lambda session: attempts.save_artifact(session, self._claim, file))

    def _store_file(self, name: str, path: Path) -> StoredFile:
        key = f"artifacts/{self._claim.id}/{self._claim.fence}-{name}"
        size, sha256 = self._in_background(lambda: self._context.storage.put_file(key, path))
        return StoredFile(name, key, MEDIA_TYPES.get(path.suffix, "application/octet-stream"), size, sha256)

    def _transact(self, work: Callable[[Session], Any]) -> Any:
        return self._lease.transact(self._context.sessions, work)
