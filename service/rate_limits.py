"""Token buckets in memory: so many at once, then so many a minute. One number for each name that is not full again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MINUTE = 60


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket after a request."""

    limit: int
    """Requests a minute, and so many at once after a pause."""
    remaining: int
    full_seconds: float
    """Until `remaining` is `limit` again."""
    wait_seconds: float = 0.0
    """Until the next request is let in; 0 for one that was."""

    @property
    def allowed(self) -> bool:
        """Whether this request was let in."""
        return not self.wait_seconds

    @property
    def retry_after(self) -> int:
        """`wait_seconds` as HTTP has it, whole and no less."""
        return max(1, math.ceil(self.wait_seconds))


@dataclass(slots=True)
class Spending:
    """What was taken out of a bucket since it was told last, in seconds that it takes to come back."""

    seconds: float
    since: float
    """When the first of it was taken."""


class RateLimiter:
    """Buckets by name. A bucket is kept as the time at which it is full again (the generic cell rate algorithm).

    `spent` and `learn` let several processes share buckets; one thread may call them while another one takes.
    """

    def __init__(self, most_names: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_names, self._clock = most_names, clock
        self._full_at: dict[str, float] = {}
        self._spent: dict[str, Spending] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: str, limit: int) -> RateLimit:
        """Take one out of a bucket, if it has one."""
        return self._after(name, limit, 1)

    def look(self, name: str, limit: int) -> RateLimit:
        """Return what a bucket has, and whether the next one would be let in; nothing is taken."""
        return self._after(name, limit, 0)

    def _after(self, name: str, limit: int, count: int) -> RateLimit:
        now, each = self._clock(), MINUTE / limit
        missing = max(0.0, self._full_at.get(name, now) - now)
        wait = missing + each - MINUTE
        if wait > 1e-9:
            return RateLimit(limit, 0, missing, wait)
        if count:
            missing += each
            self._keep(name, now + missing, now)
            spending = self._spent.get(name)
            if spending is None:
                self._spent[name] = Spending(each, now)
            else:
                spending.seconds += each
        return RateLimit(limit, max(0, math.floor((MINUTE - missing) / each + 1e-6)), missing)

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return what was taken since the last call: name -> (seconds until it is back, how long ago the first was)."""
        taken, self._spent, now = self._spent, {}, self._clock()
        return {name: (one.seconds, now - one.since) for name, one in taken.items()}

    def learn(self, missing: Mapping[str, float]) -> None:
        """Lower buckets to what all processes have left of them: name -> seconds until it is full again."""
        now = self._clock()
        for name, seconds in missing.items():
            taken = self._spent.get(name)
            full_at = now + seconds + (taken.seconds if taken is not None else 0.0)
            if full_at > self._full_at.get(name, now):
                self._keep(name, full_at, now)

    def _keep(self, name: str, full_at: float, now: float) -> None:
        if name not in self._full_at and len(self._full_at) >= self._most_names:
            self._full_at = {other: time_ for other, time_ in self._full_at.items() if time_ > now}
            while len(self._full_at) >= self._most_names:  # the oldest ones: they have most of their bucket back
                oldest = next(iter(self._full_at))
                del self._full_at[oldest]
                self._spent.pop(oldest, None)
        self._full_at[name] = full_at
