"""Send due deliveries, some in parallel, from any number of processes: each delivery has one sender at a time.

All state is in the database, so a restart loses nothing. Delivery is at least once: when a sender dies between the
receiver's answer and its record, the next sender posts the message again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.failpoints import fp
from service.secret_box import SecretBox
from service.webhooks import delivery_queue, repository
from service.webhooks.delivery_queue import ClaimedDelivery
from service.webhooks.target_policy import TargetPolicy
from service.webhooks.transport import Channels, send

log = logging.getLogger(__name__)
MAX_PARALLEL = 8
MAX_PER_PROJECT = 4
MAX_PER_WEBHOOK = 2
"""A slow receiver delays its own messages only, and a project with slow receivers its own."""
POLL_SECONDS = 1.0
DRAIN_SECONDS = 2.0


class DeliverySlot(NamedTuple):
    """What an attempt under way counts against."""

    project_id: str
    webhook_id: str


class Sender:
    """Threads that post, and the loop that claims deliveries for them."""

    def __init__(
        self, sessions: sessionmaker[Session], policy: TargetPolicy, box: SecretBox, channels: Channels
    ) -> None:
        self._sessions, self._policy, self._box, self._channels = sessions, policy, box, channels
        self._changed = threading.Condition()
        self._webhooks: Counter[str] = Counter()
        self._projects: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set; attempts under way then get `DRAIN_SECONDS` to end, and are repeated if they do not."""
        while not stop.is_set():
            try:
                started = self.start_due()
            except DBAPIError as error:
                log.warning("webhook deliveries wait: the database does not answer: %s", error.orig)
                started = 0
            except Exception:
                log.exception("claiming webhook deliveries failed")
                started = 0
            if not started:
                with self._changed:
                    self._changed.wait(POLL_SECONDS)
        self.drain(DRAIN_SECONDS)

    def start_due(self) -> int:
        """Start as many due attempts as the limits allow, of the projects with the fewest under way first."""
        with self._changed:
            free = MAX_PARALLEL - self._webhooks.total()
        if free <= 0:
            return 0
        with reading(self._sessions) as session:
            projects = list(repository.projects_with_due(session))
        random.shuffle(projects)
        started = 0
        while started < free and projects:
            with self._changed:
                projects = [name for name in projects if self._projects[name] < MAX_PER_PROJECT]
                projects.sort(key=self._projects.__getitem__)
            if not projects:
                break
            if self._start_one(projects[0]):
                started += 1
            else:
                projects.pop(0)
        return started

    def _start_one(self, project_id: str) -> bool:
        """Claim a due delivery of the project and begin its attempt; False when none may begin."""
        with self._changed:
            busy_webhooks = [name for name, count in self._webhooks.items() if count >= MAX_PER_WEBHOOK]
        with reading(self._sessions) as session:
            waiting = repository.due(session, project_id, MAX_PER_PROJECT, busy_webhooks)
        for delivery_id, fence, webhook_id in waiting:
            slot = DeliverySlot(project_id, webhook_id)
            if not self._reserve(slot):
                continue
            claimed = None
            try:
                with self._sessions.begin() as session:
                    claimed = delivery_queue.claim(session, delivery_id, fence, self._box)
            finally:
                if claimed is None:
                    self._release(slot)
            if claimed is not None:
                threading.Thread(target=self._deliver, args=(claimed, slot), daemon=True).start()
                return True
        return False

    def drain(self, seconds: float) -> bool:
        """Wait until no attempt is under way; False when the time is over before."""
        end = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._webhooks.total(), max(0.0, end - time.monotonic()))

    def _deliver(self, claimed: ClaimedDelivery, slot: DeliverySlot) -> None:
        try:
            fp("before_webhook_send")
            result = send(self._policy, claimed, self._channels)
            fp("after_webhook_send")
            with self._sessions.begin() as session:
                state = delivery_queue.record(session, claimed, result)
            log.info("webhook=%s delivery=%s %s", claimed.webhook_id, claimed.claim.id, result.error or state)
        except DBAPIError as error:
            # the claim expires, and the message is sent again
            log.warning("delivery=%s cannot be recorded: %s", claimed.claim.id, error.orig)
        except Exception:
            log.exception("delivery=%s failed", claimed.claim.id)
        finally:
            self._release(slot)

    def _reserve(self, slot: DeliverySlot) -> bool:
        with self._changed:
            full = (
                self._webhooks[slot.webhook_id] >= MAX_PER_WEBHOOK or self._projects[slot.project_id] >= MAX_PER_PROJECT
            )
            if not full:
                self._webhooks[slot.webhook_id] += 1
                self._projects[slot.project_id] += 1
            return not full

    def _release(self, slot: DeliverySlot) -> None:
        with self._changed:
            self._webhooks[slot.webhook_id] -= 1
            self._projects[slot.project_id] -= 1
            for counts in (self._webhooks, self._projects):
                for name in [name for name, count in counts.items() if not count]:
                    del counts[name]
            self._changed.notify_all()
