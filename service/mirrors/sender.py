"""Copy what is due to mirrors, some in parallel, from any number of processes: each copy has one sender at a time.

All state is in the database, so a restart loses nothing. It runs where webhooks are sent: a slow or dead mirror takes
threads of this alone, and of these a project has a part.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from service.context import Context
from service.database import db_time, reading
from service.leases import Claim, StaleFence
from service.mirrors import repository
from service.mirrors.copying import ClaimedCopy, copy_job
from service.mirrors.rest_client import MirrorError
from service.mirrors.writers import writer_of
from service.outbox.tables import Mirror
from service.secret_box import SecretBox, SecretKeyError
from service.webhooks.delivery_queue import count_host_failure
from service.webhooks.repository import close_circuit, pass_circuit
from service.webhooks.target_policy import TargetPolicy

log = logging.getLogger(__name__)
MAX_PARALLEL = 4
MAX_PER_PROJECT = 2
POLL_SECONDS = 1.0
LIVE_SECONDS = 2.0
"""How long the rows of a running job may wait, so that each request carries many of them."""
DRAIN_SECONDS = 2.0
RETRY_SECONDS = (5, 30, 120, 600, 1800, 3600)
"""Delay after the first failed attempt, the second ...; the last one from then on."""
JITTER = 0.1
MAX_FAILURES = 170
"""Failed attempts in a row, about a week of them, after which a copy is given up."""


class CopySlot(NamedTuple):
    """What a copy under way counts against."""

    project_id: str
    mirror_id: str
    job_id: str


class MirrorSender:
    """Threads that copy, and the loop that claims copies for them."""

    def __init__(self, context: Context, policy: TargetPolicy, box: SecretBox) -> None:
        self._context, self._policy, self._box = context, policy, box
        self._changed = threading.Condition()
        self._busy: set[CopySlot] = set()

    def run(self, stop: threading.Event) -> None:
        """Copy until `stop` is set; copies under way then get `DRAIN_SECONDS` to end, and are repeated if they do not."""
        while not stop.is_set():
            started = 0
            try:
                started = self.start_due()
            except DBAPIError as error:
                log.warning("mirrors wait: the database does not answer: %s", error.orig)
            except Exception:
                log.exception("claiming copies for mirrors failed")
            if not started:
                with self._changed:
                    self._changed.wait(POLL_SECONDS)
        self.drain(DRAIN_SECONDS)

    def start_due(self) -> int:
        """Start as many due copies as the limits allow, in the order of chance between mirrors."""
        started = 0
        with reading(self._context.sessions) as session:
            mirrors = list(repository.mirrors_with_due(session))
        random.shuffle(mirrors)
        for mirror_id, project_id in mirrors:
            while self._is_free(project_id) and self._start_one(mirror_id, project_id):
                started += 1
        return started

    def _is_free(self, project_id: str) -> bool:
        with self._changed:
            of_project = sum(slot.project_id == project_id for slot in self._busy)
            return len(self._busy) < MAX_PARALLEL and of_project < MAX_PER_PROJECT

    def _start_one(self, mirror_id: str, project_id: str) -> bool:
        """Claim a due copy of the mirror and begin it; False when none may begin."""
        with self._changed:
            busy = [slot.job_id for slot in self._busy if slot.mirror_id == mirror_id]
        with reading(self._context.sessions) as session:
            waiting = repository.due(session, mirror_id, MAX_PER_PROJECT, busy)
        for job_id, fence in waiting:
            with self._context.sessions.begin() as session:
                mirror = repository.mirror_of(session, mirror_id)
                claimed = repository.claim(session, mirror_id, job_id, fence)
                if claimed is None:
                    continue
                if not pass_circuit(session, project_id, mirror.host):
                    claimed.claimed_until = None  # another sender has the attempt that decides
                    return False
                position, claim = dict(claimed.position), Claim(job_id, claimed.fence)
                cursors = (claimed.external_id, claimed.metric_seq, claimed.event_seq)
                copy = ClaimedCopy(mirror_id, claim, *cursors, position, mirror.artifacts, claimed.failures)
                session.expunge(mirror)
            slot = CopySlot(project_id, mirror_id, job_id)
            with self._changed:
                self._busy.add(slot)
            threading.Thread(target=self._copy, args=(mirror, copy, slot), daemon=True).start()
            return True
        return False

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is under way; False when the time is over before."""
        end = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, max(0.0, end - time.monotonic()))

    def _copy(self, mirror: Mirror, copy: ClaimedCopy, slot: CopySlot) -> None:
        try:
            error = self._attempt(mirror, copy)
            self._record(mirror, copy, error)
            if error is not None:
                log.warning("mirror=%s job=%s %s", mirror.id, copy.claim.id, error)
        except StaleFence:
            log.info("mirror=%s job=%s another sender has it", mirror.id, copy.claim.id)
        except DBAPIError as error:
            # the claim expires, and the last request is repeated
            log.warning("mirror=%s job=%s cannot be recorded: %s", mirror.id, copy.claim.id, error.orig)
        except Exception:
            log.exception("mirror=%s job=%s failed", mirror.id, copy.claim.id)
        finally:
            with self._changed:
                self._busy.discard(slot)
                self._changed.notify_all()

    def _attempt(self, mirror: Mirror, copy: ClaimedCopy) -> MirrorError | None:
        try:
            writer = writer_of(mirror, copy.claim.id, self._context.settings, self._policy, self._box)
            copy_job(self._context, writer, copy)
        except MirrorError as error:
            return error
        except SecretKeyError as error:
            return MirrorError(
                f"nothing was sent: the mirror's token cannot be used, {error}. PATCH it with a new one."
            )
        except (StaleFence, DBAPIError):
            raise
        except Exception as error:
            # a defect counts as a failed attempt, so that nothing is tried for ever without a pause
            log.exception("mirror=%s job=%s cannot be copied", mirror.id, copy.claim.id)
            return MirrorError(f"nothing was sent: {type(error).__name__}", status=400)
        return None

    def _record(self, mirror: Mirror, copy: ClaimedCopy, error: MirrorError | None) -> None:
        with self._context.sessions.begin() as session:
            now, values = db_time(session), {}
            if error is None:
                state = "complete" if copy.complete else "pending"
                values = {"state": state, "failures": 0, "error": None, "last_success_at": now}
                values["next_attempt_at"] = None if copy.complete else now + timedelta(seconds=LIVE_SECONDS)
                close_circuit(session, mirror.project_id, mirror.host)
            else:
                failures = copy.failures + 1
                delay = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)
                given_up = error.final or failures >= MAX_FAILURES
                values = {"state": "failed" if given_up else "pending", "failures": failures, "error": str(error)}
                values["next_attempt_at"] = None if given_up else now + timedelta(seconds=delay)
                if error.is_outage:
                    count_host_failure(session, mirror.project_id, mirror.host)
                else:
                    close_circuit(session, mirror.project_id, mirror.host)
            repository.save(session, copy.mirror_id, copy.claim, None, **values)
