"""Sends what is due, some at once, from any number of processes: each message has one sender at a time.

All that has to be known is in the database, so a restart forgets nothing. A receiver gets a message at least once: of a
sender that dies between the answer and its note, the next one cannot know that it was answered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.failpoints import fp
from service.webhooks import delivery_queue
from service.webhooks.delivery_queue import Claimed
from service.webhooks.target_policy import Targets
from service.webhooks.transport import send

log = logging.getLogger(__name__)
AT_ONCE = 8
AT_ONCE_A_PROJECT = 4
AT_ONCE_A_WEBHOOK = 2
"""A receiver that is slow keeps its own messages waiting, and a project its own: never all the others."""
LOOK_SECONDS = 1.0
PARTING_SECONDS = 2.0


class Sender:
    """A few threads that post, and the look-out that gives them work."""

    def __init__(self, sessions: sessionmaker[Session], targets: Targets) -> None:
        self._sessions, self._targets = sessions, targets
        self._changed = threading.Condition()
        self._webhooks: Counter[str] = Counter()
        self._projects: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; what is under way then gets a moment to end, and is sent again if it does not."""
        while not stop.is_set():
            try:
                begun = self.fill()
            except DBAPIError as error:
                log.warning("the database is away: %s", error.orig)
                begun = 0
            except Exception:
                log.exception("a look for webhook deliveries failed")
                begun = 0
            if not begun:
                with self._changed:
                    self._changed.wait(LOOK_SECONDS)
        self.settle(PARTING_SECONDS)

    def fill(self) -> int:
        """Begin as many attempts as are due and as there is room for; returns how many."""
        with self._changed:
            room = AT_ONCE - self._webhooks.total()
            busy_webhooks = [name for name, count in self._webhooks.items() if count >= AT_ONCE_A_WEBHOOK]
            busy_projects = [name for name, count in self._projects.items() if count >= AT_ONCE_A_PROJECT]
        if room <= 0:
            return 0
        with reading(self._sessions) as session:
            waiting = delivery_queue.due(session, AT_ONCE, busy_webhooks, busy_projects)
        begun = 0
        for delivery_id, fence, webhook_id, project_id in waiting:
            if begun == room:
                break
            if not self._enter(webhook_id, project_id):
                continue
            claimed = None
            try:
                with self._sessions.begin() as session:
                    claimed = delivery_queue.claim(session, delivery_id, fence)
            finally:
                if claimed is None:
                    self._leave(webhook_id, project_id)
            if claimed is not None:
                begun += 1
                work = threading.Thread(target=self._deliver, args=(claimed, project_id), daemon=True)
                work.start()
        return begun

    def settle(self, seconds: float) -> bool:
        """Wait until nothing is under way; False when the time is over before."""
        end = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._webhooks.total(), max(0.0, end - time.monotonic()))

    def _deliver(self, claimed: Claimed, project_id: str) -> None:
        try:
            fp("before_webhook_send")
            outcome = send(self._targets, claimed)
            fp("after_webhook_send")
            with self._sessions.begin() as session:
                state = delivery_queue.record(session, claimed, outcome)
            log.info("webhook=%s delivery=%s %s", claimed.webhook_id, claimed.delivery_id, outcome.error or state)
        except DBAPIError as error:
            # the claim ends by itself, and the message is sent again
            log.warning("delivery=%s cannot be noted: %s", claimed.delivery_id, error.orig)
        except Exception:
            log.exception("delivery=%s failed", claimed.delivery_id)
        finally:
            self._leave(claimed.webhook_id, project_id)

    def _enter(self, webhook_id: str, project_id: str) -> bool:
        with self._changed:
            full = self._webhooks[webhook_id] >= AT_ONCE_A_WEBHOOK or self._projects[project_id] >= AT_ONCE_A_PROJECT
            if not full:
                self._webhooks[webhook_id] += 1
                self._projects[project_id] += 1
            return not full

    def _leave(self, webhook_id: str, project_id: str) -> None:
        with self._changed:
            for counts, name in ((self._webhooks, webhook_id), (self._projects, project_id)):
                counts[name] -= 1
                if not counts[name]:
                    del counts[name]
            self._changed.notify_all()
