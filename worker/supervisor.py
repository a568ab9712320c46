"""Supervise one attempt at a job: prepare it, fork its training process, ship its events, record how it ended.

A single-threaded loop. The only other thread is a short-lived one that copies large files, and it has ended before the
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
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.database import reading
from service.datasets import attainable
from service.datasets import repository as datasets
from service.failpoints import fp
from service.jobs import attempts, leases, repository
from service.jobs.compute_usage import has_gpu_hours
from service.jobs.leases import ClaimedJob
from service.jobs.tables import Checkpoint
from service.leases import StaleFence
from service.metrics import service as metrics
from service.workers.names import worker_alias
from trainkit.diagnose import record_file
from trainkit.diagnose.attainable import attainable_key
from trainkit.spec import JobSpec
from trainkit.spec.failures import code_of_os, failure
from trainkit.spec.memory import limit_of
from trainkit.tracebacks import traceback_of, without_paths
from worker import exit_errors, preflight, shutdown
from worker.attempt_outcome import OutcomeWriter
from worker.background_io import run_in_background
from worker.confinement import Confinement
from worker.confinement.paths import gpu_devices
from worker.context import WorkerContext
from worker.control import Command
from worker.instrumentation import observe_attempt
from worker.lease import Lease, LeaseLost
from worker.log_shipper import LogShipper, describe_exit
from worker.metrics import FENCED
from worker.preflight import CannotStartError
from worker.processes import Exit
from worker.sink import Sink, SpoolShipper
from worker.spool import SpoolError
from worker.training_process import TrainingProcess, TrainingTask

log = logging.getLogger(__name__)
T = TypeVar("T")
TICK_SECONDS = 0.1
POLL_COMMAND_SECONDS = 0.3
CPU_GRACE_SECONDS = 900.0
INVESTIGATED = "investigated.json"
"""In the attempt's folder: the record of the job that it investigates."""
HAND_BACK_SECONDS = 20.0
"""Time for the training process to write its checkpoint when the worker stops; then it is killed."""


def claim_and_supervise(context: WorkerContext, queue: str) -> bool:
    """Claim the next queued job and run one attempt at it. Returns False when none is waiting."""
    begun = time.monotonic()
    settings = context.settings

    def may_use_gpu(session: Session, project_id: str) -> bool:
        return settings.device == "cpu" or has_gpu_hours(session, settings, project_id)

    with context.sessions.begin() as session:
        claimed = leases.claim(
            session, queue, context.owner, settings.lease_seconds, settings.max_running_jobs, may_use_gpu
        )
    if claimed is None:
        return False
    fp("after_claim")
    with observe_attempt(context, claimed, queue):
        Supervisor(context, claimed, begun).supervise()
    return True


class Supervisor:
    """The life cycle of one attempt."""

    def __init__(self, context: WorkerContext, claimed: ClaimedJob, begun: float) -> None:
        settings, claim = context.settings, claimed.claim
        self.context, self.claimed, self.claim, self.job_id = context, claimed, claim, claimed.job_id
        self.folder = settings.scratch / claim.id / str(claim.fence)
        self.log_file = self.folder / "log.txt"
        self.memory_limit = limit_of(claimed.spec, settings.max_job_memory_bytes)
        self.process = TrainingProcess(self.log_file, self.memory_limit, settings.wedged_seconds)
        self.lease = Lease(settings.lease_seconds, settings.heartbeat_seconds, begun, self._renew, self.process.kill)
        self.logs = LogShipper(context, claim, self.log_file)
        self.sink = Sink(context, claim, claimed.metric_seq, claimed.runtime, self.folder)
        self.outcome = OutcomeWriter(context, claimed, self.lease, self.logs, self.log_file, self._in_background)
        self.resumed: Checkpoint | None = None
        self.attainable: dict[str, Any] | None = None
        self.cancelled = False
        self.hand_back_deadline: float | None = None
        self._poll_due = 0.0
        self._kills_before = exit_errors.kernel_kills()

    def supervise(self) -> None:
        """Run the attempt from the claim to its end. Returns without a write once another worker has the job."""
        log.info("job=%s fence=%s claimed", self.job_id, self.claim.fence)
        alias = worker_alias(self.context.owner)
        log.info("job=%s the answers name this worker %s", self.job_id, alias)
        self.logs.add("info", f"claimed by {alias}")
        try:
            with self.lease:
                self._run_or_fail()
        except StaleFence:
            FENCED.inc()
            log.warning("job=%s fence=%s another worker has the job: attempt dropped", self.job_id, self.claim.fence)
        except LeaseLost:
            log.error("job=%s fence=%s the lease ran out while the database was away", self.job_id, self.claim.fence)
        finally:
            self.process.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # a later attempt may use it
                self.folder.parent.rmdir()

    def _run_or_fail(self) -> None:
        try:
            self._run()
        except (StaleFence, LeaseLost):
            raise
        except Exception as error:
            # A defect or a broken disk: a failed attempt with a reason is better than a lease that runs out.
            log.exception("job=%s the supervisor failed", self.job_id)
            self.process.kill()
            self.outcome.fail(error_of_supervisor(error), keep_log_file=False)

    def _run(self) -> None:
        command = self.claimed.requested_action
        if command is not None and command.get("action") == "cancel":
            self.logs.add("info", "cancelled before the training process started")
            self.outcome.cancel(keep_log_file=False)
            return
        try:
            task = self._prepare()
        except CannotStartError as error:
            self.outcome.fail(error.as_error)
            return
        self._start(task)
        if command is not None:
            self._execute(command)
        shipper = SpoolShipper(task.spool, self.sink)
        try:
            ended = self._watch(shipper)
        except SpoolError as error:
            self.process.kill()
            evidence = {"byte": shipper.reader.offset, "log": exit_errors.last_lines(self.log_file)}
            self.outcome.fail(failure("spool_damaged", str(error), evidence))
            return
        self._conclude(ended, task)

    def _prepare(self) -> TrainingTask:
        """Check what the attempt needs and mark the job as running. Raises CannotStartError."""
        # Nothing of earlier attempts on this machine is needed: what counts has been shipped.
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        claimed, storage = self.claimed, self.context.storage
        dataset = preflight.locate_dataset(storage, claimed)
        preflight.check_memory(claimed.spec, dataset, self.memory_limit)
        sources = self._read(
            lambda session: preflight.find_sources(session, self.context, claimed.project_id, claimed.spec)
        )
        investigated = self._read(
            lambda session: preflight.find_investigated(session, claimed.project_id, self.job_id, claimed.spec)
        )
        runtime = claimed.runtime
        if investigated is not None:
            record_file.save(self.folder / INVESTIGATED, investigated.document)
            runtime = runtime or investigated.runtime_on(self.context.settings.device)
        checkpoint = self.resumed = self._choose_checkpoint()
        self.attainable = self._read(self._attainable)

        def begin(session: Session) -> None:
            metrics.supersede_after(session, self.claim, checkpoint.metric_seq if checkpoint else 0)
            step = checkpoint.step if checkpoint else None
            attempts.start(session, self.claim, resumed_from_step=step)

        self.lease.transact(self.context.sessions, begin)
        return TrainingTask(
            spec=preflight.with_time_limit(
                preflight.with_device(claimed.spec, self.context.settings.device),
                self.context.settings.max_job_seconds,
            ),
            dataset=dataset,
            workdir=self.folder,
            spool=self.folder / "spool",
            runtime=runtime,
            resume_from=storage.local_path(checkpoint.storage_key) if checkpoint else None,
            branch=checkpoint is not None and checkpoint.fence == 0,
            target_dataset=sources.target_dataset,
            source=sources.source,
            attainable=self.attainable,
            investigated=None if investigated is None else self.folder / INVESTIGATED,
        )

    def _attainable(self, session: Session) -> dict[str, Any] | None:
        """What was measured before on the job's dataset and split."""
        dataset = datasets.find_by_id(session, self.claimed.dataset_id)
        key = attainable_key(JobSpec.model_validate(self.claimed.spec))
        return None if dataset is None else attainable.kept(dataset.report, key)

    def _choose_checkpoint(self) -> Checkpoint | None:
        def load(session: Session) -> tuple[list[Checkpoint], dict[str, Any]]:
            job = repository.get(session, self.claimed.project_id, self.job_id)
            return repository.checkpoints(session, self.job_id), (job.parent if job is not None else None) or {}

        def is_intact(checkpoint: Checkpoint) -> bool:
            path = self.context.storage.local_path(checkpoint.storage_key)
            return self._in_background(partial(preflight.sha256_of, path)) == checkpoint.sha256

        found, parent = self._read(load)
        return preflight.choose_checkpoint(found, parent, is_intact, self.logs.add)

    def _start(self, task: TrainingTask) -> None:
        # The child inherits memory, not connections: none may be open across the fork.
        self.context.engine.dispose()
        fp("before_fork")
        pid = self.process.start(task, self._confinement(task))
        log.info("job=%s training process %s started", self.job_id, pid)
        self.logs.add("info", "training process started")

    def _confinement(self, task: TrainingTask) -> Confinement | None:
        """Its files, and limits beyond those that the watchdog and the training loop keep, for when these fail."""
        seconds = (task.spec.get("resources") or {}).get("max_seconds")
        cores = os.cpu_count() or 1
        return self.context.confinement(
            task.inputs,
            task.workdir,
            # a GPU's driver reserves addresses by far beyond the machine's memory
            data_bytes=0 if gpu_devices() else 2 * (self.memory_limit or exit_errors.memory_limit()) + (2 << 30),
            cpu_seconds=int(cores * (seconds + CPU_GRACE_SECONDS)) if seconds else 0,
        )

    def _watch(self, shipper: SpoolShipper) -> Exit:
        """Loop until the training process has ended and all of its events are shipped. Raises SpoolError."""
        while True:
            ended = self.process.poll()
            self.logs.ship()
            shipper.ship(self._in_background, at_once=ended is not None)
            if ended is not None and shipper.drained():
                return ended
            self._tick()
            if ended is None:
                self.process.check()
                self.process.wait(TICK_SECONDS)

    def _tick(self) -> None:
        """Renew the lease, execute commands, and hand the job back when the worker stops."""
        command = self.lease.tick()
        now = time.monotonic()
        if command is None and now >= self._poll_due:
            self._poll_due = now + POLL_COMMAND_SECONDS
            with contextlib.suppress(DBAPIError):  # the renewal reports it and counts the time
                command = self._read_once(lambda session: leases.requested_action(session, self.claim))
        if command is not None:
            self._execute(command)
        if shutdown.requested() and self.process.started and self.hand_back_deadline is None:
            log.info("job=%s the worker stops: a checkpoint is requested", self.job_id)
            self.logs.add("info", "the worker stops: a checkpoint is requested")
            self.hand_back_deadline = now + HAND_BACK_SECONDS
            if self.process.last_command is None:
                self.process.send({"action": "hand_back"})
        if self.hand_back_deadline is not None and now > self.hand_back_deadline:
            self.process.kill()

    def _execute(self, command: Command) -> None:
        if command.get("action") == "cancel":
            # Nothing of the run is kept, so there is nothing to wait for.
            if not self.cancelled:
                self.logs.add("info", "cancel: the training process is killed")
            self.cancelled = True
            self.process.kill()
        elif self.process.started:
            if self.process.last_command != command:
                log.info("job=%s command: %s", self.job_id, json.dumps(command))
                self.logs.add("info", f"{command.get('action')}: sent to the training process")
            self.process.send(command)

    def _conclude(self, ended: Exit, task: TrainingTask) -> None:
        """Decide how the attempt ended and record it."""
        sink, outcome = self.sink, (self.sink.ended or {}).get("outcome")
        log.info("job=%s training process ended with %s (%s)", self.job_id, ended.status, outcome or "no outcome")
        self.logs.add("info" if ended.clean else "warning", f"training process ended: {describe_exit(ended, outcome)}")
        reported = sink.failed["error"] if sink.failed is not None else self.process.crash_channel.read()
        if sink.finished is not None and (ended.clean or not self.cancelled):
            # Where the process died after it had finished, it was fitting references: the job has all that it needs.
            self.outcome.finish(sink.finished, sink.evaluation, self._measured())
        elif self.cancelled or outcome == "cancelled":
            self.outcome.cancel()
        elif self.process.watchdog.verdict is not None:
            self.outcome.fail(self.process.watchdog.verdict)
        elif reported is not None:
            self.outcome.fail(exit_errors.with_log(reported, self.log_file, ended), resumed=self.resumed)
        elif outcome == "paused":
            # Not always paused: a cancel or a stop that came meanwhile holds, and a stop needs another attempt.
            self.outcome.hand_back("paused")
        elif outcome == "handed_back" or self.hand_back_deadline is not None:
            self.logs.add("info", "handed back: the worker stops")
            self.outcome.hand_back("the worker stops")
        elif ended.signal == signal.SIGKILL and not exit_errors.out_of_memory(ended, self._kills_before):
            # Killed from outside: the platform's doing, not counted as a failure of the job itself.
            self.outcome.interrupt(exit_errors.error_of_exit(ended, self._kills_before, self.log_file))
        else:
            error = exit_errors.error_of_exit(ended, self._kills_before, self.log_file)
            if ended.signal == signal.SIGBUS:
                error = exit_errors.explain_bus_error(error, task.dataset, self.claimed.dataset_id)
            self.outcome.fail(error)

    def _measured(self) -> dict[str, Any] | None:
        """What references reach on the dataset and split: what this attempt measured is kept with the dataset."""
        found = self.sink.attainable
        if found is None:
            return self.attainable
        self.lease.transact(
            self.context.sessions, lambda session: attainable.keep(session, self.claimed.dataset_id, found)
        )
        fp("after_attainable")
        return found

    def _renew(self) -> Command | None:
        with self.context.sessions.begin() as session:
            return leases.renew(session, self.claim, self.context.settings.lease_seconds)

    def _read(self, query: Callable[[Session], T]) -> T:
        """Run a query, again while the database is away and the lease lasts."""
        return self.lease.keep_trying(lambda: self._read_once(query))

    def _read_once(self, query: Callable[[Session], T]) -> T:
        with reading(self.context.sessions) as session:
            return query(session)

    def _in_background(self, work: Callable[[], T]) -> T:
        return run_in_background(work, self._tick)


def error_of_supervisor(error: Exception) -> dict[str, Any]:
    """Return the job's error for an exception of its supervisor."""
    evidence: dict[str, Any] = {"traceback": traceback_of(error)}
    reason = without_paths(str(error))
    if isinstance(error, OSError):
        evidence["errno"] = error.errno
        message = f"the worker could not read or write its files: {reason}"
        return failure(code_of_os(error), message, evidence)
    return failure(
        "supervisor_failed", f"the supervisor failed: {type(error).__name__}: {without_paths(str(error))}", evidence
    )
