"""Requests a minute of a key, counted by all API processes together.

Each process decides by what it knows, without a round trip, and tells Redis in the background what it let through; the
answer is what the key has left with all processes. So a key can go beyond its limit by what it sends in SHARE_SECONDS to
the other processes, once: what is too much is missing afterwards. While Redis is away, or the broker is another one, each
process counts for itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import anyio
from anyio import to_thread

from service.doorbell import Doorbell
from service.rate_limits import RateLimiter

log = logging.getLogger(__name__)
SHARE_SECONDS = 0.25
REST_SECONDS = 5.0
"""After Redis did not answer, it is not asked for so long."""
MAX_NAMES = 500
"""Buckets of one call: Redis does nothing else meanwhile."""
PREFIX = "trainkit:rate:"
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local answer = {}
for i, key in ipairs(KEYS) do
  local full_at = tonumber(redis.call('GET', key) or 0)
  full_at = math.max(full_at, now - tonumber(ARGV[2 * i])) + tonumber(ARGV[2 * i - 1])
  if full_at > now then
    redis.call('SET', key, string.format('%.6f', full_at), 'PX', math.ceil((full_at - now) * 1000) + 1)
  end
  answer[i] = string.format('%.6f', full_at - now)
end
return answer
"""
"""The generic cell rate algorithm by Redis's clock. ARGV: of each bucket what was taken, and how long ago it began."""


async def share_rates(limiter: RateLimiter, doorbell: Doorbell) -> None:
    """Exchange what was taken with the other processes, every SHARE_SECONDS, until cancelled."""
    shared = SharedRates(doorbell)
    while True:
        await anyio.sleep(SHARE_SECONDS)
        taken = limiter.spent()
        if taken:
            limiter.learn(await to_thread.run_sync(shared.exchange, taken))


class SharedRates:
    """The buckets of all processes, in the Redis that is the broker. For one thread at a time."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._connection: Any = None
        self._resting_until = 0.0
        self._away = False

    def exchange(self, taken: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Tell what was taken, as `RateLimiter.spent` has it; returns what is missing of these buckets with all processes.

        Nothing while Redis is away: what was taken meanwhile stays with the process that let it through. Never raises.
        """
        if time.monotonic() < self._resting_until:
            return {}
        try:
            missing = self._exchange(list(taken.items()))
        except Exception as error:  # the broker's client raises many kinds, and none may end the sharing
            if not self._away:
                log.warning("each API process counts requests a minute for itself while Redis is away: %s", error)
            self._away, self._resting_until = True, time.monotonic() + REST_SECONDS
            self.close()
            return {}
        self._away = False
        return missing

    def _exchange(self, taken: list[tuple[str, tuple[float, float]]]) -> dict[str, float]:
        if self._connection is None:
            self._connection = self._doorbell.connection()
        client = getattr(self._connection.default_channel, "client", None)
        if client is None or not hasattr(client, "eval"):  # RabbitMQ
            self._resting_until = float("inf")
            return {}
        missing: dict[str, float] = {}
        for start in range(0, len(taken), MAX_NAMES):
            some = taken[start : start + MAX_NAMES]
            keys = [PREFIX + name for name, _ in some]
            numbers = [f"{number:.6f}" for _, pair in some for number in pair]
            answer = client.eval(SCRIPT, len(keys), *keys, *numbers)
            missing |= {name: float(seconds) for (name, _), seconds in zip(some, answer, strict=True)}
        return missing

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
