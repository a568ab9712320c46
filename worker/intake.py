"""Check an uploaded dataset: a forked child reads it within limits, because files may be hostile; then it is stored."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.datasets import intake
from service.datasets.intake import ClaimedDataset, ClaimedSource
from service.errors import HttpProblem
from service.jobs.limits import limits_of
from service.jobs.service import admit_waiting
from service.leases import StaleFence
from service.logging import bound
from service.metrics.service import finite
from trainkit.spec.failures import failure
from trainkit.spec.read_options import ReadOptions
from worker import exit_errors, reader_limits, shutdown, slots
from worker.background_io import run_in_background
from worker.context import WorkerContext
from worker.fetch import fetch
from worker.lease import Lease, LeaseLost
from worker.metrics import FENCED
from worker.processes import Exit, ForkedProcess, fork
from worker.reader_limits import ReaderLimits
from worker.spool import SpoolReader, SpoolWriter

log = logging.getLogger(__name__)
T = TypeVar("T")
TICK_SECONDS = 0.1
PROGRESS_SECONDS = 0.5
# Readers choose by content, then by name: the suffix is all of a client's file name that is used.
SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}\Z")


def claim_and_check(context: WorkerContext) -> bool:
    """Claim the next dataset and check it, or fetch its registered file. Returns False when none may be claimed."""
    begun = time.monotonic()
    with context.sessions.begin() as session:
        admits = partial(slots.admits, "data")
        claimed = intake.claim_next(session, context.owner, context.settings.lease_seconds, admits)
    if claimed is None:
        return False
    if isinstance(claimed, ClaimedSource):
        fetch(context, claimed, begun)
    else:
        Intake(context, claimed, begun).check()
    return True


class Intake:
    """One check of one dataset: claim to `ready` or `invalid`."""

    def __init__(self, context: WorkerContext, claimed: ClaimedDataset, begun: float) -> None:
        settings = context.settings
        self.context = context
        self.claimed = claimed
        self.folder = settings.scratch / claimed.dataset_id / str(claimed.claim.fence)
        self.child: ForkedProcess | None = None
        self.progress: dict[str, Any] = {}
        self.outcome: dict[str, Any] | None = None
        self.limits = reader_limits.reader_limits(context)
        self._kills_before = exit_errors.kernel_kills()
        self.lease = Lease(settings.lease_seconds, settings.heartbeat_seconds, begun, self._renew, self._kill)

    def check(self) -> None:
        """Run the check. Returns without a write once another worker has the dataset."""
        identifier = self.claimed.dataset_id
        with bound(dataset=identifier, worker=self.context.owner):
            self._check(identifier)

    def _check(self, identifier: str) -> None:
        log.info("dataset=%s fence=%s claimed", identifier, self.claimed.claim.fence)
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, mode=0o700)
            with self.lease:
                self._conclude(self._read())
        except (StaleFence, LeaseLost) as error:
            FENCED.inc(isinstance(error, StaleFence))
            log.warning("dataset=%s check dropped: %s", identifier, type(error).__name__)
        finally:
            if self.child is not None:
                self.child.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()

    def _read(self) -> Exit | None:
        """Run the reader and return its exit; None when the worker stops."""
        upload = self.folder / f"upload{suffix_of(self.claimed.filename)}"
        upload.symlink_to(self.context.storage.local_path(self.claimed.storage_key))
        reader = SpoolReader(self.folder / "spool")
        claimed, limits = self.claimed, self.limits
        self.context.engine.dispose()
        self.child = fork(
            lambda: read(upload, self.folder, claimed.kind, claimed.target, claimed.read_options, limits),
            log=self.folder / "log.txt",
            threads=1,
            confinement=self.context.confinement([upload], self.folder),
        )
        progress_due = 0.0
        while True:
            ended = self.child.poll()
            for event in reader.read():
                self._handle(event)
            if ended is not None:
                return ended
            if shutdown.requested():
                self.child.kill()
                return None
            self.lease.tick()
            if self.progress and time.monotonic() >= progress_due:
                progress_due = time.monotonic() + PROGRESS_SECONDS
                self._publish_progress()
            self.child.sleep(TICK_SECONDS)

    def _handle(self, event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            self.progress = {name: value for name, value in event.items() if name != "type"}
        else:
            self.outcome = event

    def _publish_progress(self) -> None:
        try:
            self._renew()
        except DBAPIError:
            return  # the lease counts the time

    def _conclude(self, ended: Exit | None) -> None:
        identifier, claim = self.claimed.dataset_id, self.claimed.claim
        outcome = self.outcome or {}
        if ended is None:
            # A lease of zero length: the next worker may begin at once.
            self._transact(lambda session: intake.renew(session, claim, 0.0))
            self.context.doorbell.ring("data")
        elif outcome.get("type") == "ready" and ended.clean:
            self._ready(outcome)
        elif outcome.get("type") == "invalid":
            error, report = finite(outcome["error"]), finite(outcome["report"])
            self._transact(lambda session: intake.invalid(session, claim, error, report))
            log.info("dataset=%s invalid: %s", identifier, error["message"])
        elif ended.signal == signal.SIGXCPU:
            error = too_slow(self.limits.cpu_seconds)
            self._transact(lambda session: intake.invalid(session, claim, error))
        else:
            error = exit_errors.error_of_exit(ended, self._kills_before, self.folder / "log.txt")
            log.warning("dataset=%s the reader failed: %s\n%s", identifier, error["message"], error["evidence"]["log"])
            self._transact(lambda session: intake.interrupted(session, claim))
            self.context.doorbell.ring("data")
        self._admit()

    def _ready(self, outcome: dict[str, Any]) -> None:
        identifier, claim, storage = self.claimed.dataset_id, self.claimed.claim, self.context.storage
        key = f"prepared/{identifier}/{claim.fence}"
        size = run_in_background(lambda: storage.put_tree(key, self.folder / "prepared"), self.lease.tick)
        facts, report, settings = finite(outcome["facts"]), finite(outcome["report"]), self.context.settings

        def publish(session: Session) -> None:
            intake.check_quota(session, settings, claim, size)
            intake.ready(session, claim, facts, report, key, size)

        try:
            self._transact(publish)
        except HttpProblem as problem:
            storage.delete(key)
            message = f"the prepared form of the data has {size} bytes. {problem.detail}"
            error = invalid(problem.code, message, "Make room in the project, or upload less; then upload it again.")
            self._transact(lambda session: intake.invalid(session, claim, error, report))
            log.info("dataset=%s invalid: %s", identifier, message)
            return
        except StaleFence:
            storage.delete(key)
            raise
        log.info("dataset=%s ready: %s samples", identifier, facts["samples"])

    def _admit(self) -> None:
        """Jobs that waited for this dataset are queued, or reported_at why not; housekeeping does it again if this fails."""
        settings, dataset_id = self.context.settings, self.claimed.dataset_id
        while self._transact(lambda session: admit_waiting(session, dataset_id, limits_of(session, settings))):
            self.context.doorbell.ring("train")

    def _renew(self) -> None:
        changes = {"progress": finite(self.progress), "phase": "reading"} if self.progress else {"phase": "reading"}
        with self.context.sessions.begin() as session:
            seconds = self.context.settings.lease_seconds
            intake.renew(session, self.claimed.claim, seconds, **changes)

    def _transact(self, work: Callable[[Session], T]) -> T:
        return self.lease.transact(self.context.sessions, work)

    def _kill(self) -> None:
        if self.child is not None:
            self.child.signal(signal.SIGKILL)


def read(
    upload: Path,
    folder: Path,
    kind: str | None,
    target: str | None,
    reading: dict[str, Any] | None,
    limits: ReaderLimits,
) -> None:
    """Read the upload into `folder/prepared` and report the outcome in the spool. Runs in the child."""
    from trainkit.data import DataError, prepare
    from trainkit.data.limits import limited

    reader_limits.apply(limits)
    spool = SpoolWriter(folder / "spool")
    reported_at = 0.0

    def report_progress(samples: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= PROGRESS_SECONDS:
            reported_at = time.monotonic()
            spool.write({"type": "progress", "samples": samples})

    try:
        with limited(limits.read):
            facts, report = prepare(
                upload,
                folder / "prepared",
                kind=kind,
                target=target,
                reading=ReadOptions.model_validate(reading or {}),
                progress=report_progress,
            )
        spool.write({"type": "ready", "facts": facts.model_dump(mode="json"), "report": report})
    except DataError as error:
        spool.write({"type": "invalid", **refusal(error)})
    except MemoryError:
        message = f"reading the file needs more memory than a check may use ({limits.read.memory >> 20:,} MiB)"
        error_document = failure("intake_died", message, hint=limits.memory_hint)
        spool.write({"type": "invalid", "error": error_document, "report": None})
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # what was written so far has been removed, so the spool has room for the event
        spool.write({"type": "invalid", "error": disk_full(error), "report": None})
    finally:
        spool.close()


def disk_full(error: OSError) -> dict[str, Any]:
    """Return the error of a file whose prepared form does not fit on the disk."""
    hint = "Free space on the data worker's disk, or set a smaller image_size; then upload the file again."
    return failure("disk_full", f"the disk has no space for the prepared form: {error.strerror or error}", hint=hint)


def refusal(error: Any) -> dict[str, Any]:
    """Return a DataError as the dataset's `error` and `report`."""
    problems = [problem.as_dict() for problem in error.problems]
    first = problems[0]
    message = f"{first['where']}: {first['message']}" if first["where"] else first["message"]
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more problem{'s' if len(problems) > 2 else ''})"
    return {
        "error": {**invalid(first["code"], message, first["hint"]), "evidence": {"problems": problems[:100]}},
        "report": {"errors": problems},
    }


def invalid(code: str, message: str, hint: str) -> dict[str, Any]:
    """The dataset's error."""
    return {"code": code, "layer": "data", "message": message, "evidence": {}, "retryable": False, "hint": hint}


def too_slow(cpu_seconds: int) -> dict[str, Any]:
    """Return the error of a file that takes too long to read."""
    hint = "Make it smaller. Who runs the service can raise TRAINKIT_READER_CPU_SECONDS."
    return failure("too_slow", f"reading the file took more than {cpu_seconds} s of processor time", hint=hint)


def suffix_of(filename: str | None) -> str:
    """Return the suffix: `.tar.gz` of `data.tar.gz`; empty for names without one."""
    found = SUFFIX.search(filename or "")
    return found[0].lower() if found else ""
