"""Keep a lease while work is done, and stop the work when the lease cannot be kept."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from worker.metrics import RENEWALS

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)
# The child is killed this share of the lease before its end, so that nobody else can have begun.
MARGIN = 0.1
RETRY_SECONDS = 0.5


class LeaseLost(Exception):  # noqa: N818 - a fact, not a failure
    """The lease ran out before the database could be reached: someone else may have the work now."""


class Lease(Generic[T]):
    """Renews every `heartbeat` seconds. While the database is away it tries on, until the lease is nearly over.

    The time is measured by our monotonic clock from before the last renewal was sent, so it never overestimates. A
    timer signal does the killing (`on_loss`), because a call that hangs must not keep the work alive.
    """

    def __init__(
        self, seconds: float, heartbeat: float, begun: float, renew: Callable[[], T], on_loss: Callable[[], None]
    ) -> None:
        self.seconds = seconds
        self.heartbeat = heartbeat
        self.lost = False
        self._loss_counted = False
        self._renew = renew
        self._on_loss = on_loss
        self._due = begun + heartbeat
        self._deadline = begun + seconds * (1 - MARGIN)

    def __enter__(self) -> Lease[T]:
        self._before = signal.signal(signal.SIGALRM, self._alarm)
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def tick(self) -> T | None:
        """Renew when it is due and return the renewal's answer, else None. Raises LeaseLost, and what `renew` raises."""
        self.check()
        begun = time.monotonic()
        if begun < self._due:
            return None
        try:
            answer = self._renew()
        except DBAPIError as error:
            log.warning("the database is away, the lease has %.1f s left: %s", self._deadline - begun, error.orig)
            RENEWALS.labels("database_away").inc()
            self._due = begun + min(RETRY_SECONDS, self.heartbeat)
            return None
        RENEWALS.labels("renewed").inc()
        self.check()
        self._due = begun + self.heartbeat
        self._deadline = begun + self.seconds * (1 - MARGIN)
        self._arm()
        return answer

    def check(self) -> None:
        """Raises LeaseLost once the lease is over."""
        if self.lost or time.monotonic() >= self._deadline:
            self._alarm(signal.SIGALRM, None)
            self._count_loss()
            raise LeaseLost

    def keep_trying(self, work: Callable[[], R]) -> R:
        """Run `work`, again while the database is away and the lease lasts."""
        while True:
            try:
                return work()
            except DBAPIError as error:
                log.warning("the database is away: %s", error.orig)
                time.sleep(RETRY_SECONDS)
                self.tick()

    def transact(self, sessions: sessionmaker[Session], work: Callable[[Session], R]) -> R:
        """Run `work` in one transaction, again while the database is away and the lease lasts."""

        def run_once() -> R:
            with sessions.begin() as session:
                return work(session)

        return self.keep_trying(run_once)

    def _count_loss(self) -> None:
        # not in the alarm: a signal may come while a counter is being written, and its lock is held
        if not self._loss_counted:
            self._loss_counted = True
            RENEWALS.labels("lost").inc()

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(self._deadline - time.monotonic(), 1e-3))

    def _alarm(self, _number: int, _frame: FrameType | None) -> None:
        if not self.lost:
            self.lost = True
            self._on_loss()
