"""Copy a registered file into storage and hash it; then it is checked like any upload."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError

from service import quota
from service.datasets import intake
from service.datasets import repository as datasets
from service.datasets.intake import ClaimedSource
from service.datasets.receive import Received
from service.datasets.sources import is_object, open_source
from service.errors import HttpProblem
from service.leases import StaleFence
from worker import s3, shutdown
from worker.background_io import run_in_background
from worker.context import WorkerContext
from worker.lease import Lease, LeaseLost
from worker.metrics import FENCED
from worker.processes import ForkedProcess, fork
from worker.spool import SpoolReader

log = logging.getLogger(__name__)
CHUNK_BYTES = 4 << 20
ATTEMPTS = 5


class FetchStopped(Exception):  # noqa: N818 - a fact, not a failure
    """The worker stops, or the lease is lost."""


def fetch(context: WorkerContext, claimed: ClaimedSource, begun: float) -> None:
    """Copy a claimed file. Returns without a write once another worker has it."""
    try:
        Fetch(context, claimed, begun).run()
    except (StaleFence, LeaseLost) as error:
        FENCED.inc(isinstance(error, StaleFence))
        log.warning("dataset=%s fetch dropped: %s", claimed.dataset_id, type(error).__name__)


class Fetch:
    """One copy of one file."""

    def __init__(self, context: WorkerContext, claimed: ClaimedSource, begun: float) -> None:
        settings = context.settings
        self.context, self.claimed, self.copied = context, claimed, 0
        self.part = context.storage.new_part()
        self.stop = threading.Event()
        self.folder = settings.scratch / f"fetch-{claimed.dataset_id}-{claimed.claim.fence}"
        self.child: ForkedProcess | None = None
        self.lease = Lease(settings.lease_seconds, settings.heartbeat_seconds, begun, self._renew, self._stop_work)

    def run(self) -> None:
        """Fetch the file: from the claim to `validating` or `invalid`."""
        identifier, claim = self.claimed.dataset_id, self.claimed.claim
        try:
            with self.lease:
                try:
                    received = (
                        self._download() if is_object(self.claimed.uri) else run_in_background(self._copy, self._tick)
                    )
                except FetchStopped:
                    self.lease.check()
                    self._transact(lambda session: intake.renew_source(session, claim, 0.0))
                except s3.ObjectUnavailableError as failed:
                    self._refuse(failed.code, failed.message, failed.hint, failed.retryable, failed.evidence)
                except HttpProblem as problem:
                    self._refuse(problem.code, problem.detail)
                except OSError as error:
                    self._refuse("file_unreadable", f"the file cannot be read: {error.strerror}")
                else:
                    self._transact(lambda session: intake.fetched(session, self.context.storage, claim, received))
                    log.info("dataset=%s fetched: %s bytes", identifier, received.bytes)
            self.context.doorbell.ring("data")
        finally:
            if self.child is not None:
                self.child.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.part.unlink(missing_ok=True)

    def _copy(self) -> Received:
        limit, digest = self.context.settings.max_upload_bytes, hashlib.sha256()
        roots = self.context.settings.file_roots
        with open_source(self.claimed.uri, roots) as source, Path(self.part).open("xb") as target:
            while chunk := source.read(CHUNK_BYTES):
                if self.stop.is_set():
                    raise FetchStopped
                self.copied += len(chunk)
                if self.copied > limit:
                    raise HttpProblem(413, "too_large", f"the file has more than {limit} bytes", limit_bytes=limit)
                target.write(chunk)
                digest.update(chunk)
            target.flush()
            os.fsync(target.fileno())
        return Received(self.part, digest.hexdigest(), self.copied)

    def _download(self) -> Received:
        """Copy an S3 object in a child, which can be killed at once together with the library's threads."""
        settings, uri, cloud = self.context.settings, self.claimed.uri, s3.cloud_settings()
        self.folder.mkdir(parents=True, mode=0o700)
        reader, part = SpoolReader(self.folder / "spool"), Path(self.part)
        self.context.engine.dispose()
        limit = settings.max_upload_bytes
        self.child = fork(
            lambda: s3.download(uri, settings.s3_buckets, limit, part, reader.path, cloud),
            log=self.folder / "log.txt",
        )
        while True:
            ended = self.child.poll()
            self.copied = part.stat().st_size if part.exists() else 0
            for event in reader.read():
                kind = event.pop("type")
                if kind == "size":
                    self._transact(lambda session: self._reserve(session, event["bytes"]))  # noqa: B023 - at once
                elif kind == "failed":
                    code, message, hint = event["code"], event["message"], event["hint"]
                    failed = s3.ObjectUnavailableError(code, message, hint, retryable=event["retryable"])
                    failed.evidence = event["evidence"]
                    raise failed
                else:
                    return Received(self.part, event["sha256"], event["bytes"])
            if ended is not None:
                log.warning("dataset=%s copying ended with %s", self.claimed.dataset_id, ended.status)
                hint = "Look at the data worker's disk and memory, and register it again."
                raise s3.ObjectUnavailableError(
                    "s3_unreadable", "the copying process ended without a result", hint, retryable=True
                )
            self._tick()
            if self.stop.is_set():
                raise FetchStopped
            self.child.sleep(0.1)

    def _reserve(self, session: Any, size: int) -> None:
        """Count the object against the project's quota from now on. Raises 413 problems, StaleFence."""
        claim = self.claimed.claim
        intake.renew_source(session, claim, self.context.settings.lease_seconds)
        dataset = datasets.by_id(session, claim.id)
        datasets.set_bytes(session, dataset, 0)  # what an earlier attempt reserved does not count twice
        quota.check(session, self.context.settings, dataset.project_id, size)
        datasets.set_bytes(session, dataset, size)

    def _stop_work(self) -> None:
        self.stop.set()
        if self.child is not None:
            self.child.signal(signal.SIGKILL)

    def _tick(self) -> None:
        if shutdown.requested():
            self.stop.set()
        self.lease.tick()

    def _renew(self) -> None:
        progress = {"bytes": self.copied}
        with self.context.sessions.begin() as session:
            seconds = self.context.settings.lease_seconds
            intake.renew_source(session, self.claimed.claim, seconds, progress)

    def _refuse(
        self,
        code: str,
        message: str,
        hint: str = "Correct it, and register it again.",
        retryable: bool = False,
        evidence: dict[str, Any] | None = None,
    ) -> None:
        error: dict[str, Any] = {"code": code, "layer": "data", "message": message, "evidence": evidence or {}}
        error |= {"retryable": retryable, "hint": hint}
        self._transact(lambda session: intake.not_fetched(session, self.claimed.claim, error))
        log.info("dataset=%s not fetched: %s", self.claimed.dataset_id, message)

    def _transact(self, work: Any) -> Any:
        def once() -> Any:
            for _ in range(ATTEMPTS):
                try:
                    with self.context.sessions.begin() as session:
                        return work(session)
                except IntegrityError:  # another upload stored the same bytes meanwhile
                    continue
            raise StaleFence(self.claimed.dataset_id)

        return self.lease.keep_trying(once)
