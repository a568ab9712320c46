"""Copy a registered file into storage, hashed on the way; then it is checked like any upload."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError

from service.datasets import intake
from service.datasets.intake import ClaimedSource
from service.datasets.receive import Received
from service.datasets.sources import open_source
from service.errors import Problem
from service.leases import StaleFence
from worker import shutdown
from worker.aside import aside
from worker.context import Context
from worker.lease import Lease, LeaseLost

log = logging.getLogger(__name__)
PIECE = 4 << 20
TRIES = 5


class Stopped(Exception):  # noqa: N818 - a fact, not a failure
    """The worker stops, or the lease is lost."""


def claim_and_fetch(context: Context) -> bool:
    """Take the oldest registered file that is not stored yet and copy it; False when none is waiting."""
    begun = time.monotonic()
    with context.sessions.begin() as session:
        claimed = intake.claim_source(session, context.owner, context.settings.lease_seconds)
    if claimed is None:
        return False
    try:
        Fetch(context, claimed, begun).run()
    except (StaleFence, LeaseLost) as error:
        log.warning("dataset=%s letting go: %s", claimed.dataset_id, type(error).__name__)
    return True


class Fetch:
    """One copy of one file."""

    def __init__(self, context: Context, claimed: ClaimedSource, begun: float) -> None:
        settings = context.settings
        self.context, self.claimed, self.copied = context, claimed, 0
        self.part = context.storage.new_part()
        self.stop = threading.Event()
        self.lease = Lease(settings.lease_seconds, settings.heartbeat_seconds, begun, self._renew, self.stop.set)

    def run(self) -> None:
        """From the claim to `validating` or `invalid`."""
        identifier, fence = self.claimed.dataset_id, self.claimed.fence
        try:
            with self.lease:
                try:
                    received = aside(self._copy, self._meanwhile)
                except Stopped:
                    self.lease.check()
                    self._transact(lambda session: intake.renew_source(session, identifier, fence, 0.0))
                except Problem as problem:
                    self._refuse(problem.code, problem.detail)
                except OSError as error:
                    self._refuse("file_unreadable", f"the file cannot be read: {error.strerror}")
                else:
                    self._transact(
                        lambda session: intake.fetched(session, self.context.storage, identifier, fence, received)
                    )
                    log.info("dataset=%s fetched: %s bytes", identifier, received.bytes)
            self.context.doorbell.ring("data")
        finally:
            self.part.unlink(missing_ok=True)

    def _copy(self) -> Received:
        limit, digest = self.context.settings.max_upload_bytes, hashlib.sha256()
        roots = self.context.settings.file_roots
        with open_source(self.claimed.uri, roots) as source, Path(self.part).open("xb") as target:
            while piece := source.read(PIECE):
                if self.stop.is_set():
                    raise Stopped
                self.copied += len(piece)
                if self.copied > limit:
                    raise Problem(413, "too_large", f"the file has more than {limit} bytes", limit_bytes=limit)
                target.write(piece)
                digest.update(piece)
            target.flush()
            os.fsync(target.fileno())
        return Received(self.part, digest.hexdigest(), self.copied)

    def _meanwhile(self) -> None:
        if shutdown.asked():
            self.stop.set()
        self.lease.tick()

    def _renew(self) -> None:
        progress = {"bytes": self.copied}
        with self.context.sessions.begin() as session:
            seconds = self.context.settings.lease_seconds
            intake.renew_source(session, self.claimed.dataset_id, self.claimed.fence, seconds, progress)

    def _refuse(self, code: str, message: str) -> None:
        hint = "Put it right, and register it again."
        error = {"code": code, "layer": "data", "message": message, "evidence": {}, "retryable": False, "hint": hint}
        self._transact(lambda session: intake.not_fetched(session, self.claimed.dataset_id, self.claimed.fence, error))
        log.info("dataset=%s not fetched: %s", self.claimed.dataset_id, message)

    def _transact(self, work: Any) -> Any:
        def once() -> Any:
            for _ in range(TRIES):
                try:
                    with self.context.sessions.begin() as session:
                        return work(session)
                except IntegrityError:  # the same bytes came from elsewhere at the same moment: look again
                    continue
            raise StaleFence(self.claimed.dataset_id)

        return self.lease.keep_trying(once)
