"""Which requests are repeated, and when: full jitter, `Retry-After`, and never what might be carried out twice."""

from __future__ import annotations

import random
import re
import time
from email.utils import parsedate_to_datetime

import httpx

from trainkit_client.errors import BadResponse, TooManyRequests, TrainkitError, Unreachable, problem_of

RETRIED = frozenset({429, 502, 503, 504})
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
"""Seconds: pauses are drawn from 0 to `FIRST_PAUSE * 2**n`, at most `LONGEST_PAUSE`."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds that `Retry-After` may ask for; a request that is to wait longer fails at once."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors of a request that no service has seen."""
KEYED_POSTS = re.compile(
    r"/v1/(jobs|experiments|jobs/[^/]+/(fork|resume|retry)|jobs/[^/]+/diagnosis:investigate)", re.ASCII
)
"""POSTs that the service carries out once for one `Idempotency-Key`."""
HARMLESS_POSTS = re.compile(
    r"/v1/(specs:[a-z-]+|jobs:(stop|cancel|delete|label)|jobs/[^/]+/(stop|cancel|pause|decisions:simulate)"
    r"|experiments/[^/]+/stop|models/[^/]+/(predict|evaluate)|datasets/[^/]+/augmentation-preview\.png"
    r"|datasets/[^/]+:reread|uploads)",
    re.ASCII,
)
"""POSTs that change nothing, or whose repetition changes nothing more."""


def is_repeatable(method: str, path: str) -> bool:
    """Whether a request may be sent again although the first one may have been carried out.

    A PATCH of JSON is a merge patch (RFC 7396), which gives the same when it is applied twice; that of an upload is not.
    """
    if method == "POST":
        return bool(KEYED_POSTS.fullmatch(path) or HARMLESS_POSTS.fullmatch(path))
    return method in SAFE_METHODS or (method == "PATCH" and not path.startswith("/v1/uploads/"))


def may_retry_response(status: int, method: str, path: str) -> bool:
    """Whether to repeat a request after this status: 429 says that nothing was done, the others do not."""
    return status in RETRIED and (status == 429 or is_repeatable(method, path))


def may_retry_error(error: httpx.TransportError, method: str, path: str) -> bool:
    """Whether to repeat a request after a connection failed or was cut."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.ProxyError):
        return False
    return isinstance(error, NOT_SENT) or is_repeatable(method, path)


def pause(attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds before try number `attempt + 1`, drawn at random so that clients do not come back together."""
    bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    if retry_after is None:
        return random.uniform(0, bound)
    return retry_after + random.uniform(0, min(1.0, bound))


def retry_after_of(headers: httpx.Headers) -> float | None:
    """Return the seconds that `Retry-After` asks for, as seconds or as an HTTP date; None where it says nothing."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    until, now = _seconds_of(value), _seconds_of(headers.get("date", ""))
    # by the clock of the service, where it says the time: that of this machine may be another
    return None if until is None else max(0.0, until - (time.time() if now is None else now))


def _seconds_of(http_date: str) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except ValueError:
        return None


def reason_of(error: httpx.TransportError) -> str:
    """Return what happened to a connection, in words."""
    if isinstance(error, httpx.ConnectTimeout):
        return "the connection was not accepted in time"
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    if isinstance(error, httpx.ConnectError) and "refused" in str(error).lower():
        return "nothing listens at this address"
    return str(error).rstrip(".") or type(error).__name__


class Tries:
    """How often a request was sent, and whether it may be sent again."""

    def __init__(self, method: str, path: str, max_retries: int, patience: float | None) -> None:
        self.method = method
        self.path = path
        self.max_retries = max_retries
        self.deadline = None if patience is None else time.monotonic() + patience
        self.attempt = 0

    def after_error(self, error: httpx.TransportError, url: str) -> float:
        """Return the seconds until the next try. Raises Unreachable when there is none."""
        wait = self._next_pause(None)
        if wait is None or not may_retry_error(error, self.method, self.path):
            raise Unreachable(url, reason_of(error)) from error
        return wait

    def after_response(self, response: httpx.Response, body: bytes) -> float:
        """Return the seconds until the next try. Raises the problem of the response when there is none."""
        if response.is_redirect:
            target = response.headers.get("location", "")
            raise BadResponse(f"{response.url} redirects to {target}: configure that address.")
        problem: TrainkitError = problem_of(response.status_code, body, response.headers)
        retry_after = retry_after_of(response.headers)
        if isinstance(problem, TooManyRequests):
            problem.retry_after = retry_after
        if not may_retry_response(response.status_code, self.method, self.path):
            raise problem
        wait = self._next_pause(retry_after)
        if wait is None:
            raise problem
        return wait

    def _next_pause(self, retry_after: float | None) -> float | None:
        if retry_after is not None and retry_after > LONGEST_RETRY_AFTER:
            return None
        wait = pause(self.attempt, retry_after)
        self.attempt += 1
        if self.deadline is not None:
            return wait if time.monotonic() + wait < self.deadline else None
        return wait if self.attempt <= self.max_retries else None
