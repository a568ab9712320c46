"""Supervise one job: fork its training process, ship what it says, pass on wishes, and account for its end.

A single-threaded loop. The only other thread is a short-lived one for copying big files, and it has ended before the
next fork.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.database import reading
from service.failpoints import fp
from service.jobs import attempts, checkpoints, leases
from service.jobs.attempts import Finish, StoredFile
from service.jobs.leases import ClaimedJob, lock_claimed
from service.jobs.tables import Checkpoint, Job
from service.leases import StaleFence
from service.metrics import service as metrics
from service.metrics.service import finite
from trainkit.spec.error_mapping import code_of_os
from trainkit.spec.failures import failure
from trainkit.spec.memory import limit_of
from trainkit.spec.memory_reduction import with_next_spec
from worker import exit_errors, shutdown
from worker.background_io import aside
from worker.context import Context
from worker.control import Control, ControlSender, control_pipe
from worker.crash_channel import LastWords
from worker.instrumentation import observed
from worker.lease import Lease, LeaseLost
from worker.log_shipper import LogShipper, described
from worker.metrics import BEHIND_BYTES, FENCED
from worker.preflight import CannotBeginError, refuse_what_does_not_fit, sha256_of
from worker.processes import Child, Exit, fork
from worker.sink import Sink
from worker.sources import Sources, SourceUnavailableError, find_sources
from worker.spool import SpoolError, SpoolReader
from worker.training_process import Task, run
from worker.watchdog import Watchdog

log = logging.getLogger(__name__)
T = TypeVar("T")
TICK_SECONDS = 0.1
SHIP_SECONDS = 0.25
WANTED_SECONDS = 0.3
HANDBACK_SECONDS = 20.0
KILLED_DELAY_SECONDS = 1.0


def claim_and_supervise(context: Context, queue: str) -> bool:
    """Take the best queued job and see it through this attempt; False when none is waiting."""
    begun = time.monotonic()
    with context.sessions.begin() as session:
        claimed = leases.claim(
            session, queue, context.owner, context.settings.lease_seconds, context.settings.max_running_jobs
        )
    if claimed is None:
        return False
    fp("after_claim")
    with observed(context, claimed, queue):
        Supervisor(context, claimed, begun).supervise()
    return True


class Supervisor:
    """One attempt at one job."""

    def __init__(self, context: Context, claimed: ClaimedJob, begun: float) -> None:
        settings = context.settings
        self.context = context
        self.claim = claimed.claim
        self.job_id = claimed.job_id
        self.claimed = claimed
        self.folder = settings.scratch / claimed.job_id / str(claimed.claim.fence)
        self.log_file = self.folder / "log.txt"
        self.logs = LogShipper(context, claimed.claim, self.log_file)
        self.sink = Sink(context, claimed.claim, claimed.metric_seq, claimed.runtime)
        self.memory_limit = limit_of(claimed.spec, settings.max_job_memory_bytes)
        self.watchdog = Watchdog(self.log_file, self.memory_limit, settings.wedged_seconds)
        self.last = LastWords()
        self.task: Task | None = None
        self.resumed: Checkpoint | None = None
        self.child: Child | None = None
        self.control: ControlSender | None = None
        self.handback_deadline: float | None = None
        self.cancelled = False
        self._wanted_due = 0.0
        self._ship_due = 0.0
        self._shipped = 0
        self._kills_before = exit_errors.kernel_kills()
        self.lease = Lease(settings.lease_seconds, settings.heartbeat_seconds, begun, self._renew, self._kill_at_once)

    def supervise(self) -> None:
        """From the claim to the end of the attempt. Leaves without a word when the job is no longer ours."""
        log.info("job=%s fence=%s claimed", self.job_id, self.claim.fence)
        self.logs.say("info", f"claimed by {self.context.owner}")
        try:
            with self.lease:
                self._attempt_or_say_why_not()
        except StaleFence:
            FENCED.inc()
            log.warning("job=%s fence=%s someone else has it now: letting go", self.job_id, self.claim.fence)
        except LeaseLost:
            log.error("job=%s fence=%s the lease ran out while the database was away", self.job_id, self.claim.fence)
        finally:
            if self.child is not None:
                self.child.kill()
            if self.control is not None:
                self.control.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # a later attempt may be at home there
                self.folder.parent.rmdir()

    def _attempt_or_say_why_not(self) -> None:
        try:
            self._attempt()
        except (StaleFence, LeaseLost):
            raise
        except Exception as error:
            # A mistake of ours or a broken disk: better a failed attempt with a reason than a lease that runs out.
            log.exception("job=%s the supervisor failed", self.job_id)
            self._kill_at_once()
            evidence: dict[str, Any] = {"traceback": traceback.format_exc()[-4000:]}
            if isinstance(error, OSError):
                code, message = code_of_os(error), f"the worker could not read or write its files: {error}"
                evidence["errno"] = error.errno
            else:
                code, message = "supervisor_failed", f"the supervisor failed: {type(error).__name__}: {error}"
            failed = failure(code, message, evidence)
            self.logs.say("error", f"{code}: {message}")
            self.logs.finish(self.lease)
            self._transact(lambda session: attempts.fail(session, self.claim, failed))

    def _attempt(self) -> None:
        wish = self.claimed.requested_action
        if wish is not None and wish.get("action") == "cancel":
            self.logs.say("info", "cancelled before it began")
            self.logs.finish(self.lease)
            self._transact(lambda session: attempts.cancelled(session, self.claim))
            return
        try:
            task = self._prepare()
        except SourceUnavailableError as error:
            self._fail(error.as_error())
            return
        except CannotBeginError as error:
            self._fail(error.as_error)
            return
        self._start(task)
        if wish is not None:
            self._obey(wish)
        reader = SpoolReader(task.spool)
        try:
            ended = self._watch(reader)
        except SpoolError as error:
            self._kill_at_once()
            evidence = {"byte": reader.offset, "log": exit_errors.last_lines(self.log_file)}
            self._fail(failure("spool_damaged", str(error), evidence))
            return
        self._conclude(ended)

    def _prepare(self) -> Task:
        """The work folder, the sources, the newest good checkpoint; then the job is running."""
        # Of earlier attempts on this machine nothing is of use: what counted has been shipped.
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        root = self.context.storage.root
        if not root.is_dir():
            gone = "the storage folder is not there: it was moved, or its disk is not mounted"
            raise CannotBeginError(failure("storage_unreachable", gone, {"folder": root.name}))
        dataset = self.context.storage.local_path(self.claimed.prepared_key)
        if not (dataset / "meta.json").is_file():
            gone = f"the prepared form of {self.claimed.dataset_id} is not in this worker's storage"
            raise CannotBeginError(failure("data_damaged", gone, {"dataset": self.claimed.dataset_id}))
        refuse_what_does_not_fit(self.claimed.spec, dataset, self.memory_limit)
        sources = self.lease.keep_trying(self._find_sources)
        self.resumed = checkpoint = self._newest_good_checkpoint()
        step, metric_seq = (checkpoint.step, checkpoint.metric_seq) if checkpoint else (None, 0)
        path = self.context.storage.local_path(checkpoint.storage_key) if checkpoint else None

        def begin(session: Any) -> None:
            metrics.supersede_after(session, self.claim, metric_seq)
            attempts.start(session, self.claim, resumed_from_step=step)

        self._transact(begin)
        return Task(
            spec=self._placed(self.claimed.spec),
            dataset=dataset,
            workdir=self.folder,
            spool=self.folder / "spool",
            runtime=self.claimed.runtime,
            resume_from=path,
            branch=checkpoint is not None and checkpoint.fence == 0,
            target_dataset=sources.target_dataset,
            source=sources.source,
        )

    def _placed(self, spec: dict[str, Any]) -> dict[str, Any]:
        """On this worker's device, where the spec names none."""
        resources = spec.get("resources") or {}
        if resources.get("device", "auto") != "auto":
            return spec
        return {**spec, "resources": {**resources, "device": self.context.settings.device}}

    def _find_sources(self) -> Sources:
        with reading(self.context.sessions) as session:
            return find_sources(session, self.context, self.claimed.project_id, self.claimed.spec)

    def _newest_good_checkpoint(self) -> Checkpoint | None:
        """Raises CannotBeginError for a job that was to go on from another's checkpoint, and has none that is whole."""

        def latest() -> tuple[list[Checkpoint], dict[str, Any]]:
            with reading(self.context.sessions) as session:
                return checkpoints.latest(session, self.job_id), session.get_one(Job, self.job_id).parent or {}

        found, parent = self.lease.keep_trying(latest)
        for checkpoint in found:
            path = self.context.storage.local_path(checkpoint.storage_key)
            if self._aside(partial(sha256_of, path)) == checkpoint.sha256:
                log.info("job=%s goes on from its checkpoint of step %s", self.job_id, checkpoint.step)
                self.logs.say("info", f"going on from the checkpoint of step {checkpoint.step}")
                return checkpoint
            log.warning(
                "job=%s the checkpoint of step %s is damaged: trying the one before", self.job_id, checkpoint.step
            )
            self.logs.say("warning", f"the checkpoint of step {checkpoint.step} is damaged: trying the one before")
        if parent.get("step") is not None:
            gone = f"no checkpoint is whole that this {parent['relation']} of {parent['job']} could go on from"
            steps = [checkpoint.step for checkpoint in found]
            raise CannotBeginError(failure("checkpoint_unusable", gone, {"steps": steps, "parent": parent}))
        if found:
            self.logs.say("warning", "no checkpoint is whole: starting over")
        return None

    def _start(self, task: Task) -> None:
        reading_end, writing_end = control_pipe()
        # The child inherits memory, not connections: none may be open across the fork.
        self.context.engine.dispose()
        fp("before_fork")
        threads = (self.claimed.runtime or {}).get("threads", 1)
        self.task = task
        self.watchdog.forgive()
        self.child = fork(
            lambda: run(task, Control(reading_end, self.watchdog.pulse.beat), self.last),
            log=self.log_file,
            keep=[reading_end],
            threads=int(threads),
        )
        os.close(reading_end)
        self.control = ControlSender(writing_end)
        log.info("job=%s training process %s started", self.job_id, self.child.pid)
        self.logs.say("info", f"training process {self.child.pid} started")

    def _watch(self, reader: SpoolReader) -> Exit:
        """Until the training process has ended and all it said is shipped."""
        assert self.child is not None
        while True:
            ended = self.child.poll()
            self.logs.ship()
            now = time.monotonic()
            if now >= self._ship_due or ended is not None:
                self._ship_due = now + SHIP_SECONDS
                self._ship(reader)
            if ended is not None and self.sink.empty and not self._more(reader):
                return ended
            self._keep()
            if ended is None:
                if self.watchdog.look(self.child) is not None:
                    self._kill_at_once()
                self.child.sleep(TICK_SECONDS)

    def _ship(self, reader: SpoolReader) -> None:
        if self.sink.empty:
            self.sink.take(reader.read())
        try:
            self.sink.ship(self._aside)
        except DBAPIError as error:
            # What was said stays in the spool and in the sink; the lease decides how long that may go on.
            log.warning("job=%s the database is away: %s", self.job_id, error.orig)
            self._ship_due = time.monotonic() + 1.0
        if self.sink.empty:
            self._shipped = reader.offset
        BEHIND_BYTES.set(max(0, reader.size() - self._shipped))

    def _more(self, reader: SpoolReader) -> bool:
        self.sink.take(reader.read())
        return not self.sink.empty

    def _keep(self) -> None:
        """Renew the lease, hear wishes, hand back when the worker is told to stop."""
        wish = self.lease.tick()
        now = time.monotonic()
        if wish is None and now >= self._wanted_due:
            self._wanted_due = now + WANTED_SECONDS
            wish = self._wanted()
        if wish is not None:
            self._obey(wish)
        if shutdown.asked() and self.control is not None and self.handback_deadline is None:
            log.info("job=%s the worker stops: asking for a checkpoint", self.job_id)
            self.logs.say("info", "the worker stops: asking for a checkpoint")
            self.handback_deadline = now + HANDBACK_SECONDS
            if self.control.last is None:
                self.control.send({"action": "hand_back"})
        if self.handback_deadline is not None and now > self.handback_deadline:
            self._kill_at_once()

    def _wanted(self) -> dict[str, Any] | None:
        try:
            with reading(self.context.sessions) as session:
                return leases.wanted(session, self.claim)
        except DBAPIError:
            return None  # the renewal says so, and counts the time

    def _renew(self) -> dict[str, Any] | None:
        with self.context.sessions.begin() as session:
            return leases.renew(session, self.claim, self.context.settings.lease_seconds)

    def _obey(self, wish: dict[str, Any]) -> None:
        if wish.get("action") == "cancel":
            # Nothing of it is kept, so there is nothing to wait for.
            if not self.cancelled:
                self.logs.say("info", "cancel: killing the training process")
            self.cancelled = True
            self._kill_at_once()
        elif self.control is not None:
            if self.control.last != wish:
                log.info("job=%s wanted: %s", self.job_id, json.dumps(wish))
                self.logs.say("info", f"{wish.get('action')}: passed on to the training process")
            self.control.send(wish)

    def _kill_at_once(self) -> None:
        """Called from the lease's timer too, so it only signals; the loop reaps."""
        if self.child is not None:
            self.child.signal(signal.SIGKILL)

    def _conclude(self, ended: Exit) -> None:
        """The attempt's end into the database."""
        sink, outcome = self.sink, (self.sink.ended or {}).get("outcome")
        log.info("job=%s training process ended with %s (%s)", self.job_id, ended.status, outcome or "no word")
        self.logs.say("info" if ended.clean else "warning", f"training process ended: {described(ended, outcome)}")
        if sink.finished is not None and ended.clean:
            self._finish(sink.finished)
        elif self.cancelled or outcome == "cancelled":
            self._keep_log()
            self._transact(lambda session: attempts.cancelled(session, self.claim))
        elif self.watchdog.verdict is not None:
            self._fail(self.watchdog.verdict)
        elif (error := sink.failed["error"] if sink.failed is not None else self.last.read()) is not None:
            self._fail(exit_errors.with_log(error, self.log_file, ended))
        elif outcome == "paused":
            self._keep_log()
            # Not always paused: a cancel or a stop that came meanwhile holds, and a stop needs another attempt.
            self._transact(lambda session: attempts.handback(session, self.claim, "paused"))
            self.context.doorbell.ring("train")
        elif outcome == "handed_back" or self.handback_deadline is not None:
            self.logs.say("info", "handed back: the worker stops")
            self._keep_log()
            self._transact(lambda session: attempts.handback(session, self.claim, "the worker stops"))
            self.context.doorbell.ring("train")
        elif ended.signal == signal.SIGKILL and not exit_errors.out_of_memory(ended, self._kills_before):
            # Killed from outside: the platform's doing, not counted as a failure of the job itself.
            self._interrupted(exit_errors.error_of_exit(ended, self._kills_before, self.log_file))
        else:
            error = exit_errors.error_of_exit(ended, self._kills_before, self.log_file)
            if ended.signal == signal.SIGBUS and self.task is not None:
                error = exit_errors.explain_bus_error(error, self.task.dataset, self.claimed.dataset_id)
            self._fail(error)

    def _interrupted(self, error: dict[str, Any]) -> None:
        reason = error["message"]
        self.logs.say("error", f"interrupted: {reason}")
        self._keep_log()
        limit = self.context.settings.max_interruptions

        def lost(session: Any) -> str:
            job = lock_claimed(session, self.claim)
            return attempts.interrupted(session, job, reason, limit, delay=KILLED_DELAY_SECONDS, error=error)

        state = self._transact(lost)
        log.warning("job=%s %s; it is %s", self.job_id, reason, state)

    def _fail(self, error: dict[str, Any]) -> None:
        self.logs.say("error", f"failed: {error['code']}: {error['message']}")
        self._keep_log()
        error = finite(with_next_spec(error, self.claimed.spec))

        def fail(session: Session) -> str:
            if error["code"] == "checkpoint_unusable" and self.resumed is not None and self.resumed.fence:
                # whole, and yet it cannot be gone on from: the next attempt shall not meet it again
                checkpoints.discard(session, self.claim, self.resumed.id)
            return attempts.fail(session, self.claim, error)

        state = self._transact(fail)
        log.warning("job=%s %s: %s; it is %s", self.job_id, error["code"], error["message"], state)

    def _finish(self, event: dict[str, Any]) -> None:
        """Files into storage, then one transaction: model, artifacts, evaluation, result and state."""
        storage, folder = self.context.storage, Path(event["artifact"] or self.folder / "no model")
        key = f"models/{self.job_id}/{self.claim.fence}" if event["artifact"] else None
        manifest = json.loads((folder / "model.json").read_text(encoding="utf-8")) if key else {}
        size = 0 if key is None or storage.exists(key) else self._aside(partial(storage.put_tree, key, folder))
        files = [self._stored(f"{name}{Path(path).suffix}", Path(path)) for name, path in event["files"].items()]
        files += [self._stored("log.txt", self.log_file)]
        self.logs.finish(self.lease)
        result = {name: event[name] for name in ("best_epoch", "stopped_epoch", "test")}
        outcome = Finish(
            stop_reason=event["stop_reason"],
            result=finite(result),
            evaluation=finite(self.sink.evaluation),
            model_kind=self.claimed.spec["model"]["kind"],
            model_key=key,
            model_manifest=finite(manifest),
            model_bytes=size,
            files=files,
        )
        fp("before_finish")
        model_id = self._transact(lambda session: attempts.finish(session, self.claim, outcome))
        fp("after_finish")
        log.info("job=%s done: %s, model %s", self.job_id, event["stop_reason"], model_id)

    def _keep_log(self) -> None:
        self.logs.finish(self.lease)
        if self.log_file.exists():
            try:
                file = self._stored("log.txt", self.log_file)
            except OSError as error:  # how the attempt ended is worth more than its log as a file
                log.warning("job=%s its log cannot be stored: %s", self.job_id, error)
                return
            self._transact(lambda session: attempts.save_artifact(session, self.claim, file))

    def _stored(self, name: str, path: Path) -> StoredFile:
        kinds = {".png": "image/png", ".txt": "text/plain; charset=utf-8", ".json": "application/json"}
        key = f"artifacts/{self.job_id}/{self.claim.fence}-{name}"
        size = self._aside(lambda: self.context.storage.put_file(key, path))
        return StoredFile(name, key, kinds.get(path.suffix, "application/octet-stream"), size)

    def _transact(self, work: Callable[[Any], T]) -> T:
        """One transaction, tried again while the database is away and the lease lasts."""

        def once() -> T:
            with self.context.sessions.begin() as session:
                return work(session)

        return self.lease.keep_trying(once)

    def _aside(self, work: Callable[[], T]) -> T:
        return aside(work, self._keep)
