"""A limit on guessing: how often one address, and all together, may present a key or a session that turns out to be wrong.

Each guess costs a read of the database in a thread. Beyond the limit it is looked for among the hashes of all keys and
sessions in use, which are read anew at most every REREAD_SECONDS: a wrong one then costs nothing, and a right one is let
in whoever guesses from the same address.
"""

from __future__ import annotations

import math
import time

from anyio import to_thread
from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.errors import HttpProblem
from service.keys.service import hashes_in_use
from service.rate_limits import RateLimiter
from service.users.service import session_hashes_in_use

ALL_ADDRESSES = 20
"""So many times the limit of one address is that of all together."""
EVERYBODY = "*"
REREAD_SECONDS = 2.0
"""For so long a new key may be refused where somebody guesses."""


class WrongKeys:
    """Counts wrong keys by address, in bounded memory."""

    def __init__(self, sessions: sessionmaker[Session], per_minute: int) -> None:
        self._sessions, self._per_minute = sessions, per_minute
        self._rates = RateLimiter()
        self._hashes: frozenset[str] = frozenset()
        self._read_at = -math.inf

    async def check(self, address: str, digest: str) -> None:
        """Raise a 429 problem where too many wrong keys came from the address, or in all, unless this one is in use.

        `digest` is what the database holds of the key or of the session's token.
        """
        if not self._per_minute:
            return
        rates = (self._rates.look(name, most) for name, most in self._buckets(address))
        wait = max(rate.retry_after if not rate.allowed else 0 for rate in rates)
        if wait and digest not in await self._hashes_in_use():
            raise too_many_wrong_keys(wait)

    def check_address(self, address: str) -> None:
        """Raise a 429 problem where too many wrong keys came from the address: for what is no key, such as a ticket."""
        if self._per_minute and not (rate := self._rates.look(address, self._per_minute)).allowed:
            raise too_many_wrong_keys(rate.retry_after)

    def count(self, address: str) -> None:
        """Count a wrong key."""
        if self._per_minute:
            for name, most in self._buckets(address):
                self._rates.take(name, most)

    def _buckets(self, address: str) -> tuple[tuple[str, int], ...]:
        return (address, self._per_minute), (EVERYBODY, ALL_ADDRESSES * self._per_minute)

    async def _hashes_in_use(self) -> frozenset[str]:
        now = time.monotonic()
        if now - self._read_at > REREAD_SECONDS:
            self._read_at = now  # one reads, others go on with what is known
            self._hashes = await to_thread.run_sync(self._read)
        return self._hashes

    def _read(self) -> frozenset[str]:
        with reading(self._sessions) as session:
            return hashes_in_use(session) | session_hashes_in_use(session)


def too_many_wrong_keys(wait: int) -> HttpProblem:
    """429: the key was not looked at."""
    detail = (
        "Too many wrong keys came from this address, or in all; this one is not known as a right one and was not looked "
        f"up. Correct the key, and try again in {wait} s."
    )
    return HttpProblem(429, "too_many_wrong_keys", detail, headers={"Retry-After": str(wait)})
